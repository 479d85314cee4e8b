"""Checks of data values, and their words in errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.arguments import name_rows


def check_finite(values: Any, name: str, first_row: int = 0, columns: Sequence[str] = ()) -> None:
    """Refuse rows that hold NaN or infinity; the error names them, and the columns of a table.

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        flags = ~np.isfinite(array)
        bad = rows_where(flags)
        if len(bad):
            names = [
                column
                for column, flag in zip(columns, np.atleast_1d(flags.any(0)), strict=False)
                if flag
            ]
            where = f", {name_columns(names)}" if names else ""
            route = _ROUTE if np.isnan(array).any() else ""
            raise ValueError(
                f"{name} holds NaN or infinity in {name_rows(bad + first_row)}{where}: "
                f"drop or fill them{route}"
            )


_ROUTE = (
    "; or give the array and a mask to fit(model, guide, (x, mask)), with a model of your own that "
    "leaves out what is missing, by poutine.mask"
)


def plain(value: Any) -> Any:
    """A number of NumPy as Python's, with the digits that NumPy prints; else the value.

    >>> plain(np.float32(0.2)), plain(np.int64(9)), plain("9")
    (0.2, 9, '9')
    """
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value


def name_columns(names: Sequence[str], most: int = 5) -> str:
    """The names of the first few columns, in words.

    >>> name_columns(["a"]), name_columns(["a", "b"])
    ("column 'a'", "columns 'a', 'b'")
    """
    shown = ", ".join(repr(name) for name in names[:most])
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return f"column{'s' if len(names) > 1 else ''} {shown}{more}"


def number_of(count: int, word: str) -> str:
    """A count with its noun.

    >>> number_of(1, "row"), number_of(3, "row")
    ('1 row', '3 rows')
    """
    return f"{count} {word}{'' if count == 1 else 's'}"


def rows_where(flags: np.ndarray) -> np.ndarray:
    """The numbers of the rows in which any flag is set."""
    return np.flatnonzero(flags.any(axis=tuple(range(1, flags.ndim))))


def exceeds_float32(values: np.ndarray) -> bool:
    """Whether whole numbers are too large for float32, which has 24 binary digits.

    >>> exceeds_float32(np.array([2**24])), exceeds_float32(np.array([2**24 + 1]))
    (False, True)
    """
    if values.dtype.kind not in "iu" or not values.size:
        return False
    return max(abs(int(values.min())), abs(int(values.max()))) > 2**24
