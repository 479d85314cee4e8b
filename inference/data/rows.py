"""Rows of data, in memory or streamed from disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .arrays import is_table, to_array, to_tensor
from .binarization import draw_bits
from .checks import check_finite, exceeds_float32, number_of
from .source import BLOCK_ROWS as BLOCK_ROWS
from .tables import from_table, refuse_wide


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
    """Rows of a memory-mapped array, read from disk when they are indexed."""

    values: np.ndarray
    """The memory map, (≥ N, *event_shape)."""
    index: np.ndarray
    """The numbers of the rows in the map, (N,)."""
    divisor: float = 1.0
    binarize_seed: int | None = None
    """Seed of each row's bits, the same in each read; ``None``: no bits are drawn."""

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
    """Convert data to a tuple of rows: x, as floats, and contexts, which keep their type.

    Args:
        data: rows, an array, a DataFrame, or a tuple (x, *context) of them.
        name: their name in an error.

    Raises:
        ValueError: if they are empty, of unequal lengths, hold NaN or infinity, or are not arrays.

    >>> [tuple(part.shape) for part in as_rows((np.zeros((5, 2)), np.arange(5)), "data")]
    [(5, 2), (5,)]
    """
    parts = data if isinstance(data, tuple) else (data,)
    if not parts:
        raise ValueError(f"{name} is an empty tuple: give x, or (x, *context)")
    rows: list[Rows] = []
    for position, part in enumerate(parts):
        rows.append(as_part(part, part_name(name, position)))
        check_part(rows[-1], name, position)
    if isinstance(rows[0], Tensor) and not rows[0].is_floating_point():
        exceeds = exceeds_float32(rows[0].cpu().numpy())
        rows[0] = rows[0].to(torch.float64 if exceeds else torch.get_default_dtype())
    check_same_lengths({name_argument(n): part for n, part in enumerate(rows)}, name)
    return tuple(rows)


def check_same_lengths(
    parts: Mapping[str, Any], name: str, rows_dims: Sequence[int] | None = None
) -> None:
    """Refuse arguments with different numbers of rows.

    Args:
        parts: the arguments that hold rows, as they were given, by their names in an error.
        name: of the data.
        rows_dims: the dimension of each along which its rows lie; the first if not given.

    Raises:
        ValueError: with the number of rows and the shape of each argument.
    """
    shapes = {label: tuple(part.shape) for label, part in parts.items()}
    dims = [0] * len(shapes) if rows_dims is None else rows_dims
    lengths = [shape[dim] for shape, dim in zip(shapes.values(), dims, strict=True)]
    if len(set(lengths)) <= 1:
        return
    said = [
        f"{label} has {number_of(length, 'row')}{f' along dimension {dim}' if dim else ''} "
        f"(shape {shape})"
        for (label, shape), length, dim in zip(shapes.items(), lengths, dims, strict=True)
    ]
    columns = [label for label, shape in shapes.items() if shape == (max(lengths), 1)]
    advice = f"; give {columns[0]} the shape {(max(lengths),)}" if columns else ""
    raise ValueError(f"the arguments of {name} have different lengths: {', '.join(said)}{advice}")


def name_argument(position: int, keyword: str | None = None) -> str:
    """The name of an argument in errors: its keyword, or its position."""
    return f"argument {position}" if keyword is None else repr(keyword)


def part_name(name: str, position: int) -> str:
    """The name of x or of a context in errors."""
    return name if position == 0 else f"context {position} of {name}"


def check_part(part: Rows, name: str, position: int) -> None:
    """Refuse rows in memory that hold NaN or infinity."""
    if isinstance(part, Tensor):
        check_finite(part.detach().cpu(), part_name(name, position))


def as_part(part: Any, name: str) -> Rows:
    """Rows of one argument of a program; values that are not finite are not refused."""
    if isinstance(part, str | Path):
        raise ValueError(f"{name} is the name {str(part)!r}: give load_data({str(part)!r})")
    if isinstance(part, Streamed):
        return part
    if isinstance(part, Tensor):
        part = to_tensor(part, name)
    elif is_table(part):
        source = from_table(name, part)
        refuse_wide(source)
        part = _share(source.values.astype(np.float32, order="C"))
    else:
        part = _share(to_array(part, name))
    if part.dim() == 0 or len(part) == 0:
        raise ValueError(f"{name} holds no rows")
    if part.numel() == 0:
        raise ValueError(f"{name} holds rows without values, of shape {tuple(part.shape)}")
    return part


def _share(values: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory, or a copy if that is read-only or reversed."""
    if min(values.strides, default=0) < 0:
        values = values.copy()
    return torch.from_numpy(np.require(values, requirements="W"))
