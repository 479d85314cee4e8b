"""Tables: which columns are data, and which columns have no density."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..common.lookup import did_you_mean
from .checks import name_columns, number_of
from .column import CODED, Column
from .column_kinds import infer_columns
from .column_values import encode_columns
from .labels import code_labels
from .source import Source, join_notes
from .words import objects_as_numbers, refuse_words

Kinds = Mapping[str, str] | Sequence[Column] | None
"""How a table of several kinds is encoded: kinds by the names of columns, of which the others are
inferred; or the columns as they were found before. ``None``: all columns are numbers."""

NAMELESS = re.compile(r"|Unnamed: \d+(\.\d+)?")
"""Names of a column without a name; the second one is from pandas."""
EXACT_WHOLE = 2**53
"""Larger whole numbers are not exact in float64."""
MISSING_NUMBERS = (-99, -999, -9999, -99999, -999999)
"""Numbers that often stand for a missing value, where no other is below 0."""
LOST_SPREAD_SHARE = 1e-3
"""A column's spread is lost if float32 rounds a value by more than this share of its
standard deviation."""
MIN_ROWS = 3
"""With fewer rows, columns are not checked for their spread, nor for row numbers."""


def from_table(
    name: str,
    table: Any,
    labels: Any = None,
    note: str = "",
    *,
    aside: Sequence[str] = (),
    require: bool = True,
    kinds: Kinds = None,
) -> Source:
    """Read a DataFrame as float64 values.

    Args:
        labels: labels (N,), or the name of their column.
        note: how the table was read.
        aside: names of columns that are no data, but kept beside them as they are.
        require: whether the columns that ``labels`` and ``aside`` name must be there.
        kinds: how columns of several kinds are encoded.

    Raises:
        ValueError: if it holds no rows, no columns except the labels, or a column of words; or if
            a first column without a name holds whole numbers that do not count the rows.
    """
    if hasattr(table, "to_pandas"):  # a table of Polars or Arrow
        table = table.to_pandas()
    there = set(map(str, table.columns))
    kept: dict[str, np.ndarray] = {}
    for column in aside:
        if require or column in there:
            kept[column], table = _take_column(name, table, column)
    if isinstance(labels, str):
        if labels in kept:
            labels = kept[labels]
        elif require or labels in there:
            labels, table = _take_column(name, table, labels)
        else:
            labels = None
    if len(table) == 0:
        raise ValueError(f"{name} holds no rows")
    table, dropped = _drop_nameless(name, table)
    if len(table.columns) == 0:
        raise ValueError(f"{name} holds no columns of data")
    asked = kinds if isinstance(kinds, Mapping) else {str(c.name): c.kind for c in kinds or ()}
    if beside := sorted((there - set(map(str, table.columns))) & set(asked)):
        raise ValueError(
            f"{name}: {name_columns(beside)} has a kind, and is not modelled: leave its kind out, "
            "or do not set it aside or drop it"
        )
    numeric = {title for title, kind in asked.items() if kind not in CODED}
    table = objects_as_numbers(table, numeric, is_plain=kinds is None)
    found: tuple[Column, ...] = ()
    if kinds is None:
        values = _numbers(name, table)
    else:
        try:
            found = infer_columns(table, kinds) if isinstance(kinds, Mapping) else tuple(kinds)
            values = encode_columns(table, found)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    columns = tuple(str(column.name) for column in found) or tuple(map(str, table.columns))
    wide = wide_columns(values, columns)
    dtypes = () if found else tuple(dtype.name.lower() for dtype in table.dtypes)
    read = f"read {number_of(len(values), 'row')} of {number_of(len(columns), 'column')}"
    remarks = remark_on(values, columns) if len(values) >= MIN_ROWS else ""
    note = join_notes(", ".join(filter(None, [read, note])), dropped, remarks)
    codes, names = code_labels(labels)
    return Source(
        name, values, codes, names, columns=columns, dtypes=dtypes, wide_columns=wide, note=note,
        aside=kept, kinds=found,
    )  # fmt: skip


def _numbers(name: str, table: Any) -> np.ndarray:
    """The values of a table of numbers."""
    for place, dtype in enumerate(table.dtypes):
        if dtype.kind not in "fiub":
            refuse_words(name, str(table.columns[place]), table.iloc[:, place])
        if dtype.kind in "iu":
            _refuse_rounded(name, str(table.columns[place]), table.iloc[:, place])
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def _refuse_rounded(name: str, title: str, column: Any) -> None:
    """Refuse whole numbers whose differences are lost in float64."""
    if column.isna().any() or max(abs(int(column.max())), abs(int(column.min()))) <= EXACT_WHOLE:
        return
    least = int(column.min())
    exact = np.array([int(number) - least for number in column], dtype=np.float64)
    rounded = column.to_numpy(dtype=np.float64) - float(least)
    if np.abs(exact - rounded).max() > LOST_SPREAD_SHARE * exact.std():
        raise ValueError(
            f"column {title!r} of {name} holds {int(column.max())}, which float64 rounds: drop it "
            "if it is an identifier, else subtract an offset"
        )


def remark_on(values: np.ndarray, columns: Sequence[str]) -> str:
    """A note on columns that may count the rows, from any number on, or say what is missing.

    >>> remark_on(np.array([[1.0, 5], [2, -999], [3, 7]]), ["id", "x"])
    "column 'id' counts the rows: drop what is no measurement; -999 in column 'x' may stand \
for a missing value"
    """
    found = []
    # Identifiers need not start at 0 or 1: a file may be a part of a larger one.
    counting = [
        title
        for title, of in zip(columns, values.T, strict=True)
        if float(of[0]).is_integer() and counts_rows(of - of[0])
    ]
    if counting:
        verb = "counts" if len(counting) == 1 else "count"
        found.append(f"{name_columns(counting)} {verb} the rows: drop what is no measurement")
    for title, of in zip(columns, values.T, strict=True):
        below = np.unique(of[of < 0])
        if len(below) == 1 and below[0] in MISSING_NUMBERS:
            found.append(f"{below[0]:g} in column {title!r} may stand for a missing value")
    return join_notes(*found)


def _take_column(name: str, table: Any, column: str) -> tuple[Any, Any]:
    """The values of a column, and the other columns."""
    places = np.flatnonzero([str(other) == column for other in table.columns])
    if len(places) == 0:
        question = did_you_mean(column, map(str, table.columns))
        raise ValueError(f"{name} has no column {column!r}{question and f': {question}'}")
    if len(places) > 1:
        raise ValueError(f"{name} has {len(places)} columns {column!r}: rename all but one")
    others = np.delete(np.arange(len(table.columns)), places)
    return table.iloc[:, places[0]].to_numpy(), table.iloc[:, others]


def _drop_nameless(name: str, table: Any) -> tuple[Any, str]:
    """Drop columns without a name that hold nothing, or count the rows; also returns a note."""
    nameless = [NAMELESS.fullmatch(str(title)) is not None for title in table.columns]
    empty = [flag and table.iloc[:, n].isna().all() for n, flag in enumerate(nameless)]
    notes = []
    if any(empty) and not all(empty):
        table = table.iloc[:, np.flatnonzero(~np.array(empty))]
        notes.append("columns without name and values dropped")
    table, dropped = _drop_row_numbers(name, table)
    while dropped and len(table.columns) > 1 and NAMELESS.fullmatch(str(table.columns[0])):
        first = table.iloc[:, 0]  # written with row numbers twice
        if first.dtype.kind not in "iu" or not counts_rows(first.to_numpy()):
            break
        table = table.iloc[:, 1:]
    others = [title for title in map(str, table.columns) if NAMELESS.fullmatch(title)]
    if others:
        notes.append(f"{name_columns(others)} {'have' if len(others) > 1 else 'has'} no name")
    return table, join_notes(*notes, dropped)


def _drop_row_numbers(name: str, table: Any) -> tuple[Any, str]:
    """Drop a first column that has no name and counts the rows; also returns a note."""
    if len(table.columns) < 2 or NAMELESS.fullmatch(str(table.columns[0])) is None:
        return table, ""
    first = table.iloc[:, 0]
    if first.dtype.kind not in "fiu":
        return table, ""
    numbers = first.to_numpy(dtype=np.float64, na_value=np.nan)
    if counts_rows(numbers):
        return table.iloc[:, 1:], "row numbers in the first column, which has no name, dropped"
    if np.array_equal(numbers, np.floor(numbers)):
        raise ValueError(
            f"the first column of {name} has no name and may hold row numbers, not data: drop it "
            "(index=False writes none), or give it a name"
        )
    return table, ""


def counts_rows(numbers: np.ndarray) -> bool:
    """Whether numbers are 0, 1, … or 1, 2, …

    >>> counts_rows(np.array([1, 2, 3])), counts_rows(np.array([1, 3, 2]))
    (True, False)
    """
    count = np.arange(len(numbers))
    return np.array_equal(numbers, count) or np.array_equal(numbers, count + 1)


def wide_columns(values: np.ndarray, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns whose spread is lost when they are rounded to float32.

    >>> seconds = 1.7e9 + np.arange(4.0)
    >>> wide_columns(np.stack([seconds, np.arange(4.0)], 1), ["time", "x"])
    ('time',)
    """
    if len(values) < MIN_ROWS:
        return ()
    with np.errstate(over="ignore", invalid="ignore"):
        rounding = np.abs(values.astype(np.float32) - values).max(0)
        spread = values.std(0)
        varies = (values != values[0]).any(0)
    finite = np.isfinite(values).all(0)
    lost = finite & varies & ~(rounding <= LOST_SPREAD_SHARE * spread)
    return tuple(name for name, flag in zip(columns, lost, strict=True) if flag)


