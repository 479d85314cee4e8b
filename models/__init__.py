"""Generative models p(x, z) as Pyro programs, and the parts they are composed of."""

from .autoregressive import Autoregressive
from .likelihoods import Bernoulli, Likelihood, Normal
from .linear_gaussian import PPCA, FactorAnalysis
from .mixture import GaussianMixture
from .networks import FlattenEvent, mlp
from .priors import StandardNormal
from .vae import VAE

__all__ = [
    "PPCA",
    "VAE",
    "Autoregressive",
    "Bernoulli",
    "FactorAnalysis",
    "FlattenEvent",
    "GaussianMixture",
    "Likelihood",
    "Normal",
    "StandardNormal",
    "mlp",
]
