"""The minibatches of an epoch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .length_batches import batches_of_like_lengths, cut_padding
from .rows import Rows


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch's order and bits: a pure function, so that a resumed run has it too."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def epoch_batches(
    rows: tuple[Rows, ...],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    resample: bool = False,
    device: torch.device | None = None,
    place_of_lengths: int | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over an epoch's minibatches: each datum once, in a random order by seed and epoch.

    N data make ⌈N / batch_size⌉ batches whose sizes differ by one at most, so that there is no
    small last batch with a large weight. A single batch keeps the order of the data.

    Args:
        rows: data and contexts, each with N rows.
        batch_size: the largest size of a batch.
        resample: replace the first rows, which are probabilities, by new Bernoulli draws.
        device: the device of the batches.
        place_of_lengths: which of the rows are lengths of sequences, for batches of like lengths;
            see :func:`batches_of_like_lengths`. The first rows are then cut; see
            :func:`cut_padding`.

    >>> x = torch.arange(10.0)
    >>> [len(batch) for (batch,) in epoch_batches((x,), 4, seed=0, epoch=0)]
    [4, 3, 3]
    """
    seed = epoch_seed(seed, epoch)
    num_rows = len(rows[0])
    order = torch.arange(num_rows)
    if batch_size < num_rows:
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    num_batches = math.ceil(num_rows / batch_size)
    divided = order.to(device).tensor_split(num_batches)
    lengths = None if place_of_lengths is None else rows[place_of_lengths][:num_rows].cpu()
    if lengths is not None and num_batches > 1:
        generator = torch.Generator().manual_seed(seed)
        like = batches_of_like_lengths(lengths, num_batches, generator)
        divided = tuple(index.to(device) for index in like)
    noise = torch.Generator(device=device or "cpu").manual_seed(seed)
    for index in divided:
        batch = tuple(part[index].to(device) for part in rows)
        if lengths is not None:
            batch = (cut_padding(batch[0], lengths[index.cpu()]), *batch[1:])
        if resample:
            # The same bits as torch.bernoulli on a CPU, in a quarter of its time.
            x = batch[0]
            uniform = torch.rand(x.shape, generator=noise, dtype=x.dtype, device=x.device)
            batch = ((uniform < x).to(x.dtype), *batch[1:])
        yield batch
