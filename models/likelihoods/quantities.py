"""Positive quantities of a likelihood (scale, degrees of freedom): fixed, learned or predicted."""

import torch
from torch import Tensor, nn

from .likelihood import Likelihood


def positive(
    likelihood: Likelihood, name: str, value: float | nn.Parameter | None
) -> tuple[float | None, nn.Parameter | None]:
    """Sort a positive quantity of a likelihood into (its fixed value, the log of a learned one).

    Both are ``None`` where the decoder predicts it. A likelihood keeps the two as attributes,
    the second under a name of its own, and gets the quantity back by :func:`value_of`.

    Args:
        likelihood: whose quantity it is.
        name: what it is called in errors.
        value: a number, fixed; an ``nn.Parameter``, learned from its value on, whose log is
            what the optimizer sees; or ``None``.

    Raises:
        ValueError: if it is not positive, or if a parameter does not broadcast to the
            likelihood's ``event_shape``.
    """
    if value is None:
        return None, None
    number = torch.as_tensor(value).detach()
    if not bool((number > 0).all()):
        kind = type(likelihood).__name__
        raise ValueError(f"the {name} of a {kind} likelihood must be positive, got {value}")
    if not isinstance(value, nn.Parameter):
        return value, None  # kept a Python number: it is then exact in every dtype
    if not _broadcasts(number.shape, likelihood.event_shape):
        raise ValueError(
            f"a {name} of shape {tuple(number.shape)} does not fit data of shape "
            f"{tuple(likelihood.event_shape)}: give it shape () or the data's"
        )
    return None, nn.Parameter(number.log())


def value_of(fixed: float | None, log: nn.Parameter | None, *predicted: Tensor) -> float | Tensor:
    """The quantity that :func:`positive` sorted: fixed, learned, or e to a predicted log of it."""
    if fixed is not None:
        return fixed
    return (predicted[0] if log is None else log).exp()


def shown(fixed: float | None, log: nn.Parameter | None) -> str:
    """The quantity that :func:`positive` sorted, in words."""
    return str(fixed) if log is None else "learned"


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of this shape broadcasts to exactly that shape."""
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False
