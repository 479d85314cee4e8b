"""Recipes: named (model, guide, objective) triples with their settings and their paper."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from ..guides import (
    Amortized,
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    inverse,
    planar,
)
from ..models import VAE, Bernoulli, Likelihood, Normal, StandardNormal, mlp
from ..models._zuko import zuko
from ..models.networks import shrink
from .data import Binarization

Named = TypeVar("Named")


@dataclass(frozen=True)
class Recipe:
    """A model and a guide to be built for some data, with the settings to fit them by."""

    name: str
    summary: str
    paper: str
    likelihood: Callable[[tuple[int, ...]], Likelihood]
    """From the shape of a datum to the likelihood."""
    binarize: Binarization
    """How its data are binarized."""

    def build(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int,
        hidden: tuple[int, ...],
        posterior: str = "diagonal",
    ) -> tuple[VAE, Amortized]:
        """The pair for data of this shape, with the same hidden widths in both networks.

        Args:
            posterior: a name in :data:`POSTERIORS`.
        """
        likelihood = self.likelihood(event_shape)
        decoder = mlp(latent_dim, *reversed(hidden), out=likelihood.num_features)
        model = VAE(StandardNormal(latent_dim), decoder, likelihood)
        encoder = partial(mlp, event_shape, *hidden)
        return model, find_posterior(posterior).build(encoder, latent_dim)


@dataclass(frozen=True)
class Posterior:
    """A posterior family that any recipe can be fitted with."""

    name: str
    summary: str
    paper: str
    build: Callable[[Callable[..., nn.Module], int], Amortized]
    """From a network that lacks only its width, ``out=``, and K to the guide."""


def _diagonal(encoder: Callable[..., nn.Module], latent_dim: int) -> DiagonalNormal:
    return DiagonalNormal(encoder(out=DiagonalNormal.num_features(latent_dim)), latent_dim)


# A richer posterior starts as the diagonal one. Left at their random values, dependences that
# the data do not ask for yet cost a KL that many epochs are spent on.


def _full_rank(encoder: Callable[..., nn.Module], latent_dim: int) -> FullRankNormal:
    network = encoder(out=FullRankNormal.num_features(latent_dim))
    shrink(list(network.children())[-1], rows=slice(2 * latent_dim, None))
    return FullRankNormal(network, latent_dim)


def _flow(
    make: Callable[[int, int], zuko.lazy.Flow], encoder: Callable[..., nn.Module], latent_dim: int
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
    )
}


def _learned_normal(event_shape: tuple[int, ...]) -> Normal:
    return Normal(event_shape, scale=nn.Parameter(torch.full(event_shape, 0.5)))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "vae",
            "VAE for images in [0, 1], binarized anew each epoch: Bernoulli likelihood",
            "Kingma and Welling 2014, arXiv 1312.6114",
            Bernoulli,
            "dynamic",
        ),
        Recipe(
            "vae-static",
            "the same on one fixed draw of the bits",
            "Kingma and Welling 2014, arXiv 1312.6114",
            Bernoulli,
            "static",
        ),
        Recipe(
            "vae-normal",
            "VAE for continuous data: normal likelihood, one learned scale for each element",
            "Kingma and Welling 2014, arXiv 1312.6114",
            _learned_normal,
            "none",
        ),
        Recipe(
            "vae-normal-predicted",
            "VAE for continuous data: normal likelihood, scales predicted by the decoder",
            "Kingma and Welling 2014, arXiv 1312.6114, appendix C.2",
            partial(Normal, scale=None),
            "none",
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    return _find(name, RECIPES, "recipe")


def find_posterior(name: str) -> Posterior:
    """The posterior family of that name.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    return _find(name, POSTERIORS, "posterior")


def _find(name: str, known: Mapping[str, Named], kind: str) -> Named:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"there is no {kind} {name!r}: {hint}")
