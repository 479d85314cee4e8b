"""Networks, priors and posteriors built to the size of some data, for recipes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..guides import (
    Amortized,
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    Point,
    inverse,
    planar,
)
from ..models import (
    Conditional,
    ConditionalNormal,
    FlattenEvent,
    FlowPrior,
    Likelihood,
    NormalMixture,
    OneHot,
    StandardNormal,
    VampPrior,
    conv_decoder,
    conv_encoder,
    mlp,
)
from ..models._zuko import zuko
from ..models.networks import shrink


@dataclass(frozen=True)
class Sizes:
    """What a pair is built for."""

    event_shape: tuple[int, ...]
    latent_dim: int
    hidden: tuple[int, ...]
    """Widths of the hidden layers of dense networks."""
    context: int = 0
    """Numbers of what is given: how many classes there are, or how many elements."""
    num_classes: int = 0
    """How many values the data take, where they are codes of classes."""


Encoder = Callable[..., nn.Module]
"""A network that lacks only its width: ``encoder(out=40)``."""
Networks = Callable[[Sizes, Likelihood], tuple[Encoder, nn.Module]]
"""From sizes and likelihood to encoder and decoder."""
Prior = Callable[[Sizes, Amortized], nn.Module]
"""From sizes and guide to the prior."""


def dense(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons."""
    encoder = partial(mlp, sizes.event_shape, *sizes.hidden)
    decoder = mlp(sizes.latent_dim, *reversed(sizes.hidden), out=likelihood.num_features)
    return encoder, decoder


def dense_of_counts(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons; the encoder reads log(1 + x), as of Lopez et al. 2017."""
    plain, decoder = dense(sizes, likelihood)
    return lambda out: nn.Sequential(_Log1p(), plain(out=out)), decoder


class _Log1p(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log1p()


def convolutional(
    sizes: Sizes, likelihood: Likelihood, residual_blocks: int = 0
) -> tuple[Encoder, nn.Module]:
    """Convolutional networks of two halvings, with one dense layer of the last hidden width."""
    options: dict[str, Any] = {"residual_blocks": residual_blocks, "hidden": sizes.hidden[-1]}
    encoder = partial(conv_encoder, sizes.event_shape, **options)
    decoder = conv_decoder(
        sizes.latent_dim,
        sizes.event_shape,
        features_per_element=likelihood.features_per_element,
        **options,
    )
    return encoder, decoder


def told_the_label(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons that are given the label beside x, and beside z."""
    return _told(sizes, likelihood, OneHot(sizes.context))


def told_the_rest(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons that are given the elements that are no part of x."""
    return _told(sizes, likelihood, FlattenEvent((sizes.context,)))


def _told(sizes: Sizes, likelihood: Likelihood, reader: nn.Module) -> tuple[Encoder, nn.Module]:
    x, z = FlattenEvent(sizes.event_shape), FlattenEvent((sizes.latent_dim,))

    def encoder(out: int) -> nn.Module:
        network = mlp(math.prod(sizes.event_shape) + sizes.context, *sizes.hidden, out=out)
        return Conditional(network, x, reader)

    width = sizes.latent_dim + sizes.context
    network = mlp(width, *reversed(sizes.hidden), out=likelihood.num_features)
    return encoder, Conditional(network, z, reader)


def standard_normal(sizes: Sizes, guide: Amortized) -> nn.Module:
    """N(0, I)."""
    return StandardNormal(sizes.latent_dim)


def mixture(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A mixture of :data:`COMPONENTS` normals."""
    return NormalMixture(sizes.latent_dim, COMPONENTS)


def vamp(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A VampPrior of :data:`COMPONENTS` pseudo-inputs, to be started from data."""
    return VampPrior(guide, torch.zeros(COMPONENTS, *sizes.event_shape))


def flow_prior(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A masked autoregressive flow of three transformations."""
    return FlowPrior(zuko.flows.MAF(sizes.latent_dim, transforms=3, hidden_features=(128, 128)))


def given_the_rest(sizes: Sizes, guide: Amortized) -> nn.Module:
    """A normal whose moments come from the context by a multilayer perceptron."""
    network = mlp(sizes.context, *sizes.hidden, out=2 * sizes.latent_dim)
    return ConditionalNormal(network, sizes.latent_dim)


COMPONENTS = 500
"""Components of mixture priors, as Tomczak and Welling 2018 have them for MNIST."""


@dataclass(frozen=True)
class Posterior:
    """A posterior family that any recipe can be fitted with."""

    name: str
    summary: str
    paper: str
    build: Callable[[Encoder, int], Amortized]
    """From a network that lacks only its width, ``out=``, and K to the guide."""


def _diagonal(encoder: Encoder, latent_dim: int) -> DiagonalNormal:
    return DiagonalNormal(encoder(out=DiagonalNormal.num_features(latent_dim)), latent_dim)


def _point(encoder: Encoder, latent_dim: int) -> Point:
    return Point(encoder(out=Point.num_features(latent_dim)), latent_dim)


# A richer posterior starts as the diagonal one. Left at their random values, dependences that
# the data do not ask for yet cost a KL that many epochs are spent on.


def _full_rank(encoder: Encoder, latent_dim: int) -> FullRankNormal:
    network = encoder(out=FullRankNormal.num_features(latent_dim))
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    shrink(last, rows=slice(2 * latent_dim, None))
    return FullRankNormal(network, latent_dim)


def _flow(
    make: Callable[[int, int], zuko.lazy.Flow], encoder: Encoder, latent_dim: int
) -> NormalizingFlow:
    network = encoder(out=NormalizingFlow.num_features(latent_dim, CONTEXT))
    flow = make(latent_dim, CONTEXT)
    for part in flow.modules():
        hyper = getattr(part, "hyper", None)
        if isinstance(hyper, nn.Sequential):
            shrink(hyper[-1])
    return NormalizingFlow(network, latent_dim, flow, context=CONTEXT)


CONTEXT = 64
"""Features of the encoder that condition a flow."""

POSTERIORS: dict[str, Posterior] = {
    posterior.name: posterior
    for posterior in (
        Posterior(
            "diagonal",
            "normal with a diagonal covariance",
            "Kingma and Welling 2014, arXiv 1312.6114",
            _diagonal,
        ),
        Posterior(
            "full-rank",
            "normal with a full covariance, by its Cholesky factor",
            "Kingma and Welling 2019, arXiv 1906.02691",
            _full_rank,
        ),
        Posterior(
            "planar",
            "planar flow of 8 transformations",
            "Rezende and Mohamed 2015, arXiv 1505.05770",
            partial(_flow, planar),
        ),
        Posterior(
            "iaf",
            "inverse autoregressive flow, 2 transformations",
            "Kingma et al. 2016, arXiv 1606.04934",
            partial(_flow, lambda *sizes: inverse(zuko.flows.MAF(*sizes, transforms=2))),
        ),
        Posterior(
            "spline",
            "inverse autoregressive flow of rational-quadratic splines, 2 transformations",
            "Durkan et al. 2019, arXiv 1906.04032",
            partial(_flow, lambda *sizes: inverse(zuko.flows.NSF(*sizes, transforms=2))),
        ),
        Posterior(
            "point",
            "a point without a density: a deterministic autoencoder",
            "Hinton and Salakhutdinov 2006",
            _point,
        ),
    )
}
