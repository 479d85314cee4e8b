"""Flows without an inverse, whose density is known only at their own latest draw."""

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import ComposeTransform, Transform


class UnknownDensityError(ValueError):
    """A site's log density is not known at the given values: its flow has no inverse."""


def log_prob_of(site: Any) -> Tensor:
    """The log density of a site at its value, before scale and mask.

    Some of Pyro's flows (planar, radial, Sylvester, block autoregressive, neural autoregressive)
    have no inverse: they keep the latest draw together with the noise that it was made from. Their
    density is known for that very tensor, and not for a copy of it, nor after another draw.

    Raises:
        UnknownDensityError: if a flow of the site has no inverse at its value.

    >>> import pyro.distributions as dist
    >>> normal = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    >>> flow = dist.TransformedDistribution(normal, [dist.transforms.Planar(2)])
    >>> z = flow.sample()
    >>> log_prob_of({"name": "z", "fn": flow, "value": z, "args": (), "kwargs": {}}).shape
    torch.Size([])
    >>> log_prob_of({"name": "z", "fn": flow, "value": z + 1, "args": (), "kwargs": {}})
    Traceback (most recent call last):
    latente.inference.pairs.cached_flows.UnknownDensityError: the distribution of 'z' is made by ...
    """
    try:
        return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except (KeyError, NotImplementedError):
        name = one_way_transform(site["fn"], site["value"])
        if not name:
            raise
    raise UnknownDensityError(
        f"the distribution of {site['name']!r} is made by the transform {name}, which has no "
        "inverse: its log density is known only at the guide's own draws, and this needs it "
        "elsewhere; a flow with an inverse has it (spline, affine coupling, zuko's)"
    ) from None


def one_way_transform(distribution: Any, value: Tensor) -> str:
    """The name of a transform of a distribution that cannot be inverted; empty if there is none.

    Args:
        value: any value of the distribution.
    """
    while not isinstance(distribution, torch.distributions.TransformedDistribution):
        if not hasattr(distribution, "base_dist"):
            return ""
        distribution = distribution.base_dist
    for transform in reversed(_parts(distribution.transforms)):
        try:
            # A copy of the transform, whose memory of its latest draw stays as it is.
            value = copy(transform)._inverse(value)
        except (KeyError, NotImplementedError):
            return type(transform).__name__
    return one_way_transform(distribution.base_dist, value)


def _parts(transforms: list[Transform]) -> list[Transform]:
    """Transforms in the order in which they are applied, with those within others."""
    parts = []
    for transform in transforms:
        parts += _parts(transform.parts) if isinstance(transform, ComposeTransform) else [transform]
    return parts
