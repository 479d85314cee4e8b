"""Guides q(z|x): amortized posteriors as Pyro programs, one file for each posterior family."""

from .amortized import Amortized
from .diagonal_normal import DiagonalNormal
from .exact import ExactPosterior
from .flow import NormalizingFlow, inverse, planar
from .full_rank_normal import FullRankNormal
from .point_posterior import PointPosterior

__all__ = [
    "Amortized",
    "DiagonalNormal",
    "ExactPosterior",
    "FullRankNormal",
    "NormalizingFlow",
    "PointPosterior",
    "inverse",
    "planar",
]
