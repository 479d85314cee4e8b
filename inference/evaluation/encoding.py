"""Codes: the posterior of each datum in numbers."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.arguments import open_pair
from ..evidence.importance_sampling import log_evidence
from ..pairs.programs import Program
from ..simulation.predictive import posterior_means
from .posterior_sds import posterior_sds


@dataclass(frozen=True)
class Codes:
    """The posterior of N data by latent site, with a judgement of each; on CPU."""

    mean: dict[str, Tensor]
    """E_q[z|x] of each site, (N, *event_shape); of an angle, the mean direction."""
    sd: dict[str, Tensor]
    """The standard deviation of q(z|x), as ``mean``; of an angle, √(−2 log R) of its mean length R.
    """
    khat: Tensor
    """Pareto k̂ of importance weights, (N,): above ``khat_threshold`` q(z|x) is far from p(z|x)."""
    khat_threshold: float
    log_px: Tensor
    """log p(x) from the same draws, (N,), nats."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, (N,)."""

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in self.mean.items())
        bad = 1 - (self.khat <= self.khat_threshold).double().mean().item()
        return f"Codes(N={len(self.khat)}: {sites}; k̂ bad for {bad:.1%})"


def encode(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 1000,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Codes:
    """Compute mean and standard deviation of q(z|x), and k̂, for each datum.

    The moments are exact for a guide with one site whose distribution has them in closed form;
    otherwise those of 1,000 draws.

    Args:
        data: x or (x, *context), all of which is used; of what :func:`load_data` returns, the test
            part is used.
        num_samples: S of :func:`log_evidence`, from which k̂ is.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the data done.

    Raises:
        ValueError: as :func:`log_evidence` does.

    >>> import torch
    >>> from latente.models import VAE, StandardNormal, Bernoulli, mlp
    >>> from latente.guides import DiagonalNormal
    >>> vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> guide = DiagonalNormal(mlp(64, 16, out=4), latent_dim=2)
    >>> codes = encode(vae, guide, torch.ones(5, 8, 8))
    >>> codes.mean["z"].shape, codes.sd["z"].shape, codes.khat.shape
    (torch.Size([5, 2]), torch.Size([5, 2]), torch.Size([5]))
    """
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    evidence = log_evidence(
        model, guide, rows, num_samples=num_samples, seed=seed, show_progress=show_progress
    )
    return Codes(
        posterior_means(model, guide, rows),
        posterior_sds(model, guide, rows),
        evidence.khat,
        evidence.khat_threshold,
        evidence.log_px,
        evidence.standard_error,
    )
