"""Positive parameters of a likelihood (scale, degrees of freedom): fixed, learned or predicted."""

import torch
from torch import Tensor, nn

from .likelihood import Likelihood


def split_positive(
    likelihood: Likelihood, name: str, value: float | nn.Parameter | None
) -> tuple[float | None, nn.Parameter | None]:
    """Split a positive parameter into (its value if fixed, its logarithm if learned).

    Both are ``None`` if the decoder predicts it. A likelihood keeps the two as attributes, and
    :func:`positive_value` gives the parameter back.

    Args:
        likelihood: the likelihood that has the parameter.
        name: name of the parameter, for errors.
        value: a number: fixed at it; an ``nn.Parameter``: learned, starting from its value (the
            optimizer sees its logarithm); ``None``: predicted.

    Raises:
        ValueError: if the value is not positive, or an ``nn.Parameter`` does not broadcast to the
            likelihood's ``event_shape``.
    """
    if value is None:
        return None, None
    number = torch.as_tensor(value).detach()
    if not bool((number > 0).all()):
        kind = type(likelihood).__name__
        raise ValueError(f"the {name} of a {kind} likelihood must be positive, got {value}")
    if not isinstance(value, nn.Parameter):
        return value, None  # a Python number is exact in every dtype
    if not _broadcasts(number.shape, likelihood.event_shape):
        raise ValueError(
            f"a {name} of shape {tuple(number.shape)} does not fit data of shape "
            f"{tuple(likelihood.event_shape)}: give it shape () or the data's"
        )
    return None, nn.Parameter(number.log())


def positive_value(
    fixed: float | None, log: nn.Parameter | None, *predicted_log: Tensor
) -> float | Tensor:
    """The value of a parameter that :func:`split_positive` split: fixed, learned or predicted."""
    if fixed is not None:
        return fixed
    return (predicted_log[0] if log is None else log).exp()


def describe_positive(fixed: float | None, log: nn.Parameter | None) -> str:
    """A parameter that :func:`split_positive` split, as a ``repr`` shows it."""
    return str(fixed) if log is None else "learned"


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of shape ``shape`` broadcasts to exactly ``to``."""
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False
