"""Labels as integers."""

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from .arrays import to_array_or_words

LABEL_LIMIT = 2.0**63
"""Labels are 64-bit integers, so their absolute value is below this."""


def code_labels(labels: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Convert labels to integers; also returns the names behind them, if they were words.

    Whole numbers are kept, and words are numbered in alphabetical order.

    Raises:
        ValueError: if there is not one label for each row, if labels are missing, or if they are
            numbers with fractions, which are not classes.

    >>> code_labels(["cat", "ant", "cat"])
    (array([1, 0, 1]), ('ant', 'cat'))
    >>> code_labels([10.5, 2.5])
    Traceback (most recent call last):
    ValueError: labels are whole numbers or words, but 10.5 is in row 0, counted from 0: round \
or bin them into classes, or give them to a conditional model as a context, (x, labels)
    """
    if labels is None:
        return None, ()
    array = to_array_or_words(labels, "labels")
    if array.ndim != 1:
        raise ValueError(f"labels must be one for each row, (N,), got shape {array.shape}")
    if array.dtype.kind == "O":
        array = _from_objects(array)
    if array.dtype.kind == "c":
        raise ValueError("labels are whole numbers or words, not complex numbers")
    if array.dtype.kind in "fiu":
        return _whole(array), ()
    if array.dtype.kind == "b":
        return array.astype(np.int64), ()
    _refuse_missing(array != array)
    names, codes = np.unique(array.astype(str), return_inverse=True)
    return codes, tuple(names.tolist())


def _whole(array: np.ndarray) -> np.ndarray:
    """Convert numbers to 64-bit integers, or refuse those that are not whole."""
    if array.dtype.kind != "i":
        _refuse_missing(np.isnan(array))
        fractions = np.flatnonzero(np.floor(array) != array)
        if len(fractions):
            raise ValueError(
                f"labels are whole numbers or words, but {array[fractions[0]]:g} is in "
                f"{name_rows(fractions[:1])}: round or bin them into classes, or give them to a "
                "conditional model as a context, (x, labels)"
            )
        large = np.flatnonzero(np.abs(array.astype(np.float64)) >= LABEL_LIMIT)
        if len(large):
            raise ValueError(
                f"labels are integers of 64 bits, but {array[large[0]]:g} is in {name_rows(large)}"
            )
    return array.astype(np.int64)


def _from_objects(array: np.ndarray) -> np.ndarray:
    """Convert an array of objects to numbers if all are numbers, else to words."""
    import pandas as pd  # slow to import, and seldom needed

    _refuse_missing(np.asarray(pd.isna(array)))
    if not all(isinstance(label, Real | Decimal | np.bool_) for label in array):
        return array.astype(str)
    if all(float(label).is_integer() and abs(label) < LABEL_LIMIT for label in array):
        return np.array([int(label) for label in array], dtype=np.int64)
    return array.astype(np.float64)


def _refuse_missing(flags: np.ndarray) -> None:
    missing = np.flatnonzero(flags)
    if len(missing):
        raise ValueError(
            f"labels are missing (NaN or None) in {name_rows(missing)}: drop those rows"
        )
