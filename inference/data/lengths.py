"""Lengths of padded sequences: their checks, and padding that is zero."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from .arrays import to_array


def read_lengths(lengths: Any, num_rows: int, num_steps: int, name: str) -> np.ndarray:
    """Lengths of padded sequences as int64 (N,), each from 1 to the number of steps.

    Args:
        lengths: (N,), whole numbers.
        num_rows: N.
        num_steps: T, of the padded sequences (N, T, …).
        name: of the data, in errors.

    Raises:
        ValueError: if they are not whole numbers, one a row; naming the rows whose length is 0 or
            beyond the padding.

    >>> read_lengths([2, 5], 2, 4, "x")
    Traceback (most recent call last):
    ValueError: lengths of x go beyond its padding, of 4 steps: 5 in row 1, counted from 0
    """
    array = to_array(lengths, f"lengths of {name}")
    if array.shape != (num_rows,):
        raise ValueError(
            f"lengths of {name} must be one number for each of {num_rows} rows, got shape "
            f"{array.shape}"
        )
    whole = array.astype(np.int64)
    if array.dtype.kind not in "iuf" or (whole != array).any():
        raise ValueError(f"lengths of {name} must be whole numbers, got {array.dtype}")
    short = np.flatnonzero(whole < 1)
    if len(short):
        what = "of length 0" if (whole[short] == 0).all() else "of a length below 1"
        raise ValueError(f"{name} has sequences {what} in {name_rows(short)}: drop them")
    beyond = np.flatnonzero(whole > num_steps)
    if len(beyond):
        raise ValueError(
            f"lengths of {name} go beyond its padding, of {num_steps} steps: "
            f"{whole[beyond[0]]} in {name_rows(beyond)}"
        )
    return whole


def flag_steps(lengths: np.ndarray, num_steps: int) -> np.ndarray:
    """Flags (N, T) of the steps that are there.

    >>> flag_steps(np.array([1, 3]), 3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return np.arange(num_steps) < lengths[:, None]


def pad_joined(joined: np.ndarray, lengths: np.ndarray, num_steps: int = 0) -> np.ndarray:
    """Padded sequences (N, T, …), with zeros at the end, from their steps laid end to end.

    Args:
        joined: the steps (ΣT, …).
        lengths: (N,), which sum to ΣT.
        num_steps: T, where it is to be more than the longest.

    >>> pad_joined(np.array([7, 8, 9]), np.array([1, 2])).tolist()
    [[7, 0], [8, 9]]
    """
    num_steps = max(num_steps, int(lengths.max()))
    padded = np.zeros((len(lengths), num_steps, *joined.shape[1:]), joined.dtype)
    padded[flag_steps(lengths, num_steps)] = joined
    return padded


def with_zero_padding(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Padded sequences (N, T, …), cut to the longest, in a copy whose padding is zero."""
    cut = values[:, : int(lengths.max())].copy()
    cut[~flag_steps(lengths, cut.shape[1])] = 0
    return cut


def pad_to(values: np.ndarray, num_steps: int) -> np.ndarray:
    """Padded sequences (N, T, …) with zeros at the end up to so many steps."""
    missing = num_steps - values.shape[1]
    if missing <= 0:
        return values
    return np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)])


def cut_to_lengths(values: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """The sequences of padded ones (N, T, …), each of its own length."""
    return [row[:length] for row, length in zip(values, lengths, strict=True)]


def count_lengths(lengths: np.ndarray | None, rows: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Each length among some rows, with how many there are of it; of other data none.

    >>> count_lengths(np.array([3, 1, 3, 9]), np.array([0, 1, 2]))
    ((1, 1), (3, 2))
    """
    if lengths is None:
        return ()
    values, counts = np.unique(lengths[rows], return_counts=True)
    return tuple(zip(values.tolist(), counts.tolist(), strict=True))
