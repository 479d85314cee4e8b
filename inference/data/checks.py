"""What values of data are refused."""

from typing import Any

import numpy as np

from ..common.arguments import name_rows


def check_finite(values: Any, name: str, first_row: int = 0) -> None:
    """Refuse rows that hold NaN or infinity, and say which.

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        bad = rows_where(~np.isfinite(array))
        if len(bad):
            raise ValueError(f"{name} holds NaN or infinity in {name_rows(bad + first_row)}")


def rows_where(flags: np.ndarray) -> np.ndarray:
    """Numbers of the rows in which any flag is set."""
    return np.flatnonzero(flags.any(axis=tuple(range(1, flags.ndim))))
