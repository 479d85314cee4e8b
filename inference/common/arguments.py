"""Checks of arguments, and names of rows in messages."""

from collections.abc import Collection, Mapping

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


def refuse_more(function: str, more: Collection[object]) -> None:
    """Refuse arguments by position after the data, as ``svi.step(X, y)`` takes them.

    Raises:
        ValueError: if there are any.

    >>> refuse_more("fit", ("y",))
    Traceback (most recent call last):
    ValueError: fit takes all data as one argument, such as the tuple (X, y); settings have keywords
    """
    if more:
        raise ValueError(
            f"{function} takes all data as one argument, such as the tuple (X, y); settings have "
            "keywords"
        )


def name_rows(rows: np.ndarray, most: int = 5) -> str:
    """Name rows in a message: the first few row numbers, and how many there are.

    >>> name_rows(np.array([3])), name_rows(np.arange(7))
    ('row 3, counted from 0', 'rows 0, 1, 2, 3, 4, … (7 in all), counted from 0')
    """
    shown = ", ".join(str(row) for row in rows[:most])
    more = f", … ({len(rows)} in all)" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}, counted from 0"
