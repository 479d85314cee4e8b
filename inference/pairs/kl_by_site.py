"""The KL of each latent site at draws from the guide, where a pair has several of them."""

from collections.abc import Iterable
from typing import Any

from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .log_terms import Draws, sum_sites
from .sites import latent_sites


def kl_by_site(model_trace: Trace, draws: Draws, names: Iterable[str]) -> dict[str, Tensor]:
    """log q(z|x) − log p(z) of some latent sites of the data plate at draws, (S, N) by name.

    Each is given the sites drawn before it. Of all latent sites, they sum to the KL of the pair.

    Args:
        model_trace: the model at these draws; see :func:`trace_model`.
        draws: the draws.
        names: the sites; see :attr:`Structure.told_apart`.
    """
    posteriors, priors = latent_sites(draws.trace), latent_sites(model_trace)
    return {
        name: density_of_site(posteriors[name], draws) - density_of_site(priors[name], draws)
        for name in names
    }


def density_of_site(site: Any, draws: Draws) -> Tensor:
    """The log density of one site of the data plate at draws, (S, N)."""
    like = draws.log_posterior
    return sum_sites([site], (draws.num_samples, draws.num_data), draws.plated, like)[0]
