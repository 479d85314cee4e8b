"""Annealed importance sampling: log p(x) of each datum by a path from prior to posterior."""

from typing import Any

import pyro
import torch

from ..common.arguments import check_least
from ..common.progress import progress
from ..data.datasets import evaluation_rows
from ..pairs.latent_space import latent_space
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.structure import Structure
from .annealing_path import Annealed, AnnealingPath, AnnealingSettings
from .importance_sampling import inspect_local

CHAINS_AT_ONCE = 2_000
"""Chains times data that are run together."""


def annealed_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Program | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Annealed:
    """Log p(x) of each datum by annealed importance sampling (Neal 2001; Wu et al. 2017).

    Each of C chains goes from a draw of π₀(z) to the posterior, by Hamiltonian transitions that
    leave each f_t as it is::

        f_t(z) = π₀(z)^{1 − β_t} p(x, z)^{β_t},   0 = β₀ < β₁ < … < β_T = 1
        log w = Σ_t (β_t − β_{t−1}) (log p(x, z_{t−1}) − log π₀(z_{t−1}))

    E[w] = p(x) whatever T is, so log 1/C Σ w is biased downwards, the less so the more
    temperatures. Unlike importance sampling it does not need a good proposal: with π₀ the prior,
    the guide has no part in it. Step sizes, one for each temperature and datum, are adapted in a
    run of their own, and fixed in the one that counts: otherwise E[w] would not be p(x).

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``.
        num_temperatures: T. The cost is T · (1 + num_leapfrog) gradients of C · N log joints.
        num_chains: C, at least 2.
        num_leapfrog: steps of a Hamiltonian transition.
        start: a program whose distribution π₀ is: the guide, say, from which the way is shorter,
        but modes
            that it misses may stay missed. The model's prior, if not given.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, a latent site is discrete, or log p(x) of one datum is
            not defined (see :func:`log_evidence`).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> x = torch.randn(3, 5)
    >>> annealed = annealed_evidence(model, guide, x, num_temperatures=100)
    >>> bool(((annealed.log_px - model.log_prob(x)).abs() < 0.5).all())
    True
    """
    check_settings(num_temperatures, num_chains, num_leapfrog)
    rows = evaluation_rows(data)
    settings = AnnealingSettings(num_temperatures, num_chains, num_leapfrog, start)
    block = max(1, CHAINS_AT_ONCE // num_chains)
    total = 2 * num_temperatures * -(-len(rows[0]) // block)
    parts: list[Annealed] = []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure: Structure | None = None
        with progress("annealing", total, show=show_progress) as advance:
            for begin in range(0, len(rows[0]), block):
                part = tuple(part[begin : begin + block] for part in rows)
                args = place(part, *placement(model, guide))
                structure = structure or inspect_local(model, guide, args)
                path = AnnealingPath(latent_space(model, guide, args, structure), settings, advance)
                with pyro.validation_enabled(False):
                    parts.append(path.forward(path.explore()))
    return join_rows(parts)


def join_rows(parts: list[Annealed]) -> Annealed:
    """The data of several blocks as one."""
    names = ("log_px", "standard_error", "ess", "acceptance", "log_weight")
    joined = {name: torch.cat([vars(part)[name] for part in parts], dim=-1) for name in names}
    return Annealed(**joined, num_temperatures=parts[0].num_temperatures)


def check_settings(num_temperatures: int, num_chains: int, num_leapfrog: int) -> None:
    """Refuse numbers that are too small."""
    check_least(
        {
            "num_temperatures": (num_temperatures, 2),
            "num_chains": (num_chains, 2),
            "num_leapfrog": (num_leapfrog, 1),
        }
    )