def refuse_wide(source: Source) -> None:
    """Refuse a table whose columns lose their spread in float32.

    Raises:
        ValueError: naming those columns.
    """
    if source.wide_columns:
        raise ValueError(
            f"{name_columns(source.wide_columns)} of {source.name}: float32 has too few digits for "
            "so small a spread at so large a size: "
            f"{'' if source.kinds else 'load it with standardize=True, or '}subtract an offset"
        )


def check_columns(
    source: Source, rows: np.ndarray, given: np.ndarray, *, standardize: bool, keep: bool
) -> Source:
    """Refuse columns that are constant, or a copy of another, in the training rows.

    There the density of continuous values grows without limit as its scale goes to 0, so the figure
    that training reaches depends on its length. Bits, counts and values in [0, 1] have likelihoods
    that are bounded, so for them such columns are only noted.

    Args:
        rows: the training rows.
        given: flags of the columns that are a context, and not modelled, (D,).
        standardize: whether values will be standardized.
        keep: whether to keep such columns, and only note them.

    Raises:
        ValueError: naming those columns.
    """
    if not source.columns or len(rows) < MIN_ROWS:
        return source
    values = source.values[rows]
    constant = (values == values[0]).all(0)
    copied = _copies(values, constant, given)
    found = []
    for flags, what in ((constant & ~given, "constant"), (copied, "a copy of another")):
        names = [name for name, flag in zip(source.columns, flags, strict=True) if flag]
        if names:
            found.append(f"{name_columns(names)} {'is' if len(names) == 1 else 'are each'} {what}")
    if not found:
        return source
    whole = np.array_equal(source.values, np.floor(source.values))
    inside = bool(((source.values >= 0) & (source.values <= 1)).all())
    if (standardize or not (whole or inside)) and not keep:
        raise ValueError(
            f"in the training rows of {source.name}, {'; '.join(found)}: the density of continuous "
            "values has no maximum there, so drop such columns, or give keep_degenerate=True"
        )
    return replace(source, note="; ".join(filter(None, [source.note, *found])))


def _copies(values: np.ndarray, constant: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Flags of the columns that copy another, if at least one of the two is modelled, (D,)."""
    first: dict[bytes, int] = {}
    flags = np.zeros(len(given), dtype=bool)
    for place in np.flatnonzero(~constant):
        earlier = first.setdefault((values[:, place] + 0.0).tobytes(), int(place))
        flags[place] = earlier != place and not (given[earlier] and given[place])
    return flags
