"""Guides q(z|x): amortized posteriors as Pyro programs, one file for each posterior family."""

from .amortized import Amortized
from .bottom_up import BottomUp
from .classifying import Classifying
from .diagonal_normal import DiagonalNormal
from .draw_posterior import DrawPosterior
from .exact import ExactPosterior
from .finite_scalar import FiniteScalar
from .flow import NormalizingFlow, inverse, planar
from .full_rank_normal import FullRankNormal
from .gumbel_softmax import GumbelSoftmax
from .on_codes import OnCodes
from .point_posterior import PointPosterior
from .relative import PrecisionWeighted, Residual
from .sequence_posterior import SequencePosterior
from .top_down import TopDown
from .vector_quantized import VectorQuantized

__all__ = [
    "Amortized",
    "BottomUp",
    "Classifying",
    "DiagonalNormal",
    "DrawPosterior",
    "ExactPosterior",
    "FiniteScalar",
    "FullRankNormal",
    "GumbelSoftmax",
    "NormalizingFlow",
    "OnCodes",
    "PointPosterior",
    "PrecisionWeighted",
    "Residual",
    "SequencePosterior",
    "TopDown",
    "VectorQuantized",
    "inverse",
    "planar",
]
