"""InfoVAE: the maximum mean discrepancy of the aggregated posterior in place of the KL."""

import math
from typing import Any

from torch import Tensor

from ..pairs.structure import Structure
from .kernels import Kernel, check_kernel, inverse_multiquadratic, name_kernel, points_of
from .objective import Objective
from .reading import Reading
from .total_correlation import check_one_plate


class Info_ELBO(Objective):
    """The objective of the InfoVAE (Zhao, Song and Ermon 2019, arXiv 1706.02262).

    ::

        L = Σₙ { E_q[log p(xₙ|z)] − (1 − α) KL(q(z|xₙ) ‖ p(z)) } − N (α + λ − 1) MMD²(q(z), p(z))

    with q(z) the posterior averaged over the data, and MMD² the unbiased estimate of the squared
    maximum mean discrepancy, from one draw of each posterior of a batch and as many prior draws::

        MMD² = E k(z, z′) − 2 E k(z, v) + E k(v, v′),   z ~ q,  v ~ p

    MMD² is a small number, and λ multiplies the noise of its estimate: λ from 10 to 100 works for
    images, while λ = 1000 has ruined fits. With α = 1 no term keeps the posterior wide, so q(z|x)
    says little about p(z|x). α = 0, λ = 1 gives the ELBO. α = 1 is the MMD-VAE, and for a guide
    that is a point the Wasserstein autoencoder (Tolstikhin et al. 2018, arXiv 1711.01558).

    Args:
        alpha: α in [0, 1].
        strength: λ, at least 1 − α.
        kernel: of points (n, K) and (m, K) to (n, m); :func:`inverse_multiquadratic` if not given.

    Raises:
        ValueError: if α or λ is out of range, or the kernel is not symmetric and positive definite;
            when first run, if the batch is of one datum, the pair has more than one latent site, or
            draws of the prior carry no gradient.

    >>> Info_ELBO(alpha=1.0, strength=10.0)
    Info_ELBO(alpha=1.0, strength=10.0)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        strength: float = 10.0,
        *,
        kernel: Kernel | None = None,
    ):
        # Two draws of one datum's posterior are not independent draws of q(z): take one of each.
        super().__init__()
        if not 0 <= alpha <= 1 or not 1 - alpha <= strength < math.inf:
            raise ValueError(
                f"alpha must be in [0, 1] and strength at least 1 − alpha, got alpha={alpha}, "
                f"strength={strength}"
            )
        self.alpha, self.strength = alpha, strength
        self.kernel = inverse_multiquadratic() if kernel is None else kernel
        check_kernel(self.kernel)
        self.points_allowed = alpha == 1

    def bound(self, reading: Reading) -> Tensor:
        """The mean over the batch."""
        bound = reading.log_likelihood.mean()
        if self.alpha < 1:
            bound = bound - (1 - self.alpha) * reading.kl.mean()
        weight = self.alpha + self.strength - 1
        if not weight:
            return bound
        ((q, p),) = reading.local_sites().values()
        event_dim = q["fn"].event_dim
        aggregated, prior = (
            points_of(q["value"], event_dim),
            points_of(p["fn"].rsample(), event_dim),
        )
        return bound - weight * squared_mmd(aggregated, prior, self.kernel)

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse priors that cannot be reparameterized, and pairs of several latent sites."""
        if len(sites) != 1:
            raise ValueError(f"Info_ELBO needs one latent site, and the pair has {len(sites)}")
        for name, (_, p) in sites.items():
            if not p["fn"].has_rsample:
                raise ValueError(
                    f"the prior of {name!r} cannot be drawn with a gradient to its parameters, "
                    "which Info_ELBO needs: use StandardNormal, ConditionalNormal or FlowPrior"
                )
        check_one_plate(structure, "Info_ELBO")

    def __repr__(self) -> str:
        plain = self.kernel == inverse_multiquadratic()
        kernel = "" if plain else f", kernel={name_kernel(self.kernel)}"
        return f"Info_ELBO(alpha={self.alpha}, strength={self.strength}{kernel})"


def squared_mmd(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """The squared maximum mean discrepancy of two distributions from n draws (n, K) of each,
    unbiased.

    ::

        MMD² = (Σ_{i≠j} k(aᵢ, aⱼ) + Σ_{i≠j} k(bᵢ, bⱼ)) / n(n − 1) − 2 Σᵢⱼ k(aᵢ, bⱼ) / n²

    It can be below zero. Source: Gretton et al. 2012.

    Raises:
        ValueError: if there are fewer than two draws.

    >>> import torch
    >>> a = torch.randn(500, 2)
    >>> far = squared_mmd(a, a + 3, inverse_multiquadratic())
    >>> bool(far > 10 * squared_mmd(a, torch.randn(500, 2), inverse_multiquadratic()).abs())
    True
    """
    n = len(a)
    if n < 2:
        raise ValueError("the maximum mean discrepancy needs two draws or more: a larger batch")
    within = sum(part.sum() - part.diagonal().sum() for part in (kernel(a, a), kernel(b, b)))
    return within / (n * (n - 1)) - 2 * kernel(a, b).mean()
