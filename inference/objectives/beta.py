"""β-ELBO: the KL weighted by β, scheduled, and with free bits."""

import math
from typing import Any

from torch import Tensor

from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading
from .schedules import Constant, Schedule, Weight


class Beta_ELBO(Objective):
    """The ELBO with a weight on its KL, and free bits.

    ::

        L = Σₙ E_q[log p(xₙ|z)] − β Σₙ KL(q(z|xₙ) ‖ p(z))

    β = 1 gives the ELBO; β > 1 favours factors that are independent (Higgins et al. 2017), β < 1
    favours reconstruction, and β = 0 is reconstruction alone. With free bits λ (Kingma et al. 2016,
    arXiv 1606.04934) the KL of a latent dimension, averaged over the batch, counts at least λ nats:
    Σⱼ max(λ, KLⱼ). The KL is in closed form where there is one. Where it does not split into K
    dimensions (a full covariance, a flow, a mixture prior), its sum counts at least λK nats.

    Args:
        beta: a number of at least 0, or a :class:`Schedule` over epochs, such as ``Warmup(10)`` or
            ``Cyclical(20)``. In ``pyro.infer.SVI``, call :meth:`move_to` to follow the schedule.
        free_bits: λ in nats, at least 0.
        num_particles: S, the number of draws that are averaged.

    Raises:
        ValueError: if β or λ is negative, or S less than 1; when first run, if β is not 0 and the
            guide is a point, which has no KL.

    >>> from latente.inference import Warmup
    >>> objective = Beta_ELBO(Warmup(10), free_bits=0.1)
    >>> objective
    Beta_ELBO(beta=Warmup(epochs=10, start=0.0, stop=1.0), free_bits=0.1)
    >>> objective.move_to(epoch=5)
    >>> objective.beta.tensor.item()
    0.5
    """

    points_allowed = True

    def __init__(
        self, beta: float | Schedule = 1.0, *, free_bits: float = 0.0, num_particles: int = 1
    ):
        super().__init__(num_particles)
        self.beta = Weight("beta", beta)
        if not 0 <= free_bits < math.inf:
            raise ValueError(f"free_bits must be a number of at least 0, got {free_bits}")
        self.free_bits = free_bits

    def bound(self, reading: Reading) -> Tensor:
        """E_q[log p(x|z)] − β KL of each datum, or their mean with free bits."""
        reconstruction = reading.log_likelihood.mean(0)
        if self._without_kl:
            return reconstruction
        beta = self.beta.tensor
        if not self.free_bits:
            return reconstruction - beta * reading.kl.mean(0)
        paid = reconstruction.new_zeros(())
        for kl, (site, _) in zip(
            reading.kl_by_dimension(), reading.local_sites().values(), strict=True
        ):
            dimensions = site["value"].numel() // kl.numel()
            paid = paid + kl.mean((0, 1)).clamp(min=self.free_bits * dimensions).sum()
        return reconstruction.mean() - beta * paid

    @property
    def _without_kl(self) -> bool:
        return self.beta.schedule == Constant(0.0)

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse to weigh the KL of a point."""
        if structure.points and not self._without_kl:
            raise ValueError(
                f"the guide puts {structure.points[0]!r} on one point, which has no KL to weigh: "
                "use beta=0, or Trace_ELBO() to keep the prior's term"
            )

    def __repr__(self) -> str:
        more = f", num_particles={self.num_particles}" if self.num_particles > 1 else ""
        return f"Beta_ELBO({self.beta}, free_bits={self.free_bits}{more})"
