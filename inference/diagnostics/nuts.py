"""NUTS for a few data: their posteriors by Markov chains, beside the guide's."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from scipy.stats import norm
from torch import Tensor

from ..common.arguments import check_least
from ..common.progress import progress
from ..data.datasets import evaluation_rows
from ..evidence.importance_sampling import inspect_local
from ..pairs.latent_space import latent_space
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating

MAX_COORDINATES = 2_000
"""Coordinates of all data together that one chain can be asked to move."""


GUIDE_DRAWS = 4_000
"""Draws of the guide, whose moments are held against the chains'."""


@dataclass(frozen=True)
class NUTSReference:
    """Posteriors of M data by the No-U-Turn sampler, and the guide's beside them.

    All of it is in the K unconstrained coordinates of a datum's latent variables; tensors are
    (M, K), float64, on CPU.
    """

    names: tuple[str, ...]
    """The coordinates."""
    mean: Tensor
    """Posterior means by the chains."""
    sd: Tensor
    """Posterior standard deviations by the chains."""
    guide_mean: Tensor
    """The guide's means."""
    guide_sd: Tensor
    """The guide's standard deviations."""
    rhat: Tensor
    """Rank-normalized split R̂ of the chains (Vehtari et al. 2021)."""
    ess: Tensor
    """Bulk effective sample size of the chains."""
    divergences: int
    """Transitions of all chains that diverged."""
    draws: Tensor = field(repr=False)
    """The chains' draws, (C, S, M, K)."""
    guide_draws: Tensor = field(repr=False)
    """The guide's draws, (S′, M, K)."""

    @property
    def shift(self) -> Tensor:
        """(Guide's mean − mean) / standard deviation."""
        return (self.guide_mean - self.mean) / self.sd

    @property
    def ratio(self) -> Tensor:
        """Guide's standard deviation / standard deviation: below 1, it is too narrow."""
        return self.guide_sd / self.sd

    @property
    def converged(self) -> Tensor:
        """Whether a coordinate's R̂ is below 1.05 and its effective sample size above 100."""
        return (self.rhat < 1.05) & (self.ess > 100)

    def misses(self, *, tolerance: float = 0.2, level: float = 0.95) -> Tensor:
        """Where the guide's mean is off by more than so many standard deviations, or the ratio of
        the two is beyond 1 ± as much; beyond what the noise of all draws explains.

        With the exact posterior for a guide, the probability that any of the M · K coordinates
        shows is at most 1 − ``level`` (Bonferroni). Coordinates that have not converged never do.

        Returns:
            Booleans (M, K).
        """
        quantile = float(norm.isf((1 - level) / (4 * self.mean.numel())))
        count = len(self.guide_draws)
        mean_error = (1 / self.ess + self.ratio.square() / count).sqrt()
        # Of a normal; half a chain's effective draws, as its squares are more correlated.
        ratio_error = self.ratio * (1 / self.ess + 1 / (2 * count)).sqrt()
        off = self.shift.abs() > tolerance + quantile * mean_error
        narrow = self.ratio < 1 - tolerance - quantile * ratio_error
        wide = self.ratio > 1 + tolerance + quantile * ratio_error
        return (off | narrow | wide) & self.converged


def nuts_posterior(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 500,
    warmup_steps: int = 300,
    num_chains: int = 2,
    seed: int = 0,
    show_progress: bool = False,
) -> NUTSReference:
    """Sample z | x of a few data by Pyro's NUTS, from the guide's draws on.

    The data are independent given the model, so one chain moves the latent variables of all of them
    at once. What the guide's family misses shows in the moments and marginals beside each other. A
    mode that no chain starts near stays missed by both.

    Args:
        data: x (M, *event_shape), or a tuple (x, *context), of a few data.
        num_samples: draws of each chain that are kept.
        warmup_steps: steps before, in which step size and scales adapt.
        num_chains: at least 2, so that R̂ can tell.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, the data are too many, a latent site is discrete, or
            the posterior of one datum is not defined (see :func:`log_evidence`).

    >>> from latente.guides import ExactPosterior
    >>> from latente.models import PPCA
    >>> model = PPCA(5, 2)
    >>> nuts = nuts_posterior(model, ExactPosterior(model), torch.randn(2, 5), num_samples=200)
    >>> bool(nuts.misses().any())
    False
    """
    check_least(
        {
            "num_samples": (num_samples, 10),
            "warmup_steps": (warmup_steps, 10),
            "num_chains": (num_chains, 2),
        }
    )
    rows = evaluation_rows(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        space = latent_space(model, guide, args, inspect_local(model, guide, args))
        if space.num_data * space.size > MAX_COORDINATES:
            raise ValueError(
                f"{space.num_data} data of {space.size} latent coordinates each are too many for "
                f"one chain: give some {max(1, MAX_COORDINATES // space.size)} data at most"
            )
        guide_draws = space.draw(guide, GUIDE_DRAWS)[0].double().cpu()
        starts = space.draw(guide, num_chains)[0]

        def potential(values: dict[str, Tensor]) -> Tensor:
            log_likelihood, log_prior = space.log_joint(values["u"][None])
            return -(log_likelihood + log_prior).sum()

        chains, divergences = [], 0
        total = num_chains * (warmup_steps + num_samples)
        with progress("NUTS", total, show=show_progress) as advance, torch.enable_grad():
            for start in starts:
                kernel = NUTS(potential_fn=potential, max_tree_depth=8)
                chain = MCMC(
                    kernel,
                    num_samples,
                    warmup_steps,
                    initial_params={"u": start},
                    disable_progbar=True,
                    hook_fn=lambda _, __, stage, step: advance(1, f"{stage} {step}"),
                )
                chain.run()
                chains.append(chain.get_samples()["u"].detach().double().cpu())
                divergences += len(chain.diagnostics()["divergences"]["chain 0"])
    return _summarize(tuple(space.names), torch.stack(chains), guide_draws, divergences)


def _summarize(
    names: tuple[str, ...], draws: Tensor, guide_draws: Tensor, divergences: int
) -> NUTSReference:
    from arviz_stats.base import array_stats  # pyright: ignore # slow to import

    both: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    return NUTSReference(
        names=names,
        mean=draws.mean((0, 1)),
        sd=draws.flatten(0, 1).std(0),
        guide_mean=guide_draws.mean(0),
        guide_sd=guide_draws.std(0),
        rhat=torch.from_numpy(np.asarray(array_stats.rhat(draws.numpy(), **both))),
        ess=torch.from_numpy(np.asarray(array_stats.ess(draws.numpy(), **both))),
        divergences=divergences,
        draws=draws,
        guide_draws=guide_draws,
    )
