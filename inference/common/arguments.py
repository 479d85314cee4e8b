"""Checks of arguments, and names of rows in messages."""

from collections.abc import Mapping

import numpy as np


def check_least(given: Mapping[str, tuple[int, int]]) -> None:
    """Refuse numbers that are too small.

    Args:
        given: by the name of the argument, its value and the least allowed value.

    Raises:
        ValueError: if a value is too small.

    >>> check_least({"num_chains": (1, 2)})
    Traceback (most recent call last):
    ValueError: num_chains must be at least 2, got 1
    """
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def name_rows(rows: np.ndarray, most: int = 5) -> str:
    """Name rows in a message: the first few row numbers, and how many there are.

    >>> name_rows(np.array([3])), name_rows(np.arange(7))
    ('row 3, counted from 0', 'rows 0, 1, 2, 3, 4, … (7 in all), counted from 0')
    """
    shown = ", ".join(str(row) for row in rows[:most])
    more = f", … ({len(rows)} in all)" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}, counted from 0"
