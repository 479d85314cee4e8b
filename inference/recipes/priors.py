"""The axis ``--prior``: distributions p(z) by name."""

from typing import Any

import torch
from torch import nn

from ...guides import Amortized
from ...models import (
    AutoregressiveCodes,
    ConditionalNormal,
    FlowPrior,
    NormalMixture,
    StandardNormal,
    UniformCodes,
    UniformConcrete,
    VampPrior,
    mlp,
)
from ...models._zuko import zuko
from .axis import Axis, Part
from .parameters import Count, Positive, Widths
from .sizes import Sizes

FLOW_WIDTHS = (128, 128)
"""Widths of the hidden layers of a flow's networks."""


def _mixture(
    sizes: Sizes, guide: Amortized, context: nn.Module | None, *, components: Count = 500
) -> NormalMixture:
    return NormalMixture(sizes.latent_dim, components)


def _vamp(
    sizes: Sizes, guide: Amortized, context: nn.Module | None, *, components: Count = 500
) -> VampPrior:
    return VampPrior(guide, torch.zeros(components, *sizes.event_shape))


def _flow(
    sizes: Sizes, guide: Amortized, context: nn.Module | None, *, transforms: Count = 3
) -> FlowPrior:
    features = sizes.latent_dim
    return FlowPrior(zuko.flows.MAF(features, transforms=transforms, hidden_features=FLOW_WIDTHS))


def _conditional(sizes: Sizes, guide: Amortized, context: nn.Module | None) -> ConditionalNormal:
    network = mlp(sizes.context, *sizes.hidden, out=2 * sizes.latent_dim)
    if context is not None:
        network[0] = context  # in place of the layer that flattens vectors
    return ConditionalNormal(network, sizes.latent_dim)


def _learned_codes(
    sizes: Sizes, guide: Any, context: nn.Module | None, *, hidden: Widths = (200,)
) -> AutoregressiveCodes:
    return AutoregressiveCodes(guide.codebook, hidden=hidden)


def _concrete(
    sizes: Sizes, guide: Any, context: nn.Module | None, *, temperature: Positive = 0.5
) -> UniformConcrete:
    *positions, num_codes = guide.event_shape
    return UniformConcrete(num_codes, tuple(positions), temperature)


PRIORS: Axis[Part] = Axis(
    "prior",
    Part(
        "standard",
        "N(0, I)",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda sizes, guide, context: StandardNormal(sizes.latent_dim),
    ),
    Part(
        "mixture",
        "learned mixture of normals",
        "Tomczak and Welling 2018, arXiv 1705.07120",
        _mixture,
    ),
    Part(
        "vamp",
        "VampPrior: the posterior at learned pseudo-inputs, which start from data",
        "Tomczak and Welling 2018, arXiv 1705.07120",
        _vamp,
    ),
    Part("flow", "masked autoregressive flow", "Chen et al. 2017, arXiv 1611.02731", _flow),
    Part(
        "conditional",
        "normal whose mean and scale a network makes of the context",
        "Sohn, Lee and Yan 2015",
        _conditional,
    ),
    Part(
        "codes",
        "uniform over the codes of the posterior fsq or vq",
        "van den Oord et al. 2017, arXiv 1711.00937",
        lambda sizes, guide, context: UniformCodes(guide.codebook),
    ),
    Part(
        "learned-codes",
        "autoregressive over the codes of the posterior fsq or vq, position by position",
        "van den Oord et al. 2017, arXiv 1711.00937",
        _learned_codes,
    ),
    Part(
        "concrete",
        "uniform over relaxed indicators, for the posterior gumbel",
        "Maddison et al. 2017, arXiv 1611.00712",
        _concrete,
    ),
)
"""The priors; each is built from sizes, the guide, and the module that reads the context."""
