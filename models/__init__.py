"""Generative models p(x, z) as Pyro programs, and their parts: priors, likelihoods, networks."""

from .addition import Addition
from .autoregressive import Autoregressive
from .beam_search import beam_search
from .code_grid import CodeGrid
from .codebook import Codebook
from .codes import Codes
from .contexts import Conditional, OneHot
from .emissions import Emissions
from .gaussian_mixture import GaussianMixture
from .half_labelled import HalfLabelled
from .hierarchy import Hierarchy
from .level import Concatenation, Level
from .likelihoods.autoregressive import AutoregressiveLikelihood
from .likelihoods.bernoulli import Bernoulli
from .likelihoods.categorical import Categorical
from .likelihoods.column_family import ColumnFamily
from .likelihoods.columns import ColumnLikelihood
from .likelihoods.continuous_bernoulli import ContinuousBernoulli
from .likelihoods.discretized_logistic import DiscretizedLogistic
from .likelihoods.likelihood import Likelihood
from .likelihoods.log_normal import LogNormal
from .likelihoods.negative_binomial import NegativeBinomial
from .likelihoods.normal import Normal
from .likelihoods.ordinal import Ordinal
from .likelihoods.poisson import Poisson
from .likelihoods.recurrent import RecurrentDistribution, RecurrentLikelihood
from .likelihoods.student_t import StudentT
from .linear_gaussian import PPCA, FactorAnalysis
from .markov_chain import MarkovChain
from .networks.autoregressive_network import AutoregressiveNetwork
from .networks.column_features import ColumnFeatures
from .networks.combiner import Combiner
from .networks.convolutional import conv_decoder, conv_encoder
from .networks.draw_decoder import DrawDecoder
from .networks.feature_bias import FeatureBias
from .networks.flatten import FlattenEvent
from .networks.gaussian_attention import GaussianAttention
from .networks.maps import Maps
from .networks.masked_mlp import MaskedMLP
from .networks.mlp import mlp
from .networks.pixel_cnn import PixelCNN
from .networks.recurrent_reader import RecurrentReader
from .networks.residual_block import ResidualBlock
from .networks.sequence_encoder import SequenceEncoder
from .networks.stages import Stages
from .networks.straight_through import StraightThrough
from .priors.autoregressive_codes import AutoregressiveCodes
from .priors.conditional_normal import ConditionalNormal
from .priors.flow_prior import FlowPrior
from .priors.gated_transition import GatedTransition
from .priors.linear_transition import LinearTransition
from .priors.normal_mixture import NormalMixture
from .priors.standard_normal import StandardNormal
from .priors.uniform_codes import UniformCodes
from .priors.uniform_concrete import UniformConcrete
from .priors.vamp_prior import VampPrior
from .state_space_model import StateSpaceModel
from .vae import VAE

__all__ = [
    "PPCA",
    "VAE",
    "Addition",
    "Autoregressive",
    "AutoregressiveCodes",
    "AutoregressiveLikelihood",
    "AutoregressiveNetwork",
    "Bernoulli",
    "Categorical",
    "CodeGrid",
    "Codebook",
    "Codes",
    "ColumnFamily",
    "ColumnFeatures",
    "ColumnLikelihood",
    "Combiner",
    "Concatenation",
    "Conditional",
    "ConditionalNormal",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DrawDecoder",
    "Emissions",
    "FactorAnalysis",
    "FeatureBias",
    "FlattenEvent",
    "FlowPrior",
    "GatedTransition",
    "GaussianAttention",
    "GaussianMixture",
    "HalfLabelled",
    "Hierarchy",
    "Level",
    "Likelihood",
    "LinearTransition",
    "LogNormal",
    "Maps",
    "MarkovChain",
    "MaskedMLP",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "OneHot",
    "Ordinal",
    "PixelCNN",
    "Poisson",
    "RecurrentDistribution",
    "RecurrentLikelihood",
    "RecurrentReader",
    "ResidualBlock",
    "SequenceEncoder",
    "Stages",
    "StandardNormal",
    "StateSpaceModel",
    "StraightThrough",
    "StudentT",
    "UniformCodes",
    "UniformConcrete",
    "VampPrior",
    "beam_search",
    "conv_decoder",
    "conv_encoder",
    "mlp",
]
