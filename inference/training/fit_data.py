"""The data of a fit: training and validation rows on their device, in batches and in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batches import epoch_batches
from ..data.length_batches import cut_padding, rows_of_like_lengths
from ..data.rows import BLOCK_ROWS, Rows
from ..pairs.parameters import place

MEASURED_ROWS = 2000
"""Number of training data on which the terms of the bound are measured after each epoch."""


@dataclass(frozen=True)
class FitData:
    """Rows of data to fit and to validate on, and their device and dtype."""

    rows: tuple[Rows, ...]
    """The training rows: x, then contexts, each of N rows."""
    validation: tuple[Rows, ...] | None
    """The rows to validate on, if there are any."""
    test: tuple[Rows, ...] | None
    """The rows to test on, if they are known: only their values are looked at."""
    resample: bool
    """Whether the training rows are probabilities, whose bits are drawn in each epoch."""
    batch_size: int
    seed: int
    device: torch.device
    dtype: torch.dtype | None
    """The pair's dtype, to which floating data are converted."""
    place_of_lengths: int | None = None
    """Which of the rows are lengths of sequences, where batches are of like lengths."""

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.rows[0])

    def place(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Rows on the device, in the pair's dtype."""
        return place(batch, self.device, self.dtype)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """The minibatches of an epoch, counted from 0."""
        batches = epoch_batches(
            self.rows,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            resample=self.resample,
            device=self.device,
            place_of_lengths=self.place_of_lengths,
        )
        return map(self.place, batches)

    def blocks(
        self, rows: tuple[Rows, ...], size: int | None = None
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """All rows in order, some thousands at a time, each block with its first row's number.

        Args:
            size: how many at a time, where a guide needs them together.
        """
        size = size or BLOCK_ROWS
        for start in range(0, len(rows[0]), size):
            yield start, self.place(tuple(part[start : start + size] for part in rows))

    def measured_blocks(
        self, rows: tuple[Rows, ...], size: int | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """All rows, a block at a time: blocks of like lengths, where batches are of like lengths.

        Args:
            size: how many at a time, in order, where a guide needs them together.
        """
        if self.place_of_lengths is None or size is not None:
            yield from (block for _, block in self.blocks(rows, size))
            return
        lengths = rows[self.place_of_lengths][: len(rows[0])].cpu()
        for index in rows_of_like_lengths(lengths, rows[0].shape[1]):
            for part in index.split(BLOCK_ROWS):
                x, *context = (one[part.to(self.device)] for one in rows)
                yield self.place((cut_padding(x, lengths[part]), *context))

    def rows_in_order(self) -> tuple[Tensor, ...]:
        """All training rows, in the order of a single batch."""
        return self.place(tuple(part[: self.num_data] for part in self.rows))

    def measured_rows(self) -> tuple[Tensor, ...]:
        """The training data on which the bound is measured: the same rows and bits each time."""
        generator = torch.Generator().manual_seed(self.seed)
        subset = torch.randperm(self.num_data, generator=generator)[:MEASURED_ROWS]
        x, *context = (part[subset.to(self.device)] for part in self.rows)
        if self.resample:
            x = torch.bernoulli(x.cpu(), generator=generator)
        return self.place((x, *context))


def settle(
    rows: tuple[Rows, ...],
    validation: tuple[Rows, ...] | None,
    *,
    test: tuple[Rows, ...] | None = None,
    resample: bool,
    batch_size: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype | None,
    place_of_lengths: int | None = None,
) -> FitData:
    """Move rows in memory to the device, once; streamed rows are moved batch by batch."""

    def settled(parts: tuple[Rows, ...]) -> tuple[Rows, ...]:
        return tuple(
            place((part,), device, dtype)[0] if isinstance(part, Tensor) else part for part in parts
        )

    on_device = None if validation is None else settled(validation)
    return FitData(
        settled(rows), on_device, test, resample, batch_size, seed, device, dtype, place_of_lengths
    )
