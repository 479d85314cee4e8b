"""The axis ``--objective``: what is maximized, by name."""

from dataclasses import dataclass
from typing import Annotated

from pyro.infer import ELBO

from ..objectives.beta import Beta_ELBO
from ..objectives.filtering import Filtering_ELBO
from ..objectives.importance_weighted import Gradient, ImportanceWeighted_ELBO
from ..objectives.info_vae import Info_ELBO
from ..objectives.schedules import Schedule
from ..objectives.score_function import ScoreFunction_ELBO
from ..objectives.total_correlation import TotalCorrelation_ELBO
from .axis import Axis, Part
from .parameters import Count, Flag, NonNegative, Share, at_least, one_of


@dataclass(frozen=True)
class KLWeight:
    """The weight of the KL: β, if it was given, and the free nats."""

    beta: Schedule | None = None
    free_bits: float = 0.0


@dataclass(frozen=True)
class ObjectivePart(Part):
    """An objective; builds an ``ELBO`` from a :class:`KLWeight`."""

    takes_beta: bool = False
    takes_free_bits: bool = False
    needs_density: bool = True
    """Whether the posterior must have a density, and not be a point."""


def _elbo(kl: KLWeight, *, num_particles: Count = 1) -> ELBO | None:
    """The ELBO; ``None`` lets :func:`fit` choose its best estimator."""
    if kl == KLWeight() and num_particles == 1:
        return None
    beta = 1.0 if kl.beta is None else kl.beta
    return Beta_ELBO(beta, free_bits=kl.free_bits, num_particles=num_particles)


GRADIENTS = {
    "plain": Gradient.PLAIN,
    "stl": Gradient.STICKING_THE_LANDING,
    "dreg": Gradient.DOUBLY_REPARAMETERIZED,
}
"""Estimators of an importance-weighted bound's gradient, by their short names."""


def _importance_weighted(
    kl: KLWeight,
    *,
    k: Count = 5,
    m: Count = 1,
    gradient: Annotated[str, one_of(*GRADIENTS)] = "plain",
    elbo_weight: Share = 0.0,
    partial: Flag = False,
) -> ImportanceWeighted_ELBO:
    return ImportanceWeighted_ELBO(
        k, m, gradient=GRADIENTS[gradient], elbo_weight=elbo_weight, partial=partial
    )


def _info(kl: KLWeight, *, alpha: Share = 1.0, strength: NonNegative = 10.0) -> Info_ELBO:
    return Info_ELBO(alpha, strength)


def _total_correlation(
    kl: KLWeight, *, alpha: NonNegative = 1.0, gamma: NonNegative = 1.0
) -> TotalCorrelation_ELBO:
    beta = 6.0 if kl.beta is None else kl.beta
    return TotalCorrelation_ELBO(beta, alpha=alpha, gamma=gamma)


def _score_function(kl: KLWeight, *, num_particles: Count = 1) -> ScoreFunction_ELBO:
    return ScoreFunction_ELBO(
        num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1
    )


def _filtering(
    kl: KLWeight, *, k: Annotated[int, at_least(2)] = 4, threshold: Share = 0.5
) -> Filtering_ELBO:
    return Filtering_ELBO(k, threshold=threshold)


OBJECTIVES: Axis[ObjectivePart] = Axis(
    "objective",
    ObjectivePart(
        "elbo",
        "the evidence lower bound, its KL weighted by --beta and with --free-bits",
        "Kingma and Welling 2014, arXiv 1312.6114",
        _elbo,
        takes_beta=True,
        takes_free_bits=True,
        needs_density=False,
    ),
    ObjectivePart(
        "iwae",
        "importance-weighted bound of k draws, averaged over m groups; MIWAE, CIWAE, PIWAE",
        "Burda et al. 2016, arXiv 1509.00519; Rainforth et al. 2018, arXiv 1802.04537",
        _importance_weighted,
    ),
    ObjectivePart(
        "info",
        "InfoVAE: (1 − alpha) KL, and strength times the discrepancy of posteriors and prior",
        "Zhao, Song and Ermon 2019, arXiv 1706.02262",
        _info,
        needs_density=False,
    ),
    ObjectivePart(
        "total-correlation",
        "β-TC-VAE: the KL in three parts, total correlation weighted by --beta, 6 if not given",
        "Chen et al. 2018, arXiv 1802.04942",
        _total_correlation,
        takes_beta=True,
    ),
    ObjectivePart(
        "score-function",
        "the evidence lower bound, its gradient without reparameterization",
        "Ranganath et al. 2014, arXiv 1401.0118",
        _score_function,
    ),
    ObjectivePart(
        "filtering",
        "FIVO, of sequences: the bound of a particle filter of k particles, resampled below "
        "threshold · k effective ones",
        "Maddison et al. 2017, arXiv 1705.09279",
        _filtering,
        sequences=True,
    ),
)
"""The objectives; each builds a ``pyro.infer.ELBO``, or ``None`` for the ELBO that suits a pair."""
