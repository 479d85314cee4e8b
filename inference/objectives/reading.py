"""The log terms of a pair on a batch, with gradients, of which an objective is a function."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..pairs.all_values import average_values
from ..pairs.kl import site_kl, sites_in_closed_form
from ..pairs.log_terms import Draws, sum_sites
from ..pairs.programs import Program
from ..pairs.sites import in_data_plate, latent_sites, sample_sites
from ..pairs.structure import Structure


@dataclass(frozen=True)
class Reading:
    """The log terms of a pair at S draws z ~ q(z|x) for each of the N data of a batch.

    An objective is a function of these terms. They are in nats, and have gradients.

    Where the guide marks discrete sites y to be enumerated, there are S · C draws: for each sample
    one z ~ q(z|x, y) at each of the C values of y, next to one another. An objective whose
    ``enumerates`` is true averages them by :meth:`average`, or takes them :meth:`by_value`.
    """

    model: Program
    guide: Program
    draws: Draws
    model_trace: Trace
    structure: Structure
    closed: frozenset[str]
    """Latent sites whose KL is taken in closed form."""
    scale: float
    """N/M: how many data each datum of the batch stands for."""
    log_shares: Tensor | None = None
    """log q(y|x) of the C values of the sites that are enumerated, (C, N), and −log C where y is
    known; ``None`` where nothing is enumerated."""

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return self.draws.num_samples, self.draws.num_data

    def average(self, term: Tensor) -> Tensor:
        """The mean of a term (S, N, …) over q(z|x): over its draws, and all values of y."""
        if self.log_shares is None:
            return term.mean(0)
        return average_values(term, self.log_shares).mean(0)

    def average_over_data(self, term: Tensor) -> Tensor:
        """The mean of a term (S, N, …) over q(z|x) and the batch: (…)."""
        if self.log_shares is None:
            return term.mean((0, 1))
        return self.average(term).mean(0)

    def by_value(self, term: Tensor) -> list[Tensor]:
        """A term (S · C, N) at each of the C values of y, each (S, N); 0 at values of no mass."""
        if self.log_shares is None:
            return [term]
        terms = term.unflatten(0, (-1, len(self.log_shares)))
        return list(torch.where(self.log_shares > -torch.inf, terms, 0.0).unbind(1))

    def sum_values(self, terms: list[Tensor]) -> Tensor:
        """Σ_y q(y|x) of a term (N,) of each value of y: (N,)."""
        if self.log_shares is None:
            return terms[0]
        return average_values(torch.stack(terms), self.log_shares)[0]

    @cached_property
    def log_likelihood(self) -> Tensor:
        """log p(x|z), (S, N)."""
        observed = [site for site in sample_sites(self.model_trace).values() if site["is_observed"]]
        return self._sum(observed)[0]

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z), (S, N)."""
        return self._sum(latent_sites(self.model_trace).values())[0]

    @property
    def log_posterior(self) -> Tensor:
        """log q(z|x), (S, N)."""
        return self.draws.log_posterior

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x), (S, N)."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    @cached_property
    def log_weight_beyond(self) -> Tensor:
        """log p − log q of the sites outside the data plate, which all data share: (S,)."""
        return self._sum(sample_sites(self.model_trace).values())[1] - (
            self.draws.log_posterior_global
        )

    def _sum(self, sites: Any) -> tuple[Tensor, Tensor]:
        return sum_sites(sites, self.shape, self.draws.plated, self.draws.log_posterior)

    def local_sites(self) -> dict[str, tuple[Any, Any]]:
        """Each latent site of the data plate, in the guide and in the model, by name."""
        models = latent_sites(self.model_trace)
        return {
            name: (site, models[name])
            for name, site in latent_sites(self.draws.trace).items()
            if name in models and in_data_plate(site)
        }

    def auxiliary_sites(self) -> dict[str, Any]:
        """Sites of the data plate that the guide draws and the model does not have, by name."""
        models = latent_sites(self.model_trace)
        return {
            name: site
            for name, site in latent_sites(self.draws.trace).items()
            if name not in models and in_data_plate(site)
        }

    def kl_by_dimension(self) -> list[Tensor]:
        """KL(q(z|x) ‖ p(z)) of each latent site, each (S, N, J): see :func:`site_kl`.

        Raises:
            ValueError: if the guide draws auxiliary sites: their part of the KL belongs to no
                single latent site.
        """
        for name in self.auxiliary_sites():
            raise ValueError(
                f"the guide draws the auxiliary site {name!r}, so the KL is known for all sites "
                "together, and not for each dimension"
            )
        return self._site_kls()

    @cached_property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)) of all latent sites of each datum, (S, N)."""
        total = torch.zeros_like(self.draws.log_posterior)
        for kl in self._site_kls():
            total = total + kl.sum(-1)
        auxiliary = self.auxiliary_sites()
        return total + self._sum(auxiliary.values())[0] if auxiliary else total

    def _site_kls(self) -> list[Tensor]:
        plated = self.draws.plated
        return [
            site_kl(q, p, self.shape, closed=name in self.closed, plated=plated)
            for name, (q, p) in self.local_sites().items()
        ]


def closed_forms(reading: Reading) -> frozenset[str]:
    """The local sites whose KL has a closed form that is a term of the bound."""
    latent = latent_sites(reading.draws.trace), latent_sites(reading.model_trace)
    return sites_in_closed_form(*latent) & reading.local_sites().keys()
