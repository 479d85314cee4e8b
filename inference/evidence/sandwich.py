"""Bidirectional annealing: lower and upper bounds on log p(x) of simulated data."""

from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor

from ..common.progress import progress
from ..pairs.latent_space import latent_space
from ..pairs.programs import Program, evaluating
from ..simulation.simulate import simulate
from .annealed_importance_sampling import CHAINS_AT_ONCE, Annealed, check_settings, join_rows
from .annealing_path import AnnealingPath, AnnealingSettings
from .importance_sampling import inspect_local


@dataclass(frozen=True)
class Sandwich:
    """log p(x) of simulated data between two bounds (bidirectional Monte Carlo), in nats."""

    lower: Annealed
    """Annealed from the start to the posterior: a lower bound on average."""
    upper: Annealed
    """From the posterior, of which the latent variables that made x are a draw, back to the start:
    ``log_px`` is an upper bound on average. Its standard errors are those of the chains, the draw
    that all of them begin at taken as given."""
    data: tuple[Tensor, ...] = field(repr=False)
    """The simulated x, and the contexts it was given."""

    @property
    def gap(self) -> float:
        """Mean of upper − lower: by how much the annealing can be off, on average."""
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
    seed: int = 0,
    show_progress: bool = False,
) -> Sandwich:
    """Log p(x) of data drawn from the model, between a lower and an upper bound.

    Of x ~ p(x|z), z ~ p(z), the z that made it is one exact draw of p(z|x). Annealed from there to
    π₀, the weights are an unbiased estimate of 1 / p(x), so minus the logarithm of their mean is an
    upper bound on average (Grosse, Ghahramani and Adams 2015, arXiv 1511.02543). How far the
    two are apart says how far annealing with these settings can be trusted on this model, where the
    real data are like the model's own.

    Args:
        like: data whose shape, and contexts, the simulated ones take.
        num_data: how many are simulated.

    The other arguments, and what is raised, are those of :func:`annealed_evidence`; a ValueError
    also tells if the model observes more, or other things, than x.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> sandwich = bidirectional_evidence(model, guide, torch.zeros(1, 5), num_temperatures=100)
    >>> exact = model.log_prob(sandwich.data[0]).mean().item()
    >>> sandwich.lower.mean - 0.1 < exact < sandwich.upper.mean + 0.1
    True
    """
    check_settings(num_temperatures, num_chains, num_leapfrog)
    args, latents = simulate(model, guide, like, num_data, seed=seed)
    settings = AnnealingSettings(num_temperatures, num_chains, num_leapfrog, start)
    block = max(1, CHAINS_AT_ONCE // num_chains)
    total = 3 * num_temperatures * -(-num_data // block)
    lower, upper = [], []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        structure = inspect_local(model, guide, args)
        drawn = latent_space(model, guide, args, structure).locate(latents)
        with progress("annealing both ways", total, show=show_progress) as advance:
            for begin in range(0, num_data, block):
                part = tuple(value[begin : begin + block] for value in args)
                path = AnnealingPath(latent_space(model, guide, part, structure), settings, advance)
                with pyro.validation_enabled(False):
                    schedule = path.explore()
                    lower.append(path.forward(schedule))
                    upper.append(path.backward(schedule, drawn[:, begin : begin + block]))
    return Sandwich(join_rows(lower), join_rows(upper), args)
