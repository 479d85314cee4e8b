"""Minibatches of sequences of like lengths, whose padding is cut."""

import math

import torch
from torch import Tensor

LEVELS = 4
"""Padded batches have at most so many numbers of steps: each is recorded by itself."""


def batches_of_like_lengths(
    lengths: Tensor, num_batches: int, generator: torch.Generator
) -> list[Tensor]:
    """The row numbers of an epoch's minibatches, each of sequences of like lengths.

    Rows in a random order are sorted by length, and lie on a circle, which is cut at a random place
    and divided into batches; these come in a random order. So a row is in each batch with a
    probability that is the batch's size over N, as in a random order of rows: a loss of M rows that
    is scaled by N / M is unbiased at each step. One batch holds both ends, the shortest and the
    longest.

    Args:
        lengths: (N,).
        num_batches: how many; their sizes differ by one at most.
        generator: of the random numbers.

    >>> lengths = torch.tensor([9, 1, 5, 2, 8, 5])
    >>> batches = batches_of_like_lengths(lengths, 3, torch.Generator().manual_seed(4))
    >>> sorted(row for rows in batches for row in rows.tolist())
    [0, 1, 2, 3, 4, 5]
    """
    mixed = torch.randperm(len(lengths), generator=generator)
    by_length = mixed[lengths[mixed].argsort(stable=True)]
    place = int(torch.randint(len(lengths), (), generator=generator))
    batches = divide_circle(by_length, place, num_batches)
    return [batches[n] for n in torch.randperm(num_batches, generator=generator).tolist()]


def divide_circle(rows: Tensor, place: int, num_batches: int) -> tuple[Tensor, ...]:
    """Divide rows on a circle, from a place on, into batches of sizes that differ by one at most.

    >>> divide_circle(torch.arange(5), 4, 2)
    (tensor([4, 0, 1]), tensor([2, 3]))
    """
    return rows.roll(-place).tensor_split(num_batches)


def cut_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Sequences (M, T, …) cut to the next quarter of T that holds the longest of them.

    Only a few numbers of steps occur, as a step of a fit is recorded for each of them.

    >>> cut_padding(torch.zeros(2, 12), torch.tensor([1, 4])).shape
    torch.Size([2, 6])
    """
    level = _level(x.shape[1])
    longest = int(lengths.max())
    return x[:, : min(x.shape[1], level * math.ceil(longest / level))]


def rows_of_like_lengths(lengths: Tensor, num_steps: int) -> list[Tensor]:
    """The row numbers of sequences whose padding is cut to the same quarter of T, for each quarter.

    >>> rows_of_like_lengths(torch.tensor([12, 2, 3, 7]), 12)
    [tensor([1, 2]), tensor([3]), tensor([0])]
    """
    quarter = (lengths - 1).div(_level(num_steps), rounding_mode="floor")
    return [(quarter == number).nonzero().flatten() for number in quarter.unique().tolist()]


def _level(num_steps: int) -> int:
    """A quarter of T steps."""
    return math.ceil(num_steps / LEVELS)
