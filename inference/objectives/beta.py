"""β-ELBO: the KL weighted by β, scheduled, with free bits, and balanced between sites."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading
from .schedules import Weight
from .site_weights import SiteValue, SiteWeights

FreeBitsPer = Literal["dimension", "site"]
"""What the free bits are of: each dimension of a latent site, or the site as a whole."""


BALANCE_OFFSET = 0.01
"""Nats added to the KL of each site before it is balanced, so that no coefficient is zero."""


class Beta_ELBO(Objective):
    """The ELBO with a weight on its KL, free bits, and a balance of the KL between latent sites.

    ::

        L = Σₙ E_q[log p(xₙ|z)] − β Σₙ KL(q(z|xₙ) ‖ p(z))

    β = 1 gives the ELBO; β > 1 favours factors that are independent (Higgins et al. 2017), β < 1
    favours reconstruction, and β = 0 is reconstruction alone. With free bits λ (Kingma et al. 2016,
    arXiv 1606.04934) the KL of a latent dimension, averaged over the batch, counts at least λ nats:
    Σⱼ max(λ, KLⱼ). The KL is in closed form where there is one. Where it does not split into K
    dimensions (a full covariance, a flow, a mixture prior), its sum counts at least λK nats. With
    ``free_bits_per="site"`` it is the KL of a whole latent site that counts at least λ nats.

    Of a pair of several latent sites, β and λ may be given for each: Σᵢ βᵢ max(λᵢ, KLᵢ). With
    ``balance``, as long as β is below its full value the KL of site i is multiplied by ::

        γᵢ ∝ (0.01 + |KLᵢ|) / Kᵢ,   with mean 1 over the sites

    KLᵢ averaged over the batch, Kᵢ dimensions, no gradient through γ: a level that says little
    costs less. It keeps levels of a hierarchy from collapsing (Vahdat and Kautz 2020, arXiv
    2007.03898; the formula is that of their released code).

    Discrete sites y that the guide marks ``infer={"enumerate": "parallel"}`` are not drawn:
    E_q = Σ_y q(y|x) E_q(z|x,y), exactly, with draws of z at each y (Kingma et al. 2014, 1406.5298).

    Args:
        beta: a number of at least 0, or a :class:`Schedule` over epochs, such as ``Warmup(10)`` or
            ``Cyclical(20)``; or a mapping from latent sites to these, where a site that is not
            named has 1. In ``pyro.infer.SVI``, call :meth:`move_to` to follow the schedule.
        free_bits: λ in nats, likewise; a site that is not named has 0.
        free_bits_per: whether λ is for each ``"dimension"`` or for each ``"site"``.
        balance: whether to balance the KL between sites while ``beta``, a schedule, rises.
        num_particles: S, the number of draws that are averaged.

    Raises:
        ValueError: if β or λ is negative, or S less than 1, or there is no schedule during which to
            balance; when first run, if β is not 0 and the guide is a point, which has no KL, or a
            site does not exist, or there is only one to balance.

    >>> from latente.inference import Warmup
    >>> objective = Beta_ELBO(Warmup(10), free_bits=0.1)
    >>> objective
    Beta_ELBO(beta=Warmup(epochs=10, start=0.0, stop=1.0), free_bits=0.1)
    >>> objective.move_to(epoch=5)
    >>> objective.beta.tensor.item()
    0.5
    >>> Beta_ELBO({"z2": 0.5}, free_bits={"z2": 0.5, "z1": 1.0}, free_bits_per="site")
    Beta_ELBO(beta={'z2': 0.5}, free_bits={'z2': 0.5, 'z1': 1.0}, free_bits_per='site')
    """

    points_allowed = True
    enumerates = True

    def __init__(
        self,
        beta: SiteValue = 1.0,
        *,
        free_bits: SiteValue = 0.0,
        free_bits_per: FreeBitsPer = "dimension",
        balance: bool = False,
        num_particles: int = 1,
    ):
        super().__init__(num_particles)
        if free_bits_per not in get_args(FreeBitsPer):
            raise ValueError(f"free_bits_per is 'dimension' or 'site', got {free_bits_per!r}")
        self.betas = SiteWeights("beta", beta, otherwise=1.0)
        self.free_bits = SiteWeights("free_bits", free_bits, otherwise=0.0)
        self.free_bits_per: FreeBitsPer = free_bits_per
        self.balance = balance
        if balance and (self.betas.by_site or self.beta.is_constant):
            raise ValueError(
                "balance is for a warm-up of the KL of all sites together: give a schedule, such "
                "as beta=Warmup(10)"
            )

    @property
    def beta(self) -> Weight:
        """β of all sites, or of those that have none of their own."""
        return self.betas.shared

    @property
    def weights(self) -> list[Weight]:
        """β and λ, of each site where they differ, and those of a subclass."""
        return [*self.betas.weights, *self.free_bits.weights, *super().weights]

    @property
    def is_elbo(self) -> bool:
        """Whether it is the ELBO itself: β = 1 without free bits."""
        return self.betas.is_always(1.0) and self.free_bits.is_always(0.0)

    def bound(self, reading: Reading) -> Tensor:
        """E_q[log p(x|z)] − β KL of each datum, or their mean with free bits."""
        reconstruction = reading.average(reading.log_likelihood)
        if self._without_kl:
            return reconstruction
        has_free_bits = not self.free_bits.is_always(0.0)
        if not has_free_bits and not self.betas.by_site and not self.balance:
            return reconstruction - self.beta.tensor * reading.average(reading.kl)
        total = reconstruction.new_zeros(())
        for name, kl in self._kls(reading, has_free_bits).items():
            total = total + (self.betas.of(name) * kl if self.betas.by_site else kl)
        total = total if self.betas.by_site else self.beta.tensor * total
        return (reconstruction.mean() if has_free_bits else reconstruction) - total

    def _kls(self, reading: Reading, has_free_bits: bool) -> dict[str, Tensor]:
        """The KL of each site before β: of each datum (N,), or with free bits their mean."""
        parts = dict(zip(reading.local_sites(), reading.kl_by_dimension(), strict=True))
        kls = {name: reading.average(kl.sum(-1)) for name, kl in parts.items()}
        if not has_free_bits and not self.balance:
            return kls
        values = {name: site["value"] for name, (site, _) in reading.local_sites().items()}
        sizes = {name: values[name].numel() // kl[..., 0].numel() for name, kl in parts.items()}
        if has_free_bits:
            counted = sizes if self.free_bits_per == "dimension" else dict.fromkeys(sizes)
            means = {name: reading.average_over_data(kl) for name, kl in parts.items()}
            kls = {n: _at_least(self.free_bits.of(n), kl, counted[n]) for n, kl in means.items()}
        if self.balance:
            means = [reading.average_over_data(kl.sum(-1)) for kl in parts.values()]
            gammas = dict(zip(parts, balance_kls(means, [*sizes.values()]), strict=True))
            rises = self.beta.tensor < self.beta.full
            kls = {name: kl * gammas[name].where(rises, 1.0) for name, kl in kls.items()}
        return kls

    @property
    def _without_kl(self) -> bool:
        return self.betas.is_always(0.0)

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse to weigh the KL of a point, of a site that there is not, or to balance one."""
        if structure.points and not self._without_kl:
            raise ValueError(
                f"the guide puts {structure.points[0]!r} on one point, which has no KL to weigh: "
                "use beta=0, or Trace_ELBO() to keep the prior's term"
            )
        for weights in (self.betas, self.free_bits):
            weights.check_names(sites)
        if self.balance and len(sites) < 2:
            raise ValueError(
                f"the pair has one latent site ({', '.join(sites)}), and balance is of the KLs of "
                "several: leave it out"
            )

    def __repr__(self) -> str:
        more = "" if self.free_bits_per == "dimension" else ", free_bits_per='site'"
        more += ", balance=True" if self.balance else ""
        more += f", num_particles={self.num_particles}" if self.num_particles > 1 else ""
        beta = self.betas if self.betas.by_site else self.beta
        return f"Beta_ELBO({beta}, {self.free_bits}{more})"


def _at_least(free_bits: Tensor, kl: Tensor, size: int | None) -> Tensor:
    """The KL of one site, averaged over draws and batch (J,), at least as large as λ.

    Args:
        size: its number of dimensions, of each of which λ is; ``None``: λ is of the site.
    """
    least = free_bits.to(kl)
    if size is None:
        return kl.sum().clamp(min=least)
    # A KL that does not split into dimensions has the free bits of all of them.
    return kl.clamp(min=least * (size // kl.shape[-1])).sum()


def balance_kls(kls: list[Tensor], sizes: list[int]) -> list[Tensor]:
    """The coefficients γ of the KLs of several sites: see :class:`Beta_ELBO`.

    Args:
        kls: the KL of each site, averaged over a batch, in nats.
        sizes: the number of its dimensions.

    >>> balance_kls([torch.tensor(2.99), torch.tensor(0.99)], [2, 2])
    [tensor(1.5000), tensor(0.5000)]
    """
    nats = torch.stack(kls).detach().abs() + BALANCE_OFFSET
    shares = nats / nats.new_tensor(sizes)
    return list(shares / shares.mean())
