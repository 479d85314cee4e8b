"""Builders of priors."""

from collections.abc import Callable

import torch
from torch import nn

from ...guides import Amortized
from ...models import ConditionalNormal, FlowPrior, NormalMixture, StandardNormal, VampPrior, mlp
from ...models._zuko import zuko
from .sizes import Sizes

Prior = Callable[[Sizes, Amortized], nn.Module]
"""From sizes and guide to the prior."""


def standard_normal(sizes: Sizes, guide: Amortized) -> nn.Module:
    """N(0, I)."""
    return StandardNormal(sizes.latent_dim)


def mixture(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A mixture of :data:`NUM_COMPONENTS` normals."""
    return NormalMixture(sizes.latent_dim, NUM_COMPONENTS)


def vamp(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A VampPrior of :data:`NUM_COMPONENTS` pseudo-inputs, to be started from data."""
    return VampPrior(guide, torch.zeros(NUM_COMPONENTS, *sizes.event_shape))


def flow_prior(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A masked autoregressive flow of three transformations."""
    return FlowPrior(zuko.flows.MAF(sizes.latent_dim, transforms=3, hidden_features=(128, 128)))


def given_the_rest(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A normal whose moments come from the context by a multilayer perceptron."""
    network = mlp(sizes.context, *sizes.hidden, out=2 * sizes.latent_dim)
    return ConditionalNormal(network, sizes.latent_dim)


NUM_COMPONENTS = 500
"""Components of mixture priors, as Tomczak and Welling 2018 have them for MNIST."""
