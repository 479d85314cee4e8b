"""All recipes by name."""

from functools import partial

import torch
from torch import nn

from ...models import (
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from ..objectives.beta import Beta_ELBO
from ..objectives.importance_weighted import Gradient, ImportanceWeighted_ELBO
from ..objectives.info import Info_ELBO
from ..objectives.schedules import Cyclical, Warmup
from ..objectives.total_correlation import TotalCorrelation_ELBO
from .lookup import find_named
from .networks import convolutional, dense_of_counts, told_the_label, told_the_rest
from .priors import flow_prior, given_the_rest, mixture, vamp
from .recipe import Recipe
from .sizes import Sizes


def _learned_normal(sizes: Sizes) -> Normal:
    return Normal(sizes.event_shape, scale=nn.Parameter(torch.full(sizes.event_shape, 0.5)))


def _learned_student(sizes: Sizes) -> StudentT:
    scale = nn.Parameter(torch.full(sizes.event_shape, 0.5))
    return StudentT(sizes.event_shape, df=nn.Parameter(torch.tensor(4.0)), scale=scale)


def _learned_negative_binomial(sizes: Sizes) -> NegativeBinomial:
    return NegativeBinomial(sizes.event_shape, nn.Parameter(torch.ones(sizes.event_shape)))


_doubly = Gradient.DOUBLY_REPARAMETERIZED


_LIKELIHOODS = (
    Recipe(
        "vae",
        "VAE for images in [0, 1], binarized anew each epoch: Bernoulli likelihood",
        "Kingma and Welling 2014, arXiv 1312.6114",
    ),
    Recipe(
        "vae-static",
        "the same on one fixed draw of the bits",
        "Kingma and Welling 2014, arXiv 1312.6114",
        binarize="static",
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
        lambda sizes: Normal(sizes.event_shape, scale=None),
        "none",
    ),
    Recipe(
        "vae-student-t",
        "VAE for continuous data with outliers: Student's t, learned scales and degrees of freedom",
        "Takahashi et al. 2018, Student-t variational autoencoder",
        _learned_student,
        "none",
    ),
    Recipe(
        "vae-logistic",
        "VAE for images of 256 levels: discretized logistic likelihood",
        "Kingma et al. 2016, arXiv 1606.04934",
        lambda sizes: DiscretizedLogistic(sizes.event_shape),
        "none",
    ),
    Recipe(
        "vae-logistic-mixture",
        "the same with a mixture of 5 logistics a pixel",
        "Salimans et al. 2017, arXiv 1701.05517",
        lambda sizes: DiscretizedLogistic(sizes.event_shape, 5),
        "none",
    ),
    Recipe(
        "vae-continuous-bernoulli",
        "VAE for grey images in [0, 1]: continuous Bernoulli likelihood",
        "Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845",
        lambda sizes: ContinuousBernoulli(sizes.event_shape),
        "none",
    ),
    Recipe(
        "vae-categorical",
        "VAE for codes of classes 0 … C − 1: categorical likelihood",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda sizes: Categorical(sizes.event_shape, sizes.num_classes),
        "none",
        coded=True,
    ),
    Recipe(
        "vae-poisson",
        "VAE for counts: Poisson likelihood",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda sizes: Poisson(sizes.event_shape),
        "none",
        networks=dense_of_counts,
    ),
    Recipe(
        "vae-negative-binomial",
        "VAE for counts that vary more: negative binomial, one learned r for each element",
        "Lopez et al. 2017, arXiv 1709.02082",
        _learned_negative_binomial,
        "none",
        networks=dense_of_counts,
    ),
)


_NETWORKS = (
    Recipe(
        "vae-conv",
        "vae with convolutional networks",
        "Radford, Metz and Chintala 2016, arXiv 1511.06434",
        networks=convolutional,
    ),
    Recipe(
        "vae-resnet",
        "vae with residual convolutional networks",
        "He et al. 2016, arXiv 1603.05027",
        networks=partial(convolutional, residual_blocks=1),
    ),
)


_PRIORS = (
    Recipe(
        "vae-mixture",
        "vae with a mixture of 500 normals as its prior; the KL warmed up over 10 epochs",
        "Tomczak and Welling 2018, arXiv 1705.07120",
        prior=mixture,
        objective=lambda: Beta_ELBO(Warmup(10)),
    ),
    Recipe(
        "vampprior",
        "vae with a VampPrior of 500 pseudo-inputs; the KL warmed up over 10 epochs",
        "Tomczak and Welling 2018, arXiv 1705.07120",
        prior=vamp,
        objective=lambda: Beta_ELBO(Warmup(10)),
    ),
    Recipe(
        "vae-flow-prior",
        "vae with a masked autoregressive flow as its prior; the KL warmed up over 10 epochs",
        "Chen et al. 2017, arXiv 1611.02731",
        prior=flow_prior,
        objective=lambda: Beta_ELBO(Warmup(10)),
    ),
)


_OBJECTIVES = (
    Recipe(
        "beta-vae",
        "vae whose KL counts four times",
        "Higgins et al. 2017, beta-VAE",
        objective=lambda: Beta_ELBO(4.0),
    ),
    Recipe(
        "vae-warmup",
        "vae whose KL is warmed up over 10 epochs",
        "Sønderby et al. 2016, arXiv 1602.02282",
        objective=lambda: Beta_ELBO(Warmup(10)),
    ),
    Recipe(
        "vae-cyclical",
        "vae whose KL is warmed up anew every 10 epochs",
        "Fu et al. 2019, arXiv 1903.10145",
        objective=lambda: Beta_ELBO(Cyclical(10)),
    ),
    Recipe(
        "vae-free-bits",
        "vae in which 0.1 nat of each latent dimension's KL is free",
        "Kingma et al. 2016, arXiv 1606.04934",
        objective=lambda: Beta_ELBO(free_bits=0.1),
    ),
    Recipe(
        "iwae",
        "importance-weighted bound of 5 draws",
        "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519",
        objective=lambda: ImportanceWeighted_ELBO(k=5),
    ),
    Recipe(
        "iwae-stl",
        "the same, its gradient sticking the landing",
        "Roeder, Wu and Duvenaud 2017, arXiv 1703.09194",
        objective=lambda: ImportanceWeighted_ELBO(k=5, gradient=Gradient.STICKING_THE_LANDING),
    ),
    Recipe(
        "iwae-dreg",
        "the same, its gradient doubly reparameterized",
        "Tucker et al. 2019, arXiv 1810.04152",
        objective=lambda: ImportanceWeighted_ELBO(k=5, gradient=_doubly),
    ),
    Recipe(
        "miwae",
        "importance-weighted bound of 8 draws, averaged over 8 groups",
        "Rainforth et al. 2018, arXiv 1802.04537",
        objective=lambda: ImportanceWeighted_ELBO(k=8, m=8),
    ),
    Recipe(
        "ciwae",
        "half the ELBO, half the importance-weighted bound of 64 draws",
        "Rainforth et al. 2018, arXiv 1802.04537",
        objective=lambda: ImportanceWeighted_ELBO(k=64, elbo_weight=0.5),
    ),
    Recipe(
        "piwae",
        "the model by the bound of 64 draws, the guide by 8 groups of 8",
        "Rainforth et al. 2018, arXiv 1802.04537",
        objective=lambda: ImportanceWeighted_ELBO(k=8, m=8, partial=True),
    ),
    Recipe(
        "info-vae",
        "no KL of each datum, but the discrepancy between aggregated posterior and prior",
        "Zhao, Song and Ermon 2019, arXiv 1706.02262",
        objective=lambda: Info_ELBO(alpha=1.0, strength=100.0),
    ),
    Recipe(
        "beta-tc-vae",
        "vae whose total correlation counts six times",
        "Chen et al. 2018, arXiv 1802.04942",
        objective=lambda: TotalCorrelation_ELBO(6.0),
    ),
    Recipe(
        "autoencoder",
        "deterministic autoencoder: a point for a posterior, no KL",
        "Hinton and Salakhutdinov 2006",
        posterior="point",
    ),
)


_CONDITIONAL = (
    Recipe(
        "cvae",
        "vae that is given the label of each datum",
        "Kingma et al. 2014, arXiv 1406.5298",
        networks=told_the_label,
        given="labels",
    ),
    Recipe(
        "cvae-quadrant",
        "three quadrants of an image, given the lower left one: structured prediction",
        "Sohn, Lee and Yan 2015",
        networks=told_the_rest,
        prior=given_the_rest,
        given="quadrant",
    ),
)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (*_LIKELIHOODS, *_NETWORKS, *_PRIORS, *_OBJECTIVES, *_CONDITIONAL)
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    return find_named(name, RECIPES, "recipe")
