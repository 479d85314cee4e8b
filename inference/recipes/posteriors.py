"""The axis ``--posterior``: families of q(z|x) by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from ...guides import (
    DiagonalNormal,
    FiniteScalar,
    FullRankNormal,
    GumbelSoftmax,
    NormalizingFlow,
    PointPosterior,
    VectorQuantized,
    inverse,
    planar,
)
from ...models import Codebook, FlattenEvent, StraightThrough
from ...models._zuko import zuko
from ...models.networks.mlp import shrink
from .axis import Axis, Part
from .parameters import Count, Flag, NonNegative, Positive, Share, Widths, word_or_number

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


@dataclass(frozen=True)
class PosteriorPart(Part):
    """A posterior family; the functions of a family over codes take the values of its choice."""

    priors: tuple[str, ...] = ()
    """The priors that go with it, where these are over codes; (): all that are not."""
    reader: Callable[[Any], list[nn.Module]] = lambda choice: []
    """What stands before a decoder that takes a vector."""
    auxiliary: Callable[[Any], Mapping[str, float]] = lambda choice: {}
    """The weights of auxiliary terms of the loss, by name."""
    latent_dim: Callable[[Any], int] | None = None
    """How many numbers z has; ``None``: those of --latent-dim."""
    is_mass: bool = False
    """Whether it is a mass of 1 on one value, so that all draws are the same."""


Decay = Annotated[float | str, word_or_number("gradient")]
"""The decay of moving averages, or ``"gradient"``."""


def _fsq(
    encoder: EncoderOfWidth, latent_dim: int, *, levels: Widths = (8, 8), positions: Count = 16
) -> FiniteScalar:
    return FiniteScalar(encoder(out=latent_dim), levels, positions)


def _vq(
    encoder: EncoderOfWidth,
    latent_dim: int,
    *,
    codes: Count = 64,
    dim: Count = 8,
    positions: Count = 16,
    decay: Decay = 0.99,
    restart: Share = 0.1,
    commitment: NonNegative = 0.25,
) -> VectorQuantized:
    by = None if isinstance(decay, str) else decay
    codebook = Codebook(codes, dim, positions, decay=by, restart=restart)
    return VectorQuantized(encoder(out=latent_dim), codebook)


def _vq_terms(choice: Any) -> dict[str, float]:
    """The weight of the commitment; and of the codebook's own term, where it has a gradient."""
    terms = {"commitment": choice["commitment"]}
    return terms | ({"codebook": 1.0} if choice["decay"] == "gradient" else {})


def _gumbel(
    encoder: EncoderOfWidth,
    latent_dim: int,
    *,
    codes: Count = 16,
    positions: Count = 16,
    temperature: Positive = 0.67,
    hard: Flag = True,
) -> GumbelSoftmax:
    return GumbelSoftmax(encoder(out=latent_dim), codes, positions, temperature)


def _gumbel_reader(choice: Any) -> list[nn.Module]:
    flatten = FlattenEvent((choice["positions"], choice["codes"]))
    return [StraightThrough(), flatten] if choice["hard"] else [flatten]


CODE_PRIORS = ("codes", "learned-codes")
"""The priors of posteriors that are a mass on codes."""

POSTERIORS: Axis[PosteriorPart] = Axis(
    "posterior",
    PosteriorPart(
        "diagonal",
        "normal with a diagonal covariance",
        "Kingma and Welling 2014, arXiv 1312.6114",
        _diagonal,
    ),
    PosteriorPart(
        "full-rank",
        "normal with a full covariance, by its Cholesky factor",
        "Kingma and Welling 2019, arXiv 1906.02691",
        _full_rank,
    ),
    PosteriorPart("planar", "planar flow", "Rezende and Mohamed 2015, arXiv 1505.05770", _planar),
    PosteriorPart(
        "iaf", "inverse autoregressive flow", "Kingma et al. 2016, arXiv 1606.04934", _iaf
    ),
    PosteriorPart(
        "spline",
        "inverse autoregressive flow of rational-quadratic splines",
        "Durkan et al. 2019, arXiv 1906.04032",
        _spline,
    ),
    PosteriorPart(
        "point",
        "a point without a density: a deterministic autoencoder",
        "Hinton and Salakhutdinov 2006",
        _point,
    ),
    PosteriorPart(
        "fsq",
        "a code at each position: features rounded to a grid of levels, for --prior codes",
        "Mentzer et al. 2023, arXiv 2309.15505",
        _fsq,
        priors=CODE_PRIORS,
        reader=lambda choice: [FlattenEvent((len(choice["levels"]), choice["positions"]))],
        latent_dim=lambda choice: len(choice["levels"]) * choice["positions"],
        is_mass=True,
    ),
    PosteriorPart(
        "vq",
        "a code at each position: the nearest of learned vectors, moved by averages with decay or "
        "by the gradient, for --prior codes",
        "van den Oord et al. 2017, arXiv 1711.00937",
        _vq,
        priors=CODE_PRIORS,
        reader=lambda choice: [FlattenEvent((choice["dim"], choice["positions"]))],
        auxiliary=_vq_terms,
        latent_dim=lambda choice: choice["dim"] * choice["positions"],
        is_mass=True,
    ),
    PosteriorPart(
        "gumbel",
        "relaxed indicators of codes, Gumbel-softmax; a hard one for the decoder, if hard; for "
        "--prior concrete",
        "Maddison et al. 2017, arXiv 1611.00712; Jang et al. 2017, arXiv 1611.01144",
        _gumbel,
        priors=("concrete",),
        reader=_gumbel_reader,
        latent_dim=lambda choice: choice["codes"] * choice["positions"],
    ),
)
"""The posterior families; each builds a guide from an :data:`EncoderOfWidth` and K."""
