"""The result of a reader: rows of values, their labels, and the size of their test set."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Source:
    """Rows of values as they were read, with their labels and the size of their test set."""

    name: str
    values: np.ndarray
    """(N, *event_shape), a memory map for a file on disk."""
    labels: np.ndarray | None = None
    """(N,), integers."""
    label_names: tuple[str, ...] = ()
    """The words that the integers 0, 1, … stand for, if the labels were words."""
    num_test: int | None = None
    """Number of rows, at the end, that are the data set's test set; ``None``: it has none."""
    divisor: float = 1.0
    """The number by which values are divided to lie in [0, 1]."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a table."""
    wide_columns: tuple[str, ...] = ()
    """Columns whose spread float32 loses: a table with such columns has float64 values."""
    note: str = ""
    """How it was read, in one line."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader into one line: each reader raises other types."""
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
