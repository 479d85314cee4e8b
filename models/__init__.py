"""Generative models p(x, z) as Pyro programs, and the parts they are composed of."""

from .likelihoods import Bernoulli, Likelihood, Normal
from .networks import FlattenEvent, mlp
from .priors import StandardNormal
from .vae import VAE

__all__ = ["VAE", "Bernoulli", "FlattenEvent", "Likelihood", "Normal", "StandardNormal", "mlp"]
