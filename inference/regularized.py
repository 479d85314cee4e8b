"""Bounds with their terms weighed anew: β, free bits, mean discrepancy, total correlation."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .bounds import Objective, Reading, is_product
from .schedules import Constant, Schedule, Weight
from .terms import Structure

Kernel = Callable[[Tensor, Tensor], Tensor]
"""k(a, b) of points (n, K) and (m, K): (n, m), symmetric and positive definite."""


class Beta_ELBO(Objective):
    """The ELBO with a weight on its KL, and bits that are free.

    ::

        L = Σₙ E_q[log p(xₙ|z)] − β Σₙ KL(q(z|xₙ) ‖ p(z))

    β = 1 is the ELBO; more asks for factors (Higgins et al. 2017), less for reconstruction, and 0
    for nothing else. With free bits λ (Kingma et al. 2016, arXiv 1606.04934) the KL of a latent
    dimension, averaged over the batch, is paid for only above λ nats: Σⱼ max(λ, KLⱼ). The KL is in
    closed form where there is one. Where it does not split into K dimensions (a full covariance, a
    flow, a mixture prior), λK nats of all of it are free.

    Args:
        beta: a number of at least 0, or a :class:`Schedule`, such as ``Warmup(10)`` epochs or
            ``Cyclical(20)``. In ``pyro.infer.SVI`` a schedule is moved by :meth:`move_to`.
        free_bits: λ in nats, of at least 0.
        num_particles: S, how many draws are averaged.

    Raises:
        ValueError: if β or λ is negative, or S less than 1; when first run, if a guide that is a
            point is to pay a KL.

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
        """E_q[log p(x|z)] − β KL of each datum, or their mean where bits are free."""
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
                "take beta=0, or Trace_ELBO() to let the prior count"
            )

    def __repr__(self) -> str:
        more = f", num_particles={self.num_particles}" if self.num_particles > 1 else ""
        return f"Beta_ELBO({self.beta}, free_bits={self.free_bits}{more})"


class Info_ELBO(Objective):
    """The InfoVAE's objective (Zhao, Song and Ermon 2019, arXiv 1706.02262).

    ::

        L = Σₙ { E_q[log p(xₙ|z)] − (1 − α) KL(q(z|xₙ) ‖ p(z)) } − N (α + λ − 1) MMD²(q(z), p(z))

    with q(z) the posterior averaged over the data, and MMD² the unbiased estimate of the squared
    maximum mean discrepancy, from one draw of each posterior of a batch and as many of the prior::

        MMD² = E k(z, z′) − 2 E k(z, v) + E k(v, v′),   z ~ q,  v ~ p

    The mean discrepancy is a small number, and the noise of a batch's is multiplied by λ: 10 to 100
    serve for images, while 1000 has been seen to spoil the fit. With α = 1 nothing keeps the
    posterior wide, and it says little of p(z|x). α = 0, λ = 1 is the ELBO. α = 1 is the MMD-VAE,
    and for a guide that is a point the Wasserstein autoencoder (Tolstikhin et al. 2018, arXiv
    1711.01558).

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
        # Two draws of one datum's posterior are no two draws of q(z): there is one of each.
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
        aggregated, prior = _points(q["value"], event_dim), _points(p["fn"].rsample(), event_dim)
        return bound - weight * squared_mmd(aggregated, prior, self.kernel)

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse priors whose draws carry no gradient, and what has no one law of z."""
        if len(sites) != 1:
            raise ValueError(f"Info_ELBO is of one latent site, and the pair has {len(sites)}")
        for name, (_, p) in sites.items():
            if not p["fn"].has_rsample:
                raise ValueError(
                    f"the prior of {name!r} cannot be drawn with a gradient to its parameters, as "
                    "Info_ELBO needs: take a StandardNormal, a ConditionalNormal or a FlowPrior"
                )
        _check_one_plate(structure, "Info_ELBO")

    def __repr__(self) -> str:
        plain = self.kernel == inverse_multiquadratic()
        kernel = "" if plain else f", kernel={_name(self.kernel)}"
        return f"Info_ELBO(alpha={self.alpha}, strength={self.strength}{kernel})"


