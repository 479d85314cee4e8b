"""Annealed importance sampling: estimate log p(x) along a path from the prior to the posterior."""

from typing import Any

import pyro
import torch

from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.arguments import called_like
from ..data.whole_set import open_posterior, rows_of_set
from ..pairs.latent_space import latent_space
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.structure import Structure
from .annealing_path import Annealed, AnnealingPath, AnnealingSettings
from .importance_sampling import inspect_local

CHAINS_PER_BLOCK = 2_000
"""Chains that run together: chains of each datum times data of a block."""


def annealed_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Program | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Annealed:
    """Estimate log p(x) of each datum by annealed importance sampling.

    Each of C chains moves from a draw of π₀(z) to the posterior, by Hamiltonian transitions that
    leave each f_t invariant (Neal 2001; Wu et al. 2017)::

        f_t(z) = π₀(z)^{1 − β_t} p(x, z)^{β_t},   0 = β₀ < β₁ < … < β_T = 1
        log w = Σ_t (β_t − β_{t−1}) (log p(x, z_{t−1}) − log π₀(z_{t−1}))

    E[w] = p(x) for every T, so log 1/C Σ w is biased downwards; more temperatures make the bias
    smaller. Importance sampling needs a good proposal, annealing does not: if π₀ is the prior, the
    guide is not used. Step sizes, one for each temperature and datum, are adapted in a separate
    run and then fixed. Without that, E[w] would not be p(x).

    Where latent variables are global, the whole data set is one datum, as in :func:`log_evidence`:
    the result is log p of all rows together.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); of a ``Data``, its test part is used.
        num_temperatures: T. The cost is T · (1 + num_leapfrog) gradients of C · N log joints.
        num_chains: C, at least 2.
        num_leapfrog: leapfrog steps of each Hamiltonian transition.
        start: the program that draws from π₀; by default the model, whose prior is then π₀. From
            the guide the path is shorter, but modes that the guide misses may stay missed.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of all draws.
        show_progress: whether to show the steps done.

    Raises:
        ValueError: if a number is too small, a latent site is discrete, or log p(x) is not defined
            (see :func:`log_evidence`).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> x = torch.randn(3, 5)
    >>> annealed = annealed_evidence(model, guide, x, num_temperatures=50)
    >>> bool(((annealed.log_px - model.log_prob(x)).abs() < 0.5).all())
    True
    """
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    start = called_like(model, start)
    settings = AnnealingSettings(num_temperatures, num_chains, num_leapfrog, start)
    block = max(1, CHAINS_PER_BLOCK // num_chains)
    total = 2 * num_temperatures * -(-len(rows[0]) // block)
    parts: list[Annealed] = []
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        structure: Structure | None = None
        with progress("annealing", total, show=show_progress) as advance:
            for begin in range(0, len(rows[0]), block):
                part = tuple(part[begin : begin + block] for part in rows)
                args = place(part, *placement(model, guide))
                structure = structure or inspect_local(model, guide, args)
                path = AnnealingPath(latent_space(model, guide, args, structure), settings, advance)
                with pyro.validation_enabled(False):
                    parts.append(path.forward(path.adapt()))
    return concatenate_blocks(parts, rows_of_set(model, rows))


def concatenate_blocks(parts: list[Annealed], set_rows: int = 0) -> Annealed:
    """Join the results of several blocks of data, in order."""
    names = ("log_px", "standard_error", "ess", "acceptance", "log_weight")
    joined = {name: torch.cat([vars(part)[name] for part in parts], dim=-1) for name in names}
    return Annealed(**joined, num_temperatures=parts[0].num_temperatures, set_rows=set_rows)
