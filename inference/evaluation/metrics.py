"""The figures of a fitted pair that go into ``evaluation.json``, and how they are printed."""

import math
from typing import Any

import torch
from torch import Tensor

from ..data.datasets import evaluation_rows
from ..data.rows import BLOCK, Rows
from ..evidence.importance_sampling import log_evidence
from ..pairs.inspection import inspect_pair
from ..pairs.log_terms import draw, score, trace_model
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.sites import observed_sites
from ..pairs.structure import Structure
from ..simulation.predictive import posterior_means

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
        ``num_samples`` and ``num_data``; for discrete data also ``bits_per_dimension``. A guide
        that is a point has no evidence: then ``reconstruction``, active units and ``num_data``.

    Raises:
        ValueError: as :func:`log_evidence` does.
    """
    rows = evaluation_rows(data)
    structure, is_discrete = _inspect(model, guide, rows)
    if structure.points:
        figures = {"reconstruction": _reconstruction(model, guide, rows, structure)}
        return {**figures, **_units(model, guide, rows), "num_data": len(rows[0])}
    evidence = log_evidence(
        model, guide, rows, num_samples=num_samples, seed=seed, show_progress=show_progress
    )
    size = math.prod(rows[0].shape[1:])
    bits = {"bits_per_dimension": -evidence.mean / size / math.log(2)} if is_discrete else {}
    return {
        "log_evidence": evidence.mean,
        "log_evidence_se": evidence.mean_standard_error,
        "elbo": evidence.elbo,
        "reconstruction": evidence.reconstruction.mean().item(),
        "kl": evidence.kl.mean().item(),
        "gap": evidence.mean - evidence.elbo,
        **bits,
        **_units(model, guide, rows),
        "khat_bad_fraction": evidence.khat_bad_fraction,
        "khat_threshold": evidence.khat_threshold,
        "ess_median": evidence.ess.median().item(),
        "num_samples": num_samples,
        "num_data": len(rows[0]),
    }


def _units(model: Program, guide: Program, rows: tuple[Rows, ...]) -> dict[str, float]:
    means = posterior_means(model, guide, rows).values()
    return {
        "active_units": sum(active_units(value) for value in means),
        "latent_dim": sum(math.prod(value.shape[1:]) for value in means),
    }


def _inspect(model: Program, guide: Program, rows: tuple[Rows, ...]) -> tuple[Structure, bool]:
    """The facts of a pair, and whether all that it observes is discrete."""
    args = place(tuple(part[:2] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        structure = inspect_pair(model, guide, args)
        if structure.enumerated:
            return structure, False
        trace = trace_model(model, draw(guide, args, 1, structure))
    distributions = [site["fn"] for site in observed_sites(trace).values()]
    try:
        return structure, all(distribution.support.is_discrete for distribution in distributions)
    except NotImplementedError:  # a distribution of one's own need not say where its values lie
        return structure, False


def _reconstruction(
    model: Program, guide: Program, rows: tuple[Rows, ...], structure: Structure
) -> float:
    """E_q[log p(x|z)] per datum, by one draw."""
    total = 0.0
    with evaluating(model, guide), torch.random.fork_rng():
        for start in range(0, len(rows[0]), BLOCK):
            block = tuple(part[start : start + BLOCK] for part in rows)
            args = place(block, *placement(model, guide))
            total += score(model, draw(guide, args, 1, structure)).log_likelihood.sum().item()
    return total / len(rows[0])


def describe_health(figures: dict[str, float]) -> str:
    """What the figures of :func:`evaluate` say of the posterior, in a sentence or two."""
    # Of one datum no variance over the data is known, and so no activity.
    if figures["latent_dim"] and not figures["active_units"] and figures["num_data"] > 1:
        return (
            "No latent dimension is in use: the posterior has collapsed onto the prior. A smaller "
            "weight of the KL, a warm-up or free bits may keep it (vae-warmup, vae-free-bits)."
        )
    share, threshold = figures["khat_bad_fraction"], figures["khat_threshold"]
    if share == 0:
        return f"Pareto k̂ is below {threshold:.2f} for all data: the weights are well behaved."
    return (
        f"Pareto k̂ is above {threshold:.2f} for {share:.1%} of the data: their log p(x) may be too "
        "low by more than ± says, and the mean with them. More samples or a better posterior help."
    )
