"""Data that are read item by item: images of a folder, the items of a ``Dataset``."""

import contextlib
import time
from collections.abc import Callable

import numpy as np

from ..common.progress import progress
from .memory import check_memory

SECONDS_WITHOUT_PROGRESS = 2.0
"""Reading that takes longer shows its progress."""


def stack_items(
    name: str, num_items: int, read: Callable[[int], np.ndarray], called: Callable[[int], str]
) -> np.ndarray:
    """Read items of one shape and type into one array, in their order.

    Args:
        name: of the data, in errors.
        num_items: number N of the items.
        read: gives the values of an item, by its number.
        called: gives the name of an item in errors, by its number.

    Returns:
        array (N, *event_shape).

    Raises:
        ValueError: if an item differs from the first in shape or type, or if all would fill too
            much of the memory.

    >>> stack_items("squares", 3, lambda i: np.array([i**2]), str).tolist()
    [[0], [1], [4]]
    """
    if num_items == 0:
        raise ValueError(f"{name} holds no rows")
    first, started = read(0), time.monotonic()
    shape = (num_items, *first.shape)
    check_memory(name, shape, first.itemsize, "save it as a .npy file, which is read by batches")
    values = np.empty(shape, first.dtype)
    values[0] = first
    with contextlib.ExitStack() as shown:
        advance = None
        for number in range(1, num_items):
            item = read(number)
            if (item.shape, item.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"{called(number)} has shape {item.shape} and type {item.dtype}, and "
                    f"{called(0)} {first.shape} and {first.dtype}: all must be alike"
                )
            values[number] = item
            if advance is not None:
                advance(note=f"{number + 1} of {num_items}")
            elif time.monotonic() > started + SECONDS_WITHOUT_PROGRESS:
                advance = shown.enter_context(progress("reading", num_items))
                advance(number + 1)
    return values
