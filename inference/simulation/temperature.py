"""A temperature of the priors of latent variables."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Distribution

from ..pairs.sites import is_deterministic


class Tempered(Messenger):
    """Pyro handler that draws the latent sites of a model nearer to the centres of their priors.

    z = μ + T(z′ − μ) at the temperature T for a draw z′ ~ N(μ, Σ) of the prior. Of a flow, this is
    done to the draw of its base. Each site is tempered given the draws of those before it.

    Args:
        temperature: T, at least 0; at 0 each draw is the centre, at 1 a draw of the prior.
    """

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or isinstance(fn, _Subsample) or is_deterministic(msg):
            return
        tempered = at_temperature(fn, self.temperature)
        if tempered is None:
            kind = type(_innermost(fn)).__name__
            raise ValueError(
                f"a temperature scales the draws of normal priors and of flows with a normal base, "
                f"and the prior of {msg['name']!r} is of type {kind}: leave temperature= out"
            )
        msg["fn"] = tempered


def at_temperature(distribution: Any, temperature: float) -> Any:
    """The distribution of μ + T(z − μ), z from a normal one; of a flow, with such a base.

    ``None`` for other distributions.

    >>> at_temperature(dist.Normal(3.0, 2.0), 0.5)
    Normal(loc: 3.0, scale: 1.0)
    """
    if distribution is None:
        return None
    if isinstance(distribution, torch.distributions.Normal):
        return dist.Normal(distribution.loc, distribution.scale * temperature)
    if isinstance(distribution, torch.distributions.MultivariateNormal):
        factor = distribution.scale_tril * temperature
        return dist.MultivariateNormal(distribution.loc, scale_tril=factor)
    if isinstance(distribution, ZukoToPyro):
        flow: Any = distribution.dist
        base = at_temperature(getattr(flow, "base", None), temperature)
        # Made by its own class: the library's wrapper of zuko's flows has more than Pyro's.
        return base and type(distribution)(type(flow)(flow.transform, base))
    base = at_temperature(getattr(distribution, "base_dist", None), temperature)
    if base is None:
        return None
    if isinstance(distribution, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(base, distribution.transforms)
    if isinstance(distribution, torch.distributions.Independent):
        return base.to_event(distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, dist.MaskedDistribution):
        return base.mask(distribution._mask)
    if isinstance(distribution, dist.ExpandedDistribution):
        return base.expand(distribution.batch_shape)
    return None


def _innermost(distribution: Any) -> Distribution:
    """What a distribution is made from, without its shapes and masks."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution
