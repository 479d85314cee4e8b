"""Generative models p(x, z) as Pyro programs, and the parts they are composed of."""

from .autoregressive import Autoregressive, AutoregressiveLikelihood
from .contexts import Conditional, OneHot
from .convolutional import conv_decoder, conv_encoder
from .images import Categorical, ContinuousBernoulli, DiscretizedLogistic
from .likelihoods import Bernoulli, Likelihood, Normal
from .linear_gaussian import PPCA, FactorAnalysis
from .mixture import GaussianMixture
from .networks import FlattenEvent, mlp
from .priors import ConditionalNormal, FlowPrior, NormalMixture, StandardNormal, VampPrior
from .tables import NegativeBinomial, Poisson, StudentT
from .vae import VAE

__all__ = [
    "PPCA",
    "VAE",
    "Autoregressive",
    "AutoregressiveLikelihood",
    "Bernoulli",
    "Categorical",
    "Conditional",
    "ConditionalNormal",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "FactorAnalysis",
    "FlattenEvent",
    "FlowPrior",
    "GaussianMixture",
    "Likelihood",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "OneHot",
    "Poisson",
    "StandardNormal",
    "StudentT",
    "VampPrior",
    "conv_decoder",
    "conv_encoder",
    "mlp",
]
