"""What a reader returns: rows of values, their labels, and the test set they came with."""

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


def load_numpy(path: Path) -> np.ndarray:
    """Map a ``.npy`` file into memory, without reading it whole."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
