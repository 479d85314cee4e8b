"""What an objective is a function of: a pair read at S draws for each datum of a batch."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ..pairs.kl import has_closed_form, is_product
from ..pairs.log_terms import Draws, sum_sites
from ..pairs.programs import Program
from ..pairs.sites import in_data_plate, latent_sites, sample_sites
from ..pairs.structure import Structure


@dataclass(frozen=True)
class Reading:
    """A pair at S draws z ~ q(z|x) for each of the N data of a batch, with gradients.

    What an objective is a function of. All terms are in nats.
    """

    model: Program
    guide: Program
    draws: Draws
    model_trace: Trace
    structure: Structure
    closed: frozenset[str]
    """Latent sites whose KL is taken in closed form."""
    scale: float
    """How many data each of the batch stands for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return self.draws.num_samples, self.draws.num_data

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
        """The same of what stands outside the data plate, once for all data: (S,)."""
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

    def kl_by_dimension(self) -> list[Tensor]:
        """KL(q(z|x) ‖ p(z)) of each latent site, (S, N, J).

        In closed form where there is one, and then one number for each of J dimensions where both
        distributions are products over them; else log q − log p at the draws, with J = 1. Each
        element of a plate within the data plate has dimensions of its own.
        """
        return [self._site_kl(name, *pair) for name, pair in self.local_sites().items()]

    def _site_kl(self, name: str, q: Any, p: Any) -> Tensor:
        if name in self.closed:
            if is_product(q["fn"]) and is_product(p["fn"]):
                kl = kl_divergence(q["fn"].base_dist, p["fn"].base_dist).flatten(-q["fn"].event_dim)
            else:
                kl = kl_divergence(q["fn"], p["fn"])[..., None]
        else:
            kl = (q["fn"].log_prob(q["value"]) - p["fn"].log_prob(q["value"]))[..., None]
        kl = scale_and_mask(kl.movedim(-1, 0), mask=q["mask"]).movedim(0, -1)
        # What stands in plates of its own within a datum has as many dimensions more.
        return kl.movedim(-2, 1 if self.draws.plated else 0).reshape(*self.shape, -1)

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)) of all latent sites of each datum, (S, N)."""
        total = torch.zeros_like(self.draws.log_posterior)
        for kl in self.kl_by_dimension():
            total = total + kl.sum(-1)
        return total


def closed_forms(reading: Reading) -> frozenset[str]:
    """The local sites whose KL has a closed form: none where orders differ, as that KL given the
    sites drawn before is then not a term of the bound."""
    sites = reading.local_sites()
    in_model = [name for name in latent_sites(reading.model_trace) if name in sites]
    if list(sites) != in_model:
        return frozenset()
    return frozenset(
        name
        for name, (q, p) in sites.items()
        if name not in reading.structure.points and has_closed_form(q["fn"], p["fn"])
    )
