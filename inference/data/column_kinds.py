"""Infer the kinds of a table's columns (normal, count, binary, categorical) from their values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from ..common.lookup import did_you_mean, find_named
from .checks import name_columns
from .column import CODED, KINDS, Column
from .words import are_written_numbers, first_word, seems_missing

MAX_CATEGORIES = 50
"""A column with more different words is not taken for categories unless that is asked for."""
MIN_REPEATED = 10
"""With more different words than this, in more than half of the rows, words are names of rows."""
MAX_COUNTS = 50
"""Whole numbers with more different values are not taken for counts."""
MIN_SKEWNESS = 1.0
"""Numbers above 0 with at least this skewness may be log-normal …"""
MAX_LOG_SKEWNESS = 0.5
"""… and are taken for it if the skewness of their logarithms is at most this."""
MIN_LOGNORMAL_ROWS = 20
"""With fewer rows, skewness says too little."""
EXACT_WHOLE = 2**53
"""Larger whole numbers are not exact in float64."""
SHOWN_CATEGORIES = 5
"""Categories that a reason or an error lists."""


def infer_columns(frame: Any, kinds: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """Infer how each column of a DataFrame is modelled, with the reason.

    =============================================================== ===========
    values                                                          kind
    =============================================================== ===========
    an ordered pandas category                                      ordinal
    two values, of any type; bool                                   binary
    words, and pandas categories, at most :data:`MAX_CATEGORIES`    categorical
    whole numbers, the smallest 0, at most :data:`MAX_COUNTS`
    different, of a variance of at least half their mean            count
    numbers above 0 with a skewness of at least
    :data:`MIN_SKEWNESS`, and that of their logarithms at most
    :data:`MAX_LOG_SKEWNESS` in size                                lognormal
    other numbers                                                   normal
    =============================================================== ===========

    Numbers that stand for classes look like counts or measurements: ask for ``categorical`` or
    ``ordinal``. Student's t and Poisson are never inferred.

    Args:
        frame: a pandas DataFrame.
        kinds: kinds by column name, in place of those inferred.

    Raises:
        ValueError: naming the column and the reason: values are missing, infinite, of several
            types or neither numbers nor words; there is one word only, or so many that they are no
            categories; or its values are not of the kind asked for.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"colour": ["red", "blue", "green"], "x": [0.5, 1.5, -2.0]})
    >>> for column in infer_columns(frame):
    ...     print(column.name, column.kind, column.categories)
    colour categorical ('blue', 'green', 'red')
    x normal ()
    """
    names = [str(name) for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"there is more than one {name_columns(repeated)}: rename all but one")
    for name, kind in (kinds or {}).items():
        if name not in names:
            question = did_you_mean(name, names)
            raise ValueError(f"there is no column {name!r}{question and f': {question}'}")
        find_named(kind, dict.fromkeys(KINDS), "kind of column")
    columns = []
    for place, name in enumerate(frame.columns):
        series = frame.iloc[:, place]
        check_present(series, str(name))
        asked = (kinds or {}).get(str(name))
        kind, categories, reason = (
            _infer(series, str(name)) if asked is None else _of_kind(series, str(name), asked)
        )
        own_name = name if isinstance(name, str | int) else str(name)
        columns.append(Column(own_name, kind, tuple(categories), dtype_of(series), reason))
    return tuple(columns)


def _infer(series: Any, name: str) -> tuple[str, Sequence[Any], str]:
    """Kind, categories and reason of a column."""
    if not is_numeric(series):
        categories = _categories(series, name)
        _check_words(series, name)
        kind = "binary" if len(categories) == 2 else "categorical"
        if dtype_of(series).startswith("ordered"):
            return "ordinal", categories, _list_categories(categories, "levels")
        if kind == "categorical":
            _check_few(categories, len(series), name)
        return kind, categories, _list_categories(categories, "values")
    numbers = to_numbers(series, name)
    distinct = np.unique(numbers)
    if len(distinct) == 2:
        categories = _distinct_numbers(series)
        return "binary", categories, _list_categories(categories, "values")
    whole = np.array_equal(numbers, np.floor(numbers))
    what = f"{len(distinct)} different {'whole ' if whole else ''}numbers"
    what += f" from {distinct[0]:.6g} to {distinct[-1]:.6g}"
    if len(distinct) == 1:
        return "normal", (), f"constant at {distinct[0]:.6g}"
    with np.errstate(over="ignore"):
        is_spread = numbers.var() >= numbers.mean() / 2
    if whole and distinct[0] == 0 and len(distinct) <= MAX_COUNTS and is_spread:
        return "count", (), what
    if distinct[0] > 0 and len(numbers) >= MIN_LOGNORMAL_ROWS:
        skewness, of_logarithms = _skewness(numbers), _skewness(np.log(numbers))
        if skewness >= MIN_SKEWNESS and abs(of_logarithms) <= MAX_LOG_SKEWNESS:
            return "lognormal", (), f"skewness {skewness:.1f}, of logarithms {of_logarithms:.1f}"
    if whole and len(distinct) <= SHOWN_CATEGORIES * 2:
        what += "; if they are levels or codes, ask for ordinal or categorical"
    return "normal", (), what


def _of_kind(series: Any, name: str, kind: str) -> tuple[str, Sequence[Any], str]:
    """Kind, categories and reason of a column whose kind is given."""
    reason = "as asked for"
    if kind not in CODED:
        check_of_kind(to_numbers(series, name), name, kind)
        return kind, (), reason
    if is_numeric(series):
        to_numbers(series, name)  # refuses what is not finite
        categories = _distinct_numbers(series)
        if kind == "binary" and len(categories) == 1 and categories[0] in (0, 1):
            categories = [type(categories[0])(bit) for bit in (0, 1)]
        if len(categories) < 2:
            raise ValueError(f"column {name!r} is constant at {categories[0]!r}: drop it")
    else:
        categories = _categories(series, name)
    ordered = is_numeric(series) or dtype_of(series) == "bool" or "ordered" in dtype_of(series)
    if kind == "ordinal" and not ordered:
        raise ValueError(
            f"column {name!r} cannot be ordinal, for its words have no order: make it an ordered "
            "category, pd.Categorical(values, categories=[…], ordered=True)"
        )
    if kind == "binary" and len(categories) != 2:
        raise ValueError(
            f"column {name!r} cannot be binary, with {_list_categories(categories, 'values')}"
        )
    return kind, categories, reason


def check_present(series: Any, name: str) -> None:
    """Refuse a column with missing values.

    Raises:
        ValueError: naming the column and the rows.
    """
    missing = np.flatnonzero(series.isna().to_numpy(dtype=bool))
    if len(missing):
        raise ValueError(
            f"column {name!r} has missing values, in {name_rows(missing)}: drop those rows, or "
            "fill them"
        )


def is_numeric(series: Any) -> bool:
    """Whether a column holds numbers, and no bits, words or categories."""
    return series.dtype.kind in "iuf"


def to_numbers(series: Any, name: str) -> np.ndarray:
    """The numbers of a column, exactly, in float64.

    Raises:
        ValueError: naming the column and a value, if they are no numbers, infinite, or too large
            to be exact.
    """
    if not is_numeric(series):
        raise ValueError(
            f"column {name!r} is not numeric ({first_word(series)}), as its kind needs"
        )
    numbers = series.to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(f"column {name!r} holds infinity, in {name_rows(bad)}")
    large = np.flatnonzero(np.abs(numbers) > EXACT_WHOLE)
    if len(large) and series.dtype.kind in "iu":
        raise ValueError(
            f"column {name!r} holds {series.iloc[large[0]]}, which float64 rounds: drop it if it "
            "is an identifier, else subtract an offset"
        )
    return numbers


def check_of_kind(numbers: np.ndarray, name: str, kind: str) -> None:
    """Refuse numbers that are not of a kind.

    Raises:
        ValueError: naming the column, the first of those values and its row.
    """
    if kind in ("count", "poisson"):
        bad, what = (numbers < 0) | (numbers != np.floor(numbers)), "counts are 0, 1, 2, …"
    elif kind == "lognormal":
        bad, what = numbers <= 0, "its values are above 0"
    else:
        return
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(
            f"column {name!r} is no {kind}: {what}, and {numbers[rows[0]]:g} is in "
            f"{name_rows(rows)}"
        )


def dtype_of(series: Any) -> str:
    """The type of a column, as :attr:`Column.dtype` has it."""
    dtype = series.dtype
    if not hasattr(dtype, "ordered"):
        return str(dtype)
    return f"{'ordered ' if dtype.ordered else ''}category of {dtype.categories.dtype}"


def _categories(series: Any, name: str) -> list[Any]:
    """The categories of a column that is not numeric: as pandas has them, or sorted words.

    Raises:
        ValueError: if values are of several types, or neither words nor bits, or there is one.
    """
    is_category = hasattr(series.dtype, "ordered")
    if series.dtype.kind == "b":
        return [False, True]
    values = series.dtype.categories.tolist() if is_category else series.tolist()
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1:
        raise ValueError(
            f"column {name!r} holds values of several types, {', '.join(sorted(kinds))}: convert "
            f"them to one, with frame[{name!r}].astype(str) for words"
        )
    if not kinds <= ({"str", "bool", "int", "float"} if is_category else {"str", "bool"}):
        raise ValueError(
            f"column {name!r} is neither numbers nor words, but {series.dtype} ({values[0]!r}): "
            "convert it, numbers with pd.to_numeric, dates to a number of days"
        )
    if kinds == {"bool"} and not is_category:
        return [False, True]
    found = values if is_category else sorted(set(values))
    if len(found) < 2:
        raise ValueError(f"column {name!r} is constant at {found[0]!r}: drop it")
    return found


def _check_words(series: Any, name: str) -> None:
    """Refuse words that are numbers, but for some that stand for missing values."""
    if series.dtype.kind not in "OT" or hasattr(series.dtype, "categories"):
        return
    if are_written_numbers(series):
        raise ValueError(
            f"column {name!r} holds written numbers ({first_word(series)}): convert it with "
            "pd.to_numeric, or ask for the kind categorical"
        )
    missing = seems_missing(series)
    if missing:
        raise ValueError(
            f"column {name!r} holds numbers, and {missing!r}, which seems to be a missing value: "
            "drop those rows, or ask for the kind categorical"
        )


def _check_few(categories: Sequence[Any], num_rows: int, name: str) -> None:
    """Refuse so many words that they are identifiers or free text."""
    many = len(categories) > MIN_REPEATED and 2 * len(categories) > num_rows
    if len(categories) > MAX_CATEGORIES or many:
        raise ValueError(
            f"column {name!r} holds {len(categories)} different words in {num_rows} rows, such as "
            f"{categories[0]!r}: leave it out by drop= if they are names, dates or "
            "text, join rare ones into one, or ask for the kind categorical"
        )


def _distinct_numbers(series: Any) -> list[Any]:
    """The different numbers of a column, in order, of its own type."""
    return sorted(series.drop_duplicates().tolist())


def _list_categories(categories: Sequence[Any], what: str) -> str:
    """The first few categories, in words."""
    shown = ", ".join(map(str, categories[:SHOWN_CATEGORIES]))
    more = ", …" if len(categories) > SHOWN_CATEGORIES else ""
    return f"{len(categories)} {what}: {shown}{more}"


def _skewness(numbers: np.ndarray) -> float:
    """The third standardized moment."""
    with np.errstate(over="ignore", invalid="ignore"):  # of huge numbers: NaN, which is no kind
        centred = numbers - numbers.mean()
        return float((centred**3).mean() / (centred**2).mean() ** 1.5)
