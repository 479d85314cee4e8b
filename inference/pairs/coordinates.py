"""What kind of coordinates a latent site has: a line, a circle, a simplex, an edge."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    Independent,
    IndependentTransform,
    MixtureSameFamily,
    SigmoidTransform,
    Transform,
    biject_to,
    constraints,
)
from torch.nn.functional import logsigmoid, pad

CIRCULAR = (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)
"""Distributions of angles: their density has the period 2π, though PyTorch calls their support
the real line."""


def is_circular(distribution: Any) -> bool:
    """Whether all numbers of a distribution are angles, so that −π and π are one point.

    It is told by the class. An angle under a uniform distribution is taken for a number.

    >>> is_circular(dist.VonMises(torch.zeros(3), 1.0).to_event(1)), is_circular(dist.Normal(0, 1))
    (True, False)
    """
    while True:
        if isinstance(distribution, CIRCULAR):
            return True
        if isinstance(distribution, MixtureSameFamily):
            distribution = distribution.component_distribution
        elif isinstance(
            distribution, Independent | dist.ExpandedDistribution | dist.MaskedDistribution
        ):
            distribution = distribution.base_dist
        else:
            return False


def wrap(angle: Tensor) -> Tensor:
    """An angle between −π and π.

    >>> wrap(torch.tensor([0.5, 3.5, -7.0])).round(decimals=4).tolist()
    [0.5, -2.7832, -0.7168]
    """
    return torch.where(
        angle.abs() <= math.pi, angle, torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    )


def direction(angle: Tensor) -> Tensor:
    """The mean direction of angles over their first dimension: that of the sum of unit vectors.

    >>> round(direction(torch.tensor([3.0, -3.1])).item(), 4)
    3.0916
    """
    return torch.atan2(angle.sin().mean(0), angle.cos().mean(0))


def cut_opposite(angle: Tensor, centre: Tensor) -> Tensor:
    """Angles as numbers on a line: the circle is cut opposite to a direction.

    The result lies within π of ``centre``. Means, variances and ranks of angles that lie together
    are then what they are on a line, also astride ±π.

    >>> cut_opposite(torch.tensor([3.0, -3.0]), torch.tensor(3.1)).round(decimals=4).tolist()
    [3.0, 3.2832]
    """
    return centre + wrap(angle - centre)


class Wrap(Transform):
    """Any real number as the angle between −π and π that it is modulo 2π."""

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return wrap(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return wrap(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrap)


class OpenCircle(Transform):
    """The circle without one point, from the real line: v ↦ c + 2π (σ(v) − ½), modulo 2π.

    Args:
        centre: c, opposite to the point that is left out.

    >>> OpenCircle(torch.tensor(3.0)).inv(torch.tensor([3.0, -3.0])).round(decimals=3).tolist()
    [0.0, 0.181]
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, centre: Tensor):
        super().__init__()
        self.centre = centre

    def _call(self, x: Tensor) -> Tensor:
        return wrap(self.centre + math.pi * (x / 2).tanh())

    def _inverse(self, y: Tensor) -> Tensor:
        most = 1 - 4 * torch.finfo(y.dtype).eps
        return 2 * (wrap(y - self.centre) / math.pi).clamp(-most, most).atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log 2π σ(v) σ(−v)."""
        return math.log(2 * math.pi) + logsigmoid(x) + logsigmoid(-x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenCircle) and torch.equal(self.centre, other.centre)


class LogRatios(Transform):
    """The simplex of J parts from the J − 1 logarithms of their ratios to the last one.

    ::

        z = softmax(u₁, …, u_{J−1}, 0),   log |dz/du| = Σⱼ log zⱼ

    PyTorch's stick-breaking computes a part from what the parts before it leave: near a corner of
    the simplex, that is rounded to a multiple of ε. Here each part keeps its digits.
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return pad(x, [0, 1]).softmax(-1).clamp(torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        log = y.clamp(torch.finfo(y.dtype).tiny).log()
        return log[..., :-1] - log[..., -1:]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Σⱼ log zⱼ, exact where a part is too small for a number."""
        return pad(x, [0, 1]).log_softmax(-1).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        """J − 1 numbers give J parts."""
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        """J parts have J − 1 numbers."""
        return torch.Size((*shape[:-1], shape[-1] - 1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogRatios)


def coordinates(support: Any, *, circular: bool) -> Transform:
    """The bijection from unconstrained numbers to a support, or to a circle.

    Raises:
        NotImplementedError: if PyTorch has none.
    """
    if isinstance(support, constraints.independent):
        inside = coordinates(support.base_constraint, circular=circular)
        return IndependentTransform(inside, support.reinterpreted_batch_ndims)
    if circular:
        return Wrap()
    if support is constraints.simplex:
        return LogRatios()
    return biject_to(support)


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
