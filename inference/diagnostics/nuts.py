"""Does the guide agree with NUTS? Posteriors of a few data by Markov chains."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from scipy.stats import norm
from torch import Tensor

from ..common.arguments import check_least
from ..common.plotting import (
    BLUE,
    RED,
    counted,
    dots,
    legend_below,
    new_figure,
    num_bins,
    shorten,
)
from ..common.progress import progress
from ..data.whole_set import open_posterior, rows_of_set
from ..evidence.importance_sampling import inspect_local
from ..pairs.latent_space import latent_space
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .finding import Finding, Level, name_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COORDINATES = 2_000
"""The most latent coordinates, of all data together, that one chain moves."""


CONVERGED_RHAT, CONVERGED_ESS = 1.05, 100
"""R̂ below which, and effective draws above which, a coordinate has converged."""


GUIDE_DRAWS = 4_000
"""Draws of the guide, whose moments are compared with those of the chains."""


WARMUP_STEPS = 200
"""Warm-up steps of a chain in a diagnosis."""


BAD_MISS_SHARE = 0.5
"""Share of the coordinates that the guide misses, above which the finding is bad."""


SHOWN_MARGINALS = 6
"""The most marginals that are drawn."""


@dataclass(frozen=True)
class NUTSReference:
    """Posteriors of M data by the No-U-Turn sampler, and the guide's beside them.

    All numbers are in the K unconstrained coordinates of a datum's latent variables; tensors are
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
    set_rows: int = 0
    """Rows of the data set, where it is one datum as latent variables are global; else 0."""

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
        return (self.rhat < CONVERGED_RHAT) & (self.ess > CONVERGED_ESS)

    def misses(self, *, tolerance: float = 0.2, level: float = 0.95) -> Tensor:
        """Where the guide's mean is off by more than ``tolerance`` standard deviations, or the
        ratio of standard deviations by more than ``tolerance`` from 1, noise apart.

        With the exact posterior as the guide, the probability that any of the M · K coordinates
        is marked is at most 1 − ``level`` (Bonferroni). Coordinates that have not converged are
        never marked.

        Returns:
            Booleans (M, K).
        """
        quantile = float(norm.isf((1 - level) / (4 * self.mean.numel())))
        count = len(self.guide_draws)
        mean_error = (1 / self.ess + self.ratio.square() / count).sqrt()
        # Of a normal; with half of the effective draws, as squares are more correlated.
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
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> NUTSReference:
    """Sample z | x of a few data by Pyro's NUTS, from starting points drawn from the guide.

    The data are independent given the model, so one chain moves the latent variables of all of them
    at once. What the guide's family misses shows in moments and marginals side by side. A mode that
    no chain starts near is missed by both.

    Where latent variables are global, the whole data set is one datum, as in :func:`log_evidence`:
    give all the rows that the guide was fitted to.

    Args:
        data: x (M, *event_shape), or a tuple (x, *context), of a few data.
        num_samples: draws of each chain that are kept.
        warmup_steps: steps before, in which step size and scales adapt.
        num_chains: at least 2, for R̂.
        data_plate: the name of the plate over the data, where two plates fit.
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
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
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
    size = rows_of_set(model, rows)
    return _summarize(tuple(space.names), torch.stack(chains), guide_draws, divergences, size)


def _summarize(
    names: tuple[str, ...], draws: Tensor, guide_draws: Tensor, divergences: int, set_rows: int
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
        set_rows=set_rows,
    )


def judge_nuts(nuts: NUTSReference) -> list[Finding]:
    """Whether the guide's moments are those of the posterior."""
    of_data = name_data(len(nuts.mean), nuts.set_rows)
    misses, settled = nuts.misses(), nuts.converged
    if not settled.any():
        text = (
            f"NUTS has not converged on any coordinate of {of_data} (R̂ up to "
            f"{nuts.rhat.max():.2f}, as few as {nuts.ess.min():.0f} effective draws): take more."
        )
        return [Finding("NUTS", Level.NOTE, text)]
    said = (
        f"Compared with NUTS on {of_data}, the guide's standard deviations "
        f"are {nuts.ratio[settled].median():.2f} times as large and its means are off by "
        f"{nuts.shift[settled].abs().median():.2f} standard deviations (medians); "
        f"{int(misses.sum())} of {int(settled.sum())} coordinates are off by more than a fifth "
        "plus noise"
    )
    if not settled.all():
        said += f"; {int((~settled).sum())} have not converged and are left out"
    share = misses.sum() / settled.sum()
    level = Level.GOOD if share == 0 else Level.WARNING if share <= BAD_MISS_SHARE else Level.BAD
    return [Finding("NUTS", level, f"{said}.")]


