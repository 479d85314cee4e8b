"""The axis ``--posterior``: families of q(z|x) by name."""

from collections.abc import Callable

from torch import nn

from ...guides import (
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    PointPosterior,
    inverse,
    planar,
)
from ...models._zuko import zuko
from ...models.networks.mlp import shrink
from .axis import Axis, Part
from .parameters import Count

EncoderOfWidth = Callable[..., nn.Module]
"""Makes the encoder network, given the number of its outputs: ``encoder(out=40)``."""

CONTEXT_FEATURES = 64
"""Features of the encoder that condition a flow."""


def _diagonal(encoder: EncoderOfWidth, latent_dim: int) -> DiagonalNormal:
    return DiagonalNormal(encoder(out=DiagonalNormal.num_features(latent_dim)), latent_dim)


def _full_rank(encoder: EncoderOfWidth, latent_dim: int) -> FullRankNormal:
    network = encoder(out=FullRankNormal.num_features(latent_dim))
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    shrink(last, rows=slice(2 * latent_dim, None))
    return FullRankNormal(network, latent_dim)


def _point(encoder: EncoderOfWidth, latent_dim: int) -> PointPosterior:
    return PointPosterior(encoder(out=PointPosterior.num_features(latent_dim)), latent_dim)


def _planar(encoder: EncoderOfWidth, latent_dim: int, *, transforms: Count = 8) -> NormalizingFlow:
    return _flow(
        encoder, latent_dim, lambda: planar(latent_dim, CONTEXT_FEATURES, transforms=transforms)
    )


def _iaf(encoder: EncoderOfWidth, latent_dim: int, *, transforms: Count = 2) -> NormalizingFlow:
    def make() -> zuko.lazy.Flow:
        return inverse(zuko.flows.MAF(latent_dim, CONTEXT_FEATURES, transforms=transforms))

    return _flow(encoder, latent_dim, make)


def _spline(encoder: EncoderOfWidth, latent_dim: int, *, transforms: Count = 2) -> NormalizingFlow:
    def make() -> zuko.lazy.Flow:
        return inverse(zuko.flows.NSF(latent_dim, CONTEXT_FEATURES, transforms=transforms))

    return _flow(encoder, latent_dim, make)


def _flow(
    encoder: EncoderOfWidth, latent_dim: int, make: Callable[[], zuko.lazy.Flow]
) -> NormalizingFlow:
    """The guide of a flow that starts close to the identity; the encoder is made first."""
    network = encoder(out=NormalizingFlow.num_features(latent_dim, CONTEXT_FEATURES))
    flow = make()
    for part in flow.modules():
        hyper = getattr(part, "hyper", None)
        if isinstance(hyper, nn.Sequential):
            shrink(hyper[-1])
    return NormalizingFlow(network, latent_dim, flow, context=CONTEXT_FEATURES)


POSTERIORS: Axis[Part] = Axis(
    "posterior",
    Part(
        "diagonal",
        "normal with a diagonal covariance",
        "Kingma and Welling 2014, arXiv 1312.6114",
        _diagonal,
    ),
    Part(
        "full-rank",
        "normal with a full covariance, by its Cholesky factor",
        "Kingma and Welling 2019, arXiv 1906.02691",
        _full_rank,
    ),
    Part("planar", "planar flow", "Rezende and Mohamed 2015, arXiv 1505.05770", _planar),
    Part("iaf", "inverse autoregressive flow", "Kingma et al. 2016, arXiv 1606.04934", _iaf),
    Part(
        "spline",
        "inverse autoregressive flow of rational-quadratic splines",
        "Durkan et al. 2019, arXiv 1906.04032",
        _spline,
    ),
    Part(
        "point",
        "a point without a density: a deterministic autoencoder",
        "Hinton and Salakhutdinov 2006",
        _point,
    ),
)
"""The posterior families; each builds a guide from an :data:`EncoderOfWidth` and K."""
