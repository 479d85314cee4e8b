"""The posterior families by name, and their builders."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ...guides import (
    Amortized,
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    PointPosterior,
    inverse,
    planar,
)
from ...models._zuko import zuko
from ...models.networks.mlp import shrink
from .lookup import find_named
from .networks import Encoder


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


def _point(encoder: Encoder, latent_dim: int) -> PointPosterior:
    return PointPosterior(encoder(out=PointPosterior.num_features(latent_dim)), latent_dim)


def _full_rank(encoder: Encoder, latent_dim: int) -> FullRankNormal:
    network = encoder(out=FullRankNormal.num_features(latent_dim))
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    shrink(last, rows=slice(2 * latent_dim, None))
    return FullRankNormal(network, latent_dim)


def _flow(
    make: Callable[[int, int], zuko.lazy.Flow], encoder: Encoder, latent_dim: int
) -> NormalizingFlow:
    network = encoder(out=NormalizingFlow.num_features(latent_dim, CONTEXT_FEATURES))
    flow = make(latent_dim, CONTEXT_FEATURES)
    for part in flow.modules():
        hyper = getattr(part, "hyper", None)
        if isinstance(hyper, nn.Sequential):
            shrink(hyper[-1])
    return NormalizingFlow(network, latent_dim, flow, context=CONTEXT_FEATURES)


CONTEXT_FEATURES = 64
"""Features of the encoder that condition a flow."""


POSTERIOR_FAMILIES: dict[str, Posterior] = {
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


def find_posterior(name: str) -> Posterior:
    """The posterior family of that name.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    return find_named(name, POSTERIOR_FAMILIES, "posterior")