def plot_nuts(nuts: NUTSReference) -> "Figure":
    """The guide's marginals on those of NUTS, where they differ most; and the moments of all.

    On the right, the dashed box is what :meth:`NUTSReference.misses` tolerates, noise apart.

    >>> import torch
    >>> draws, one = torch.randn(2, 200, 1, 1).double(), torch.ones(1, 1).double()
    >>> nuts = NUTSReference(("z",), 0 * one, one, 0 * one, one, one, 400 * one, 0, draws, draws[0])
    >>> figure = plot_nuts(nuts)
    >>> figure.axes[0].get_title()
    'datum 0, z'
    """
    chosen = _most_off(nuts)
    columns = min(3, len(chosen))
    with new_figure(3.4) as (figure, (ax,)):
        ax.remove()
        halves: Any = figure.subfigures(1, 2, width_ratios=(0.9 * max(columns, 1), 2.0))
        left, right = halves
        panels = left.subplots(-(-len(chosen) // 3) or 1, max(columns, 1), squeeze=False).ravel()
        for ax in panels[len(chosen) :]:
            ax.remove()
        for ax, (datum, index) in zip(panels, chosen, strict=False):
            _draw_marginal(ax, nuts, datum, index)
        moments = right.subplots()
        _draw_moments(moments, nuts)
        legend_below(figure, panels[0], moments)
    return figure


def _most_off(nuts: NUTSReference) -> list[tuple[int, int]]:
    """Datum and coordinate of the marginals that differ most; where chains have settled, first."""
    off = np.maximum(nuts.shift.abs().numpy(), np.abs(np.log(nuts.ratio.clamp(1e-9).numpy())))
    off = np.where(np.isfinite(off), off, -1) + 1e6 * nuts.converged.numpy()
    order = np.argsort(-off, axis=None, kind="stable")[:SHOWN_MARGINALS]
    pairs = np.stack(np.unravel_index(order, off.shape), axis=1).tolist()
    return [(datum, index) for datum, index in pairs]


def _draw_marginal(ax: "Axes", nuts: NUTSReference, datum: int, index: int) -> None:
    chains = nuts.draws[..., datum, index].numpy().ravel()
    guide = nuts.guide_draws[:, datum, index].numpy()
    chains, guide = chains[np.isfinite(chains)], guide[np.isfinite(guide)]
    both = [np.quantile(draws, (0.002, 0.998)) for draws in (chains, guide) if len(draws)]
    low, high = (np.min(both), np.max(both)) if both else (0.0, 1.0)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 1 + num_bins(len(chains)))
    for draws, style in (
        (chains, {"color": "0.75", "fill": True, "label": "NUTS"}),
        (guide, {"color": BLUE, "linewidth": 1.2, "label": "guide"}),
    ):
        height = np.histogram(draws, edges)[0] / max(len(draws), 1) / (edges[1] - edges[0])
        ax.stairs(height, edges, **style)
    settled = bool(nuts.converged[datum, index])
    which = "" if nuts.set_rows else f"datum {datum}, "
    ax.set_title(which + shorten(nuts.names[index]) + ("" if settled else "\nnot converged"))
    ax.set(yticks=[], ylim=(0, None))
    ax.spines.left.set_visible(False)
    ax.locator_params(axis="x", nbins=3)


def _draw_moments(ax: "Axes", nuts: NUTSReference) -> None:
    """Shift and ratio of all coordinates."""
    from matplotlib.ticker import NullLocator, ScalarFormatter

    shift, ratio = nuts.shift.numpy(), np.clip(nuts.ratio.numpy(), 0.01, 100)
    known = np.isfinite(shift) & np.isfinite(ratio)
    misses, settled = nuts.misses().numpy(), nuts.converged.numpy()
    ax.axhline(1, color="0.4", linewidth=0.8)
    ax.axvline(0, color="0.4", linewidth=0.8)
    box = {"facecolor": "none", "edgecolor": "0.6", "linewidth": 0.8, "linestyle": "--"}
    ax.fill([-0.2, 0.2, 0.2, -0.2], [0.8, 0.8, 1.2, 1.2], **box, label="within a fifth")
    for shown, marker, colour, label in (
        (~settled & known, "x", "0.6", "NUTS has not converged"),
        (settled & known & ~misses, "o", BLUE, "fine, or within noise"),
        (settled & known & misses, "^", RED, "off, beyond noise"),
    ):
        if shown.any():
            dots(ax, shift[shown], ratio[shown], marker, colour, size=4, label=label)
    reach = max(0.5, 1.1 * np.abs(shift[known]).max(initial=0))
    spread = max(math.log(1.5), 1.1 * np.abs(np.log(ratio[known])).max(initial=0))
    limits = math.exp(-spread), math.exp(spread)
    ax.set(xlim=(-reach, reach), yscale="log", ylim=limits)
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.3, 0.5, 0.65, 0.8, 1, 1.2, 1.5, 2, 3, 10, 30, 100)
             if limits[0] <= tick <= limits[1]]  # fmt: skip
    ax.set_yticks(ticks)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.set(
        title=counted(nuts.mean.numel(), "coordinate", "coordinates"),
        ylabel="sd of guide / sd of NUTS",
    )
    ax.set_xlabel("shift of the mean / sd of NUTS")


def _run(context: DiagnosticContext) -> NUTSReference:
    return nuts_posterior(
        *context.pair,
        context.first(context.budget.nuts_data),
        num_samples=context.budget.nuts_samples,
        warmup_steps=WARMUP_STEPS,
        seed=context.seed,
        show_progress=context.show_progress,
    )


def _numbers(nuts: NUTSReference) -> list[Number]:
    ratio = nuts.ratio[nuts.converged].median().item()  # NaN of none
    return [
        Number("nuts_sd_ratio", ratio, "sd of the guide / sd by NUTS, median"),
        Number("nuts_rhat", nuts.rhat.max().item(), "R̂ of NUTS, largest"),
    ]


NUTS_REFERENCE = Diagnostic(
    name="nuts",
    question="Does the guide agree with NUTS?",
    topics=("NUTS",),
    run=_run,
    judge=judge_nuts,
    figures=(
        DiagnosticFigure(
            "nuts",
            "Left: the guide's marginals on those of NUTS, where they differ most, in "
            "unconstrained coordinates (the logarithm of a positive variable). Right: all "
            "coordinates. Good: in the dashed box, or near it. Below it the guide is too narrow, "
            "above it too wide, to the left or right its mean is shifted. Where NUTS has not "
            "converged, nothing can be said.",
            plot_nuts,
        ),
    ),
    numbers=_numbers,
    per_datum=True,
    applies=lambda context: context.budget.nuts_data > 0,
)
"""Means and standard deviations of the guide beside those of Markov chains."""
