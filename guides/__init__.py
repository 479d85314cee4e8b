"""Guides q(z|x): amortized posteriors as Pyro programs, one for each posterior family."""

from .amortized import Amortized
from .exact import ExactPosterior
from .flow import NormalizingFlow, inverse, planar
from .normal import DiagonalNormal, FullRankNormal
from .point import Point

__all__ = [
    "Amortized",
    "DiagonalNormal",
    "ExactPosterior",
    "FullRankNormal",
    "NormalizingFlow",
    "Point",
    "inverse",
    "planar",
]
