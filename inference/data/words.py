"""Columns that hold words, or what looks like words: where, and what to do with them."""

import math
from collections.abc import Collection
from numbers import Real
from typing import Any

import numpy as np

from .codes import are_codes
from .csv_format import MISSING_WORDS, NUMBER_PATTERNS

SHOWN_CHARACTERS = 40
"""Of a value that an error shows."""
MOST = 0.5
"""With more than this share of numbers, a column is meant to hold numbers."""


def is_number_or_written(cell: Any, mark: str = ".") -> bool:
    """Whether a cell of a table is a number, or one that is written out."""
    if isinstance(cell, str):
        return NUMBER_PATTERNS[mark].fullmatch(cell) is not None
    return isinstance(cell, Real | np.bool_) and not (isinstance(cell, float) and math.isnan(cell))


def rows_of_words(column: Any) -> list[int]:
    """The rows of a column that hold no number, with the decimal mark that leaves fewest."""
    cells = list(column)
    return min(
        (
            [row for row, cell in enumerate(cells) if not is_number_or_written(cell, mark)]
            for mark in NUMBER_PATTERNS
        ),
        key=len,
    )


def first_word(column: Any) -> str:
    """The first value of a column that is no number, and its row, in words."""
    row = next(iter(rows_of_words(column)), 0)
    return f"{str(column.iloc[row])[:SHOWN_CHARACTERS]!r} in row {row}, counted from 0"


def are_written_numbers(column: Any) -> bool:
    """Whether all values of a column of words are written numbers, and no codes such as "01"."""
    cells = column.tolist()
    written = all(isinstance(cell, str) and is_number_or_written(cell) for cell in cells)
    return written and not are_codes(cells)


def seems_missing(column: Any) -> str:
    """A word for a missing value, if all other values of a column of words are numbers."""
    words = {cell for cell in column.tolist() if isinstance(cell, str)}
    other = {word for word in words if not is_number_or_written(word)}
    only_missing = all(word.strip().lower() in MISSING_WORDS for word in other)
    return min(other) if other and len(other) < len(words) and only_missing else ""


def objects_as_numbers(table: Any, numeric: Collection[str], *, is_plain: bool) -> Any:
    """The table with objects that are numbers as such, and words that are to be numbers.

    Args:
        numeric: names of the columns whose words are to be numbers, where all of them are written
            numbers.
        is_plain: whether all columns are numbers, and none is to be encoded.
    """
    import pandas as pd  # slow to import, and seldom needed

    table = table.copy(deep=False)
    for place, dtype in enumerate(table.dtypes):
        if dtype.kind not in "OT" or hasattr(dtype, "categories"):
            continue
        column = table.iloc[:, place]
        if str(table.columns[place]) in numeric and not rows_of_words(column):
            table.isetitem(place, pd.to_numeric(column))
        elif is_plain and not any(isinstance(cell, str | bool | np.bool_) for cell in column):
            table.isetitem(place, column.infer_objects())
    return table


def refuse_words(name: str, title: str, column: Any) -> None:
    """Refuse a column that is not numeric, and say what may be done with it.

    Args:
        name: of the table.
        title: of the column.

    Raises:
        ValueError: always.
    """
    what = f"column {title!r} of {name} is not numeric"
    if hasattr(column.dtype, "categories") or column.dtype.kind not in "OT":
        advice = "drop it, or convert it to numbers"
        if column.dtype.kind in "mM":
            advice = "drop it, convert it to a number of days, or sort a split by it with order="
        raise ValueError(f"{what} ({column.dtype}): {advice}{_OTHERWISE}")
    where, bad = f"{what} ({first_word(column)})", rows_of_words(column)
    cells = [cell for cell in column.tolist() if isinstance(cell, str)]
    if not bad and are_codes(cells):
        raise ValueError(
            f"{where}: codes with zeros in front are words; drop it, or convert it to numbers"
            f"{_OTHERWISE}"
        )
    if not bad:
        raise ValueError(f"{where}: it holds written numbers, so convert it with pd.to_numeric")
    if len(bad) < MOST * len(column) or seems_missing(column):
        unit = ", or drop that row if it is a second row of names, or of units" * (bad == [0])
        raise ValueError(
            f"{where}, but most of its values are: mend that value{unit}; missing values are not "
            "supported"
        )
    raise ValueError(f"{where}: leave it out by drop={_OTHERWISE}")


_OTHERWISE = (
    "; or set it aside, by labels=, groups= (rows of one group stay in one part) or given= (a "
    "context); or give kinds={} (on the command line the recipe vae-table, or --likelihood "
    "columns) to model columns of all kinds"
)
