"""Edges of supports: what floating point tells apart there, and densities continued beyond."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    SigmoidTransform,
    Transform,
)
from torch.nn.functional import pad

from .coordinates import LogRatios


def continued(
    points: Tensor, near: Tensor, terms: Callable[[Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Terms (S, N) at points u (S, N, K), each continued in a straight line beyond ``near``.

    That is what log densities of Gamma, Beta and Dirichlet are at the edge of their supports, in
    unconstrained numbers: the slope is the shape parameter.

    Args:
        near: of :func:`nearest_told_apart`, ``points`` itself where all are told apart.
        terms: the function to be continued.
    """
    if near is points:
        return terms(points)
    wanted = torch.is_grad_enabled() and points.requires_grad
    with torch.enable_grad():
        near = near if near.requires_grad else near.detach().requires_grad_()
        found = []
        for term in terms(near):
            if not term.requires_grad:
                found.append(term)
                continue
            (slope,) = torch.autograd.grad(term.sum(), near, retain_graph=True, allow_unused=True)
            beyond = 0.0 if slope is None else (slope * (points - near)).sum(-1)
            found.append(term + beyond)
    return tuple(found) if wanted else tuple(term.detach() for term in found)


def nearest_told_apart(transform: Transform, free: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest unconstrained numbers whose value is told apart from the edge of the support.

    A Beta draw of 1 − 1e-20 is 1 in floating point, and its density there is infinite. Of what lies
    nearer to an edge than a few of the smallest steps between numbers, only that much is known.

    Args:
        transform: of :func:`coordinates`.
        free: unconstrained numbers.
        dtype: of the values.

    Returns:
        ``free`` itself, not a copy, where the support has no edge.
    """
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    if not dtype.is_floating_point:
        return free
    if isinstance(transform, LogRatios):
        least = math.log(4 * torch.finfo(dtype).tiny)
        log = pad(free.clamp(-1e30, 1e30), [0, 1]).log_softmax(-1)
        inside = (log >= least).all(-1, keepdim=True)
        kept = log.clamp(least)
        return torch.where(inside, free, kept[..., :-1] - kept[..., -1:])
    found = _edges(transform, dtype)
    return free if found is None else free.clamp(*found)


def _edges(transform: Transform, dtype: torch.dtype) -> tuple[float, float] | None:
    """The range of unconstrained numbers whose values are told apart; ``None`` for all of them."""
    parts = transform.parts if isinstance(transform, ComposeTransform) else [transform]
    if not parts:  # the identity
        return None
    loc, scale = 0.0, 1.0
    if isinstance(parts[-1], AffineTransform):
        loc, scale = (float(part) for part in (parts[-1].loc, parts[-1].scale))
    info, scale = torch.finfo(dtype), abs(scale)

    def least(bound: float, step: float) -> float:
        """How near to a bound a value still differs from it, as a logarithm."""
        return math.log(4 * max(step, info.eps * abs(bound)) / scale)

    lower = least(loc, info.tiny)
    if isinstance(parts[0], ExpTransform):
        return lower, math.log(info.max / 4 / max(scale, 1.0))
    if isinstance(parts[0], SigmoidTransform):
        return lower, -least(loc + scale, info.eps * scale)
    return None
