"""Filtering variational objective: the bound of a particle filter, for sequences."""

from typing import Any

from torch import Tensor

from ..pairs.chains import Chain
from ..pairs.particles import chain_sites, check_filter, filter_particles
from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading


class Filtering_ELBO(Objective):
    """The filtering variational objective, FIVO: the mean of log p̂(x) of a particle filter.

    ::

        L = Σₙ E[log p̂(xₙ)],   p̂(x) = ∏ₜ Σₛ W_{t−1,s} v_{t,s}   (see particle_filter)

    As p̂ is unbiased, L is a bound on log p(x) (Maddison et al. 2017, arXiv 1705.09279; Le et al.
    2018, arXiv 1705.10306; Naesseth et al. 2018, arXiv 1705.11140). It is tighter than that of
    :class:`ImportanceWeighted_ELBO` for long sequences, and not necessarily equal to log p(x) for
    the best guide.

    The gradient goes through the draws and their weights, and leaves out the term of the resampling
    (which particles survive): it is biased, and varies much less. All three papers do the same.

    The pair is a Markov chain: a :class:`latente.models.StateSpaceModel` with a
    :class:`latente.guides.SequencePosterior`.

    Args:
        num_particles: S of each sequence's filter, at least 2.
        threshold: resample where the effective sample size is below threshold · S. With 0 it is
            never done, and L is the importance-weighted bound of S draws.

    Raises:
        ValueError: if S is less than 2 or the threshold negative; when first run, if the latent
            variables are no chain.

    >>> Filtering_ELBO(num_particles=8)
    Filtering_ELBO(num_particles=8, threshold=0.5)
    """

    def __init__(self, num_particles: int = 4, *, threshold: float = 0.5):
        check_filter(num_particles, threshold)
        super().__init__(1)  # one draw of the pair shows its distributions
        self.size, self.threshold = num_particles, threshold

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse a pair whose latent variables are not one chain for each datum."""
        outside = (*structure.global_sites, *structure.observed_outside)
        chains = [all(isinstance(site["fn"], Chain) for site in both) for both in sites.values()]
        if outside or chains != [True]:
            raise ValueError(
                "Filtering_ELBO is of one latent Markov chain for each datum, and the pair has the "
                f"latent sites {', '.join([*sites, *outside]) or 'none'}: give a StateSpaceModel "
                "and a SequencePosterior, or use ImportanceWeighted_ELBO()"
            )

    def bound(self, reading: Reading) -> Tensor:
        """log p̂(x) of each datum, (N,)."""
        sites = chain_sites(reading.draws.trace, reading.model_trace)
        return filter_particles(sites, self.size, threshold=self.threshold).log_px[0]

    def __repr__(self) -> str:
        return f"Filtering_ELBO(num_particles={self.size}, threshold={self.threshold:g})"
