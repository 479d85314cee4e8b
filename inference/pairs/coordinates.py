"""What kind of coordinates a latent site has: a line, a circle, a simplex, an edge."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    Independent,
    IndependentTransform,
    MixtureSameFamily,
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

    >>> wrap(torch.tensor([0.5, 3.5, -7.0]).double()).round(decimals=4).tolist()
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

    >>> angles = torch.tensor([3.0, -3.0]).double()
    >>> cut_opposite(angles, torch.tensor(3.1)).round(decimals=4).tolist()
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

    >>> angles = torch.tensor([3.0, -3.0]).double()
    >>> OpenCircle(torch.tensor(3.0)).inv(angles).round(decimals=3).tolist()
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