class TotalCorrelation_ELBO(Objective):
    """The β-TC-VAE's objective (Chen et al. 2018, arXiv 1802.04942): the KL in three parts.

    ::

        KL(q(z|x) ‖ p(z)) = I(x; z) + TC + Σⱼ KL(q(zⱼ) ‖ p(zⱼ)),
        I = E log q(z|x) / q(z),   TC = E log q(z) / ∏ⱼ q(zⱼ)
        L = Σₙ E_q[log p(xₙ|z)] − N (α I + β TC + γ Σⱼ KL(q(zⱼ) ‖ p(zⱼ)))

    I is at most log N, whatever the truth; what is more shows as TC. q(z) is the posterior averaged
    over all N data. From a batch of M it is estimated, for the draw of datum i, without bias
    (before the logarithm) by q(z|xᵢ) / N + (N − 1) / N · mean over j ≠ i of q(z|xⱼ); N is what the
    loss is scaled to, M in plain ``pyro.infer.SVI``.

    Args:
        beta: weight of the total correlation; a number or a :class:`Schedule`.
        alpha: weight of the mutual information.
        gamma: weight of the dimensions' own KL.

    Raises:
        ValueError: if a weight is negative; when first run, if posterior or prior are no products
            over dimensions, or the batch is of one datum.

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
        """Refuse laws that are no products over dimensions."""
        if len(sites) != 1:
            raise ValueError(
                f"TotalCorrelation_ELBO is of one latent site, and the pair has {len(sites)}"
            )
        for name, pair in sites.items():
            for role, site in zip(("guide's", "model's"), pair, strict=True):
                if not is_product(site["fn"]) or site["fn"].event_dim != 1:
                    raise ValueError(
                        f"the {role} law of {name!r} is no product over dimensions, which "
                        "TotalCorrelation_ELBO takes apart: take a DiagonalNormal guide and a "
                        "StandardNormal or ConditionalNormal prior"
                    )
        _check_one_plate(structure, "TotalCorrelation_ELBO")

    def __repr__(self) -> str:
        return f"TotalCorrelation_ELBO({self.beta}, {self.alpha}, {self.gamma})"


def decompose_kl(q: Any, p: Any, num_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL, estimated from a batch.

    Args:
        q: the guide's site, of value (M, K).
        p: the model's.
        num_data: N.
    """
    z, law = q["value"], q["fn"].base_dist
    batch = len(z)
    if batch < 2:
        raise ValueError("TotalCorrelation_ELBO needs batches of two data or more")
    others = (num_data - 1) / (num_data * (batch - 1))
    weight = torch.full((batch, batch), math.log(max(others, 1e-300)), dtype=z.dtype)
    weight = weight.fill_diagonal_(-math.log(num_data)).to(z.device)
    log_pairs = law.log_prob(z[:, None])  # log q(zᵢₖ | xⱼ), (M, M, K)
    log_qz = (log_pairs.sum(-1) + weight).logsumexp(1)
    log_product = (log_pairs + weight[..., None]).logsumexp(1).sum(-1)
    log_posterior, log_prior = q["fn"].log_prob(z), p["fn"].log_prob(z)
    return (
        (log_posterior - log_qz).mean(),
        (log_qz - log_product).mean(),
        (log_product - log_prior).mean(),
    )


def squared_mmd(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """The squared maximum mean discrepancy of two laws from n draws (n, K) of each, unbiased.

    ::

        MMD² = (Σ_{i≠j} k(aᵢ, aⱼ) + Σ_{i≠j} k(bᵢ, bⱼ)) / n(n − 1) − 2 Σᵢⱼ k(aᵢ, bⱼ) / n²

    It may thus be below zero. Source: Gretton et al. 2012.

    Raises:
        ValueError: if there are fewer than two draws.

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


@dataclass(frozen=True)
class _RadialKernel:
    """k(a, b) = f(‖a − b‖² / c), c = 2K unless given."""

    name: str
    scale: float | None
    profile: Callable[[Tensor], Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"the scale of a kernel must be positive, got {self.scale}")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        c = 2.0 * a.shape[-1] if self.scale is None else self.scale
        return self.profile((a[:, None] - b).square().sum(-1) / c)


def _falling(ratio: Tensor) -> Tensor:
    return 1 / (1 + ratio)


def _gaussian(ratio: Tensor) -> Tensor:
    return (-ratio).exp()


def _name(kernel: Kernel) -> str:
    """What a kernel is called: a function by its name, since its address differs each time."""
    return getattr(kernel, "__qualname__", repr(kernel))


def inverse_multiquadratic(scale: float | None = None) -> Kernel:
    """The kernel k(a, b) = c / (c + ‖a − b‖²), whose tails are heavy (Tolstikhin et al. 2018).

    Args:
        scale: c; 2K for points of K dimensions, if not given.

    Raises:
        ValueError: if it is not positive.

    >>> inverse_multiquadratic(2.0)(torch.zeros(1, 3), torch.ones(1, 3)).item()
    0.4000000059604645
    """
    return _RadialKernel("inverse multiquadratic", scale, _falling)


def gaussian_kernel(scale: float | None = None) -> Kernel:
    """The kernel k(a, b) = exp(−‖a − b‖² / c).

    Args:
        scale: c; 2K for points of K dimensions, if not given.

    Raises:
        ValueError: if it is not positive.

    >>> round(gaussian_kernel(2.0)(torch.zeros(1, 2), torch.ones(1, 2)).item(), 4)
    0.3679
    """
    return _RadialKernel("gaussian", scale, _gaussian)


def check_kernel(kernel: Kernel) -> None:
    """Refuse a kernel whose matrix of some points is not symmetric and positive definite.

    Raises:
        ValueError: saying which of the two it is not.
    """
    if not callable(kernel):
        raise ValueError(f"a kernel is a function of points (n, K) and (m, K), not {kernel!r}")
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    matrix = kernel(points, points)
    if matrix.shape != (24, 24) or not torch.allclose(matrix, matrix.mT):
        raise ValueError("a kernel takes points (n, K) and (m, K) to a symmetric k(a, b), (n, m)")
    if not matrix.isfinite().all() or torch.linalg.eigvalsh(matrix).min() <= 0:
        raise ValueError(
            "the kernel is not positive definite: its matrix of 24 points has an eigenvalue of "
            "zero or below; take inverse_multiquadratic() or gaussian_kernel()"
        )


def _points(value: Tensor, event_dim: int) -> Tensor:
    """Values of a site as points (n, K)."""
    return value.reshape(-1, value.shape[value.dim() - event_dim :].numel())


def _check_one_plate(structure: Structure, name: str) -> None:
    if structure.nesting > 1:
        raise ValueError(f"{name} takes pairs whose latent variables are in the data plate alone")
