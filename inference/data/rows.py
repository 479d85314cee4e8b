"""Rows of data, in memory or streamed from disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .binarization import draw_bits
from .checks import check_finite
from .files import read

BLOCK = 4096
"""Rows looked at together when a whole data set is passed over."""


class Rows(Protocol):
    """Rows of data (N, *event_shape) that can be indexed: a tensor, or :class:`Streamed`."""

    @property
    def shape(self) -> torch.Size:
        """(N, *event_shape)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Streamed:
    """Rows of a memory-mapped array, read from disk as they are asked for."""

    values: np.ndarray
    """The map, (≥ N, *event_shape)."""
    index: np.ndarray
    """Which of its rows these are, (N,)."""
    divisor: float = 1.0
    binarize_seed: int | None = None
    """Draw each row's bits from its values, always the same ones; ``None``: do not."""

    @property
    def shape(self) -> torch.Size:
        """(N, *event_shape)."""
        return torch.Size((len(self.index), *self.values.shape[1:]))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        index = self.index[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]
        values = torch.from_numpy(self.values[index].astype(np.float32) / self.divisor)
        return (
            values if self.binarize_seed is None else draw_bits(values, index, self.binarize_seed)
        )


def as_rows(data: Any, name: str) -> tuple[Rows, ...]:
    """Data as a tuple of rows: x, which becomes floating, and contexts, which keep their type.

    Args:
        data: rows, an array, a DataFrame, or a tuple (x, *context) of them.
        name: what to call them in an error.

    Raises:
        ValueError: if they are empty, of unequal lengths, or hold NaN or infinity.

    >>> [tuple(part.shape) for part in as_rows((np.zeros((5, 2)), np.arange(5)), "data")]
    [(5, 2), (5,)]
    """
    parts = data if isinstance(data, tuple) else (data,)
    if not parts:
        raise ValueError(f"{name} is an empty tuple: give x, or (x, *context)")
    rows: list[Rows] = []
    for position, part in enumerate(parts):
        label = name if position == 0 else f"context {position} of {name}"
        if isinstance(part, str | Path):
            raise ValueError(f"{label} is the name {str(part)!r}: give load_data({str(part)!r})")
        if not isinstance(part, Streamed | Tensor):
            values = read(part).values
            part = (
                Streamed(values, np.arange(len(values)))
                if isinstance(values, np.memmap)
                else torch.from_numpy(np.require(values, requirements="W"))
            )
        if isinstance(part, Tensor):
            if part.dim() == 0 or len(part) == 0:
                raise ValueError(f"{label} holds no rows")
            check_finite(part.detach().cpu(), label)
            if position == 0 and not part.is_floating_point():
                part = part.to(torch.get_default_dtype())
        rows.append(part)
    lengths = [len(part) for part in rows]
    if len(set(lengths)) > 1:
        raise ValueError(f"{name} and its contexts have different lengths: {lengths}")
    return tuple(rows)
