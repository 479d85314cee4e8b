"""β-TC-VAE: the KL split into mutual information, total correlation and dimension-wise KL."""

import math
from typing import Any

import torch
from torch import Tensor

from ..pairs.kl import is_product
from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading
from .schedules import Schedule, Weight


class TotalCorrelation_ELBO(Objective):
    """The objective of the β-TC-VAE (Chen et al. 2018, arXiv 1802.04942): the KL in three parts.

    ::

        KL(q(z|x) ‖ p(z)) = I(x; z) + TC + Σⱼ KL(q(zⱼ) ‖ p(zⱼ)),
        I = E log q(z|x) / q(z),   TC = E log q(z) / ∏ⱼ q(zⱼ)
        L = Σₙ E_q[log p(xₙ|z)] − N (α I + β TC + γ Σⱼ KL(q(zⱼ) ‖ p(zⱼ)))

    q(z) is the posterior averaged over all N data. A batch of M gives, for the draw of datum i, the
    estimate q(z|xᵢ) / N + (N − 1) / N · mean over j ≠ i of q(z|xⱼ), which is unbiased before the
    logarithm. N is the number of data that the loss is scaled to: M in plain ``pyro.infer.SVI``.
    The estimate of I is at most log N; mutual information above that is counted in TC.

    Args:
        beta: weight of the total correlation; a number or a :class:`Schedule`.
        alpha: weight of the mutual information.
        gamma: weight of the dimension-wise KL.

    Raises:
        ValueError: if a weight is negative; when first run, if posterior or prior is not a product
            over dimensions, or the batch has one datum.

    >>> TotalCorrelation_ELBO(6.0)
    TotalCorrelation_ELBO(beta=6.0, alpha=1.0, gamma=1.0)
    """

    def __init__(
        self,
        beta: float | Schedule = 6.0,
        *,
        alpha: float = 1.0,
        gamma: float = 1.0,
    ):
        super().__init__()
        self.beta = Weight("beta", beta)
        self.alpha, self.gamma = Weight("alpha", alpha), Weight("gamma", gamma)

    def bound(self, reading: Reading) -> Tensor:
        """The mean over the batch."""
        bound = reading.log_likelihood.mean()
        for q, p in reading.local_sites().values():
            parts = decompose_kl(q, p, reading.scale * reading.draws.num_data)
            for weight, part in zip((self.alpha, self.beta, self.gamma), parts, strict=True):
                bound = bound - weight.tensor * part
        return bound

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse distributions that are not products over dimensions."""
        if len(sites) != 1:
            raise ValueError(
                f"TotalCorrelation_ELBO needs one latent site, and the pair has {len(sites)}"
            )
        for name, pair in sites.items():
            for role, site in zip(("guide's", "model's"), pair, strict=True):
                if not is_product(site["fn"]) or site["fn"].event_dim != 1:
                    raise ValueError(
                        f"the {role} distribution of {name!r} is not a product over dimensions, "
                        "which TotalCorrelation_ELBO needs: use a DiagonalNormal guide and a "
                        "StandardNormal or ConditionalNormal prior"
                    )
        check_one_plate(structure, "TotalCorrelation_ELBO")

    def __repr__(self) -> str:
        return f"TotalCorrelation_ELBO({self.beta}, {self.alpha}, {self.gamma})"


def decompose_kl(q: Any, p: Any, num_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL, estimated from a batch.

    Args:
        q: the guide's site, with a value (M, K).
        p: the model's site.
        num_data: N.
    """
    z, distribution = q["value"], q["fn"].base_dist
    batch = len(z)
    if batch < 2:
        raise ValueError("TotalCorrelation_ELBO needs batches of two data or more")
    others = (num_data - 1) / (num_data * (batch - 1))
    weight = torch.full((batch, batch), math.log(max(others, 1e-300)), dtype=z.dtype)
    weight = weight.fill_diagonal_(-math.log(num_data)).to(z.device)
    log_pairs = distribution.log_prob(z[:, None])  # log q(zᵢₖ | xⱼ), (M, M, K)
    log_qz = (log_pairs.sum(-1) + weight).logsumexp(1)
    log_product = (log_pairs + weight[..., None]).logsumexp(1).sum(-1)
    log_posterior, log_prior = q["fn"].log_prob(z), p["fn"].log_prob(z)
    return (
        (log_posterior - log_qz).mean(),
        (log_qz - log_product).mean(),
        (log_product - log_prior).mean(),
    )


def check_one_plate(structure: Structure, name: str) -> None:
    """Refuse pairs with plates inside the data plate."""
    if structure.nesting > 1:
        raise ValueError(f"{name} needs a pair without plates inside {structure.data_plate}")
