"""What a reader returns: rows of values, their labels, and the test set they came with."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Source:
    """What was read: rows of values, their labels, and the test set they came with."""

    name: str
    values: np.ndarray
    """(N, *event_shape), a memory map where the file was not read."""
    labels: np.ndarray | None = None
    """(N,), integers."""
    label_names: tuple[str, ...] = ()
    """What the integers 0, 1, … stand for, where the labels were words."""
    num_test: int | None = None
    """The last so many rows are the data set's own test set; ``None``: it has none."""
    divisor: float = 1.0
    """What the values are divided by to lie in [0, 1]."""
    columns: tuple[str, ...] = ()
    """Names of the columns, where this is a table."""
    wide_columns: tuple[str, ...] = ()
    """Columns whose spread float32 loses: only with these are a table's values float64."""
    note: str = ""
    """How it was read, in one line."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into one line: each has errors of its own."""
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as {path.suffix}: it is truncated, empty or of "
            f"another kind ({reason})"
        ) from error


def load_numpy(path: Path) -> np.ndarray:
    """Map a ``.npy`` file into memory, without reading it whole."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
