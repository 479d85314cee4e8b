"""Rows of data, in memory or on disk, their fixed bits, and the minibatches of an epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .checks import check_finite
from .sources import read

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


def draw_bits(probabilities: Tensor, index: np.ndarray, seed: int) -> Tensor:
    """One Bernoulli draw of each value, by the seed and the row's number alone.

    A row's bits are thus the same in memory and streamed, in any order and any part.
    """
    size = math.prod(probabilities.shape[1:])
    noise = np.empty((len(index), size), dtype=np.float32)
    for position, row in enumerate(index):
        counter = np.random.Philox(key=seed, counter=[0, int(row), 0, 0])
        noise[position] = np.random.Generator(counter).random(size, dtype=np.float32)
    uniform = torch.from_numpy(noise).reshape(probabilities.shape)
    return (uniform < probabilities).to(probabilities.dtype)


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


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch's order and bits: a pure function, so a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def epoch_batches(
    rows: tuple[Rows, ...],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    resample: bool = False,
    device: torch.device | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """The minibatches of one epoch: each datum once, in an order drawn from (seed, epoch).

    N data make ⌈N / batch_size⌉ batches whose sizes differ by one at most, so none is a
    small remainder with a large weight. One batch of all data keeps their order.

    Args:
        rows: data and contexts, each with N rows.
        batch_size: the largest size of a batch.
        resample: replace the first rows, probabilities, by fresh Bernoulli draws.
        device: where the batches go.

    >>> x = torch.arange(10.0)
    >>> [len(batch) for (batch,) in epoch_batches((x,), 4, seed=0, epoch=0)]
    [4, 3, 3]
    """
    seed = epoch_seed(seed, epoch)
    num_rows = len(rows[0])
    order = torch.arange(num_rows)
    if batch_size < num_rows:
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    order = order.to(device)
    noise = torch.Generator(device=device or "cpu").manual_seed(seed)
    for index in order.tensor_split(math.ceil(num_rows / batch_size)):
        batch = tuple(part[index].to(device) for part in rows)
        if resample:
            # What torch.bernoulli does, bit for bit on a CPU, in a quarter of its time.
            x = batch[0]
            uniform = torch.rand(x.shape, generator=noise, dtype=x.dtype, device=x.device)
            batch = ((uniform < x).to(x.dtype), *batch[1:])
        yield batch
