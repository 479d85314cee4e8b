"""The figures of a fitted pair that go into ``evaluation.json``, and how they are printed."""

import math
from typing import Any

from torch import Tensor

from .evidence import log_evidence
from .pairs import Program
from .predictive import posterior_means
from .rows import as_rows

ACTIVE_VARIANCE = 0.01
"""Variance of a posterior mean over the data above which its unit counts as active."""


def active_units(means: Tensor, threshold: float = ACTIVE_VARIANCE) -> int:
    """How many latent dimensions are used: Var_x(E_q[z_j|x]) > threshold.

    Args:
        means: posterior means (N,), (N, K), or (N, *event_shape).

    Source: Burda, Grosse and Salakhutdinov 2016 (arXiv 1509.00519).

    >>> import torch
    >>> active_units(torch.stack([torch.arange(10.0), torch.zeros(10)], dim=1))
    1
    """
    return int((means.reshape(len(means), -1).var(0) > threshold).sum()) if len(means) > 1 else 0


def evaluate(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, float]:
    """Evidence, bound, its terms and the health of the posterior, per datum in nats.

    Args:
        data: x or (x, *context), all of which is used.
        num_samples: S of :func:`log_evidence`.

    Returns:
        ``log_evidence`` with its Monte Carlo standard error ``log_evidence_se``, ``elbo`` =
        ``reconstruction`` − ``kl``, ``gap`` = ``log_evidence`` − ``elbo``, ``active_units``
        of ``latent_dim``, ``khat_bad_fraction`` above ``khat_threshold``, ``ess_median``,
        ``num_samples`` and ``num_data``.

    Raises:
        ValueError: as :func:`log_evidence` does.
    """
    rows = as_rows(data, "data")
    evidence = log_evidence(
        model, guide, data, num_samples=num_samples, seed=seed, show_progress=show_progress
    )
    means = posterior_means(model, guide, data).values()
    return {
        "log_evidence": evidence.mean,
        "log_evidence_se": evidence.mean_standard_error,
        "elbo": evidence.elbo,
        "reconstruction": evidence.reconstruction.mean().item(),
        "kl": evidence.kl.mean().item(),
        "gap": evidence.mean - evidence.elbo,
        "active_units": sum(active_units(value) for value in means),
        "latent_dim": sum(math.prod(value.shape[1:]) for value in means),
        "khat_bad_fraction": evidence.khat_bad_fraction,
        "khat_threshold": evidence.khat_threshold,
        "ess_median": evidence.ess.median().item(),
        "num_samples": num_samples,
        "num_data": len(rows[0]),
    }


def verdict(figures: dict[str, float]) -> str:
    """What Pareto k̂ says of the evidence of :func:`evaluate`, in a sentence or two."""
    share, threshold = figures["khat_bad_fraction"], figures["khat_threshold"]
    if share == 0:
        return f"Pareto k̂ is below {threshold:.2f} for all data: the weights are well behaved."
    return (
        f"Pareto k̂ is above {threshold:.2f} for {share:.1%} of the data: their log p(x) may be too "
        "low by more than ± says, and the mean with them. More samples or a better posterior help."
    )
