"""Encode the columns of a table as numbers, and decode them again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from ..common.lookup import did_you_mean
from .checks import name_columns, plain
from .column import Column
from .column_kinds import check_of_kind, check_present, to_numbers


def encode_columns(frame: Any, columns: Sequence[Column]) -> np.ndarray:
    """Encode a DataFrame as float64 numbers (N, D): codes of categories, and numbers as they are.

    Its columns are found by name, in any order. :func:`decode_columns` is the exact inverse, but
    for the index of the frame.

    Args:
        frame: a pandas DataFrame with these columns, and no others.
        columns: what :func:`infer_columns` found.

    Raises:
        ValueError: if there are other columns than these; or naming the column, a value and its
            rows: a value is missing, infinite, no known category, or not of the column's kind.

    >>> import pandas as pd
    >>> columns = [Column("x", "count", dtype="int64"), Column("c", "binary", ("no", "yes"), "str")]
    >>> encode_columns(pd.DataFrame({"c": ["yes", "no"], "x": [3, 0]}), columns)
    array([[3., 1.],
           [0., 0.]])
    """
    places = _find_columns([str(name) for name in frame.columns], columns)
    values = np.empty((len(frame), len(columns)))
    for number, (column, place) in enumerate(zip(columns, places, strict=True)):
        series, name = frame.iloc[:, place], str(column.name)
        check_present(series, name)
        if column.categories:
            values[:, number] = _codes(series, column)
        else:
            values[:, number] = to_numbers(series, name)
            check_of_kind(values[:, number], name, column.kind)
    return values


def decode_columns(values: Any, columns: Sequence[Column]) -> Any:
    """Decode numbers (N, D) as a DataFrame, of the columns' own names, types and categories.

    Draws of a model need not be what :func:`encode_columns` gives: numbers of a column of whole
    numbers are rounded to the nearest, as a wider type if its own does not hold them; and
    probabilities of a binary column become the likelier value.

    Raises:
        ValueError: if the values are not (N, D); or naming the column and the value, if it is not
            finite, or is no code of a category: the mean of codes means nothing.

    >>> decode_columns([[2.6, 0.9]], [Column("x", "count", dtype="int64"),
    ...                               Column("smoker", "binary", ("no", "yes"), "str")])
       x smoker
    0  3    yes
    """
    import pandas as pd  # slow to import, and seldom needed

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise ValueError(f"{len(columns)} columns cannot be decoded from values of {array.shape}")
    decoded = {}
    for column, of_column in zip(columns, array.T, strict=True):
        bad = np.flatnonzero(~np.isfinite(of_column))
        if len(bad):
            raise ValueError(
                f"column {str(column.name)!r} cannot be decoded: {of_column[bad[0]]} is in "
                f"{name_rows(bad)}"
            )
        decode = _decode_codes if column.categories else _decode_numbers
        decoded[column.name] = decode(pd, of_column, column)
    return pd.DataFrame(decoded)


def _find_columns(names: Sequence[str], columns: Sequence[Column]) -> list[int]:
    """The place of each column in a table."""
    wanted = [str(column.name) for column in columns]
    missing = [name for name in wanted if name not in names]
    if missing:
        question = did_you_mean(missing[0], [name for name in names if name not in wanted])
        raise ValueError(f"the table lacks {name_columns(missing)}{question and f': {question}'}")
    others = [name for name in names if name not in wanted]
    if others or len(names) > len(wanted):
        found = others or [name for name in wanted if names.count(name) > 1]
        raise ValueError(
            f"the table has {name_columns(found)} {'unlike' if others else 'twice, unlike'} the "
            "one that was fitted: drop what is not to be used"
        )
    return [names.index(name) for name in wanted]


def _codes(series: Any, column: Column) -> np.ndarray:
    """The codes of a column's values."""
    known = {value: code for code, value in enumerate(column.categories)}
    try:
        numbers, distinct = series.factorize()
    except TypeError as error:
        raise ValueError(f"column {str(column.name)!r} holds no words: {error}") from error
    codes = np.array([known.get(value, -1) for value in distinct.tolist()], dtype=int)[numbers]
    unseen = np.flatnonzero(codes < 0)
    if len(unseen):
        value = series.iloc[unseen[0]]
        question = did_you_mean(str(value), map(str, known))
        raise ValueError(
            f"column {str(column.name)!r} has no category {plain(value)!r}, which is in "
            f"{name_rows(unseen)}: {question or _known(column)}"
        )
    return codes


def _known(column: Column) -> str:
    listed = ", ".join(repr(value) for value in column.categories[:10])
    return f"it has {listed}{', …' if len(column.categories) > 10 else ''}"


def _decode_codes(pd: Any, values: np.ndarray, column: Column) -> Any:
    codes = np.floor(values + 0.5) if column.kind == "binary" else values
    bad = np.flatnonzero(
        (codes != np.floor(codes)) | (codes < 0) | (codes >= len(column.categories))
    )
    if len(bad):
        raise ValueError(
            f"column {str(column.name)!r} has {len(column.categories)} categories, and "
            f"{values[bad[0]]:g} in {name_rows(bad)} is no code of one: decode draws, not means"
        )
    whole = codes.astype(np.int64)
    kind, _, inner = column.dtype.rpartition("category of ")
    if inner != column.dtype:
        index = pd.Index(column.categories, dtype=inner)
        return pd.Categorical.from_codes(whole, index, ordered=kind == "ordered ")
    return pd.Series(list(column.categories), dtype=column.dtype).take(whole).reset_index(drop=True)


def _decode_numbers(pd: Any, values: np.ndarray, column: Column) -> Any:
    dtype: Any = pd.api.types.pandas_dtype(column.dtype)
    plain = np.dtype(f"{dtype.kind}{dtype.itemsize}")
    if dtype.kind in "iu":
        values = np.rint(values)
        limits = np.iinfo(plain)
        if len(values) and not limits.min <= values.min() <= values.max() <= limits.max:
            return pd.Series(values.astype(np.int64))
        return pd.Series(values.astype(plain), dtype=dtype)
    if len(values) and np.abs(values).max() > np.finfo(plain).max:
        return pd.Series(values)
    return pd.Series(values.astype(plain), dtype=dtype)
