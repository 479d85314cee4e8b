"""Padded sequences: which steps are there, and what stands in the place of the others."""

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor


def step_mask(lengths: Tensor | None, num_steps: int) -> Tensor | None:
    """Which steps are there, (N, T) of bool; ``None`` if no lengths are given, as all are.

    Args:
        lengths: whole numbers (N,), from 1 to T; or ``None``.
        num_steps: T, with the padding, which is at the end.

    Raises:
        ValueError: if they are not whole numbers of shape (N,), or one of them is less than 1 or
            more than T.

    >>> step_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    >>> step_mask(torch.tensor([1, 4]), 3)
    Traceback (most recent call last):
    ValueError: the length of sequence 1 is 4, but the data are padded to 3 steps: ...
    """
    if lengths is None:
        return None
    _check_lengths(lengths, num_steps)
    return torch.arange(num_steps, device=lengths.device) < lengths[:, None]


def _check_lengths(lengths: Tensor, num_steps: int) -> None:
    if lengths.dim() != 1:
        raise ValueError(
            f"lengths have the shape (N,), one for each sequence, got {tuple(lengths.shape)}"
        )
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths are whole numbers of steps, as int64, got {lengths.dtype}")
    # Skipped in a fit, which has checked all data: reading values would wait for the device.
    if not is_validation_enabled():
        return
    if bool((lengths < 1).any()):
        row = int((lengths < 1).nonzero()[0])
        raise ValueError(
            f"the length of sequence {row} is {int(lengths[row])}: leave out sequences without a "
            "step"
        )
    if bool((lengths > num_steps).any()):
        row = int((lengths > num_steps).nonzero()[0])
        raise ValueError(
            f"the length of sequence {row} is {int(lengths[row])}, but the data are padded to "
            f"{num_steps} steps: give data and lengths of the same sequences"
        )


def steps_until_end(tokens: Tensor, end: int) -> Tensor:
    """Which steps of sequences of tokens (…, T) are there: those up to the first end, and it.

    >>> steps_until_end(torch.tensor([[5, 0, 0], [5, 6, 7]]), 0).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    is_end = tokens == end
    return is_end.cumsum(-1) - is_end.long() == 0


def check_same_number(x: Tensor, lengths: Tensor | None) -> None:
    """Refuse lengths that are not one for each sequence of x (N, T, …).

    Raises:
        ValueError: with both numbers.
    """
    if lengths is not None and lengths.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"there are {len(lengths)} lengths for {len(x)} sequences: give one for each"
        )


def fill_padding(value: Tensor, mask: Tensor | None, event_dim: int) -> Tensor:
    """Put each sequence's first step in the place of its padding.

    The first step is always there, and lies in the support of any likelihood. What stood in the
    padding, NaN included, then reaches neither a result nor a gradient.

    Args:
        value: (…, N, T, *event of a step).
        mask: which steps are there, (…, N, T); ``None``: all.
        event_dim: the number of axes of a step.

    >>> x = torch.tensor([[1.0, 2.0, torch.nan]])
    >>> fill_padding(x, torch.tensor([[True, True, False]]), 0).tolist()
    [[1.0, 2.0, 1.0]]
    """
    if mask is None:
        return value
    first = value.narrow(-1 - event_dim, 0, 1)
    return torch.where(mask[(..., *[None] * event_dim)], value, first)


def reverse_steps(value: Tensor, mask: Tensor | None) -> Tensor:
    """Reverse the steps of each sequence (N, T, F) that are there; the padding stays at the end.

    Twice, it gives the sequence again.

    >>> x = torch.tensor([[1, 2, 0], [1, 2, 3]])[..., None]
    >>> reverse_steps(x, step_mask(torch.tensor([2, 3]), 3)).squeeze(-1).tolist()
    [[2, 1, 0], [3, 2, 1]]
    """
    if mask is None:
        return value.flip(-2)
    steps = torch.arange(value.shape[-2], device=value.device)
    order = torch.where(mask, mask.sum(-1, keepdim=True) - 1 - steps, steps)
    return value.gather(-2, order[..., None].expand_as(value))
