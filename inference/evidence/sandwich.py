"""Bidirectional annealing: bound log p(x) of simulated data from below and from above."""

from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from torch import Tensor

from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.arguments import called_like
from ..data.whole_set import open_posterior, rows_of_set
from ..pairs.calling import give_back
from ..pairs.kept_rows import check_amortized
from ..pairs.latent_space import latent_space
from ..pairs.programs import Program, evaluating
from ..simulation.simulate import simulate
from .annealed_importance_sampling import CHAINS_PER_BLOCK, concatenate_blocks
from .annealing_path import Annealed, AnnealingPath, AnnealingSettings
from .importance_sampling import inspect_local


@dataclass(frozen=True)
class Sandwich:
    """log p(x) of simulated data between two bounds (bidirectional Monte Carlo), in nats."""

    lower: Annealed
    """Annealed from π₀ to the posterior: ``log_px`` is a lower bound on average."""
    upper: Annealed
    """Annealed from the posterior back to π₀: ``log_px`` is an upper bound on average. All chains
    of a datum start at one draw of its posterior, the latent variables that it was simulated from;
    the standard errors are conditional on that draw."""
    data: tuple[Tensor, ...] = field(repr=False)
    """The simulated x, and its contexts; where latent variables are global, each of the simulated
    data is a whole data set."""

    @property
    def gap(self) -> float:
        """Mean of upper − lower: the largest error of the annealing, on average."""
        return self.upper.mean - self.lower.mean


def bidirectional_evidence(
    model: Program,
    guide: Program,
    like: Any,
    *,
    num_data: int = 16,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Program | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Sandwich:
    """Bound log p(x) of data simulated from the model, from below and from above.

    If z ~ p(z) and x ~ p(x|z), then z is one exact draw of p(z|x). Weights annealed from there to
    π₀ estimate 1 / p(x) without bias, so minus the logarithm of their mean is an upper bound on
    average (Grosse, Ghahramani and Adams 2015, arXiv 1511.02543). The gap between the bounds shows
    how accurate annealing with these settings is on this model, as far as real data are like
    simulated ones.

    Where latent variables are global, whole data sets are simulated, and each is one datum, as in
    :func:`log_evidence`.

    Args:
        like: data whose shape and contexts the simulated data take.
        num_data: number of simulated data.

    The other arguments are those of :func:`annealed_evidence`.

    Raises:
        ValueError: as :func:`annealed_evidence` and :func:`latente.inference.simulate` do; the
            latter if the model observes more than x, or something else.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> sandwich = bidirectional_evidence(model, guide, torch.zeros(1, 5), num_temperatures=50)
    >>> exact = model.log_prob(sandwich.data[0]).mean().item()
    >>> sandwich.lower.mean - 0.1 < exact < sandwich.upper.mean + 0.1
    True
    """
    as_given = model
    model, guide, rows = open_posterior(model, guide, like, data_plate=data_plate)
    start = called_like(model, start)
    settings = AnnealingSettings(num_temperatures, num_chains, num_leapfrog, start)
    check_amortized(guide)
    args, latents = simulate(model, guide, rows, num_data, seed=seed)
    size = rows_of_set(model, rows)
    block = 1 if size else max(1, CHAINS_PER_BLOCK // num_chains)
    total = 3 * num_temperatures * -(-num_data // block)
    lower, upper = [], []
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed + 1)
        first = tuple(value[:1] for value in args) if size else args
        structure = inspect_local(model, guide, first)
        drawn = replace(latent_space(model, guide, first, structure), args=args).locate(latents)
        with progress("annealing both ways", total, show=show_progress) as advance:
            for begin in range(0, num_data, block):
                part = tuple(value[begin : begin + block] for value in args)
                path = AnnealingPath(latent_space(model, guide, part, structure), settings, advance)
                with pyro.validation_enabled(False):
                    ladder = path.adapt()
                    lower.append(path.forward(ladder))
                    upper.append(path.backward(ladder, drawn[:, begin : begin + block]))
    args = give_back(as_given, model, args)
    return Sandwich(concatenate_blocks(lower, size), concatenate_blocks(upper, size), args)
