"""Run something and put back what it changes: random state, and tensors that it writes on."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


@contextlib.contextmanager
def undone(
    tensors: Sequence[Tensor],
    keeping: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Iterator[None]:
    """Put back PyTorch's random state, and the values of tensors, as they were before.

    Args:
        tensors: what may be written on inside.
        keeping: a further context that is entered, to put back what else there is.

    >>> weight = torch.zeros(2)
    >>> with undone([weight]):
    ...     _ = weight.normal_()
    >>> weight
    tensor([0., 0.])
    """
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.random.fork_rng(), keeping():
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
