"""The result of a reader: rows of values, their labels, and the size of their test set."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .column import Column
from .csv_format import CsvFormat
from .log_mel import LogMel
from .vocabulary import Vocabulary

BLOCK_ROWS = 4096
"""Rows that are processed together in a pass over a whole data set."""


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
    num_validation: int | None = None
    """Number of rows, before those of the test set, that are its validation set."""
    divisor: float = 1.0
    """The number by which values are divided to lie in [0, 1]."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a table, whose values are float64."""
    pixel_columns: tuple[str, ...] = ()
    """Names of the columns of a table whose rows were shaped into pixels."""
    dtypes: tuple[str, ...] = ()
    """NumPy's names of the types that the columns of a table had."""
    wide_columns: tuple[str, ...] = ()
    """Columns of a table whose spread float32 loses."""
    kinds: tuple[Column, ...] = ()
    """The columns of a table of several kinds, whose values are encoded."""
    aside: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Columns of a table that are no data, as they are, by name."""
    note: str = ""
    """How it was read, in one line."""
    csv_format: CsvFormat | None = None
    """The format of a text, as it was found."""
    channels_last: bool = False
    """Whether the values are images (N, H, W, C), with their channels on the last axis."""
    lengths: np.ndarray | None = None
    """Lengths (N,) of sequences, whose values (N, T, …) are padded with zeros at the end."""
    vocabulary: Vocabulary | None = None
    """What the values of sequences of tokens stand for."""
    log_mel: LogMel | None = None
    """How frames were computed from sound."""

    def blocks(self) -> Iterator[np.ndarray]:
        """The values in order, some thousands of rows at a time."""
        for start in range(0, len(self.values), BLOCK_ROWS):
            yield self.values[start : start + BLOCK_ROWS]


def join_notes(*notes: str) -> str:
    """Join those notes that are not empty.

    >>> join_notes("read 2 rows", "", "of bits")
    'read 2 rows; of bits'
    """
    return "; ".join(filter(None, notes))


def import_reader(package: str, path: Path) -> Any:
    """Import the package that reads a kind of file, which need not be installed.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{path}: {path.suffix} files are read by the package {package}, which is not "
            f"installed: pip install {package}"
        ) from error


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
