"""Does the guide agree with NUTS? Posteriors of a few data by Markov chains."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
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
from ..common.progress import Advance, progress
from ..common.seeding import set_seed
from ..data.whole_set import open_posterior, rows_of_set
from ..evidence.importance_sampling import inspect_local
from ..execution.recorded_gradient import record_gradient
from ..pairs.checks import narrower_sites
from ..pairs.coordinates import OpenCircle, cut_opposite, direction
from ..pairs.latent_space import LatentSpace, hold_idle, latent_space
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .finding import Finding, Level, name_data
from .modes import Modes, Particles, annealed_particles, find_modes, start_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COORDINATES = 2_000
"""The most latent coordinates, of all data together, that one chain moves."""


CONVERGED_RHAT, CONVERGED_ESS = 1.05, 100
"""R̂ below which, and effective draws above which, a coordinate has converged."""


GUIDE_DRAWS = 4_000
"""Draws of the guide, whose moments are compared with those of the chains."""


BAD_MISS_SHARE = 0.5
"""Share of the coordinates that the guide misses, above which the finding is bad."""


SHOWN_MARGINALS = 6
"""The most marginals that are drawn."""


@dataclass(frozen=True)
class NUTSReference:
    """Posteriors of M data by the No-U-Turn sampler, and the guide's beside them.

    All numbers are in the K unconstrained coordinates of a datum's latent variables; tensors are
    (M, K), float64, on CPU. A circle is cut opposite to the mean direction of the chains' draws,
    so that angles astride ±π lie together. Where a draw's value is the edge of a support, up to
    rounding, the nearest value that is not takes its place, for chains and guide alike.
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
    masked: Tensor | None = field(default=None, repr=False)
    """Coordinates that the model masks, and on which nothing depends: they have no posterior, and
    are left out. ``None`` if there are none."""
    modes: Modes | None = field(default=None, repr=False)
    """Where chains that started apart stay apart; ``None`` where that was not looked at."""

    @property
    def judged(self) -> Tensor:
        """The coordinates that have a posterior: all but the masked ones."""
        return torch.ones_like(self.mean, dtype=torch.bool) if self.masked is None else ~self.masked

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
        return (self.rhat < CONVERGED_RHAT) & (self.ess > CONVERGED_ESS) & self.judged

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
        # With half of the effective draws, as squares are more correlated.
        of_chains, of_guide = _excess(self.draws.flatten(0, 1)), _excess(self.guide_draws)
        ratio_error = self.ratio * (of_chains / self.ess + of_guide / (2 * count)).sqrt()
        off = self.shift.abs() > tolerance + quantile * mean_error
        narrow = self.ratio < 1 - tolerance - quantile * ratio_error
        wide = self.ratio > 1 + tolerance + quantile * ratio_error
        return (off | narrow | wide) & self.converged


def _excess(draws: Tensor) -> Tensor:
    """How much larger the variance of a squared deviation is than a normal's, (kurtosis − 1) / 2.

    At least 1: the logarithm of a Gamma variable of small shape, for example, has heavy tails.
    """
    away = (draws - draws.mean(0)).square()
    return ((away.square().mean(0) / away.mean(0).square() - 1) / 2).nan_to_num(1.0).clamp(1.0)


def nuts_posterior(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 500,
    warmup_steps: int = 300,
    num_chains: int = 2,
    num_temperatures: int = 100,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> NUTSReference:
    """Sample z | x of a few data by Pyro's NUTS, from starting points that lie apart.

    The data are independent given the model, so one chain moves the latent variables of all of them
    at once. What the guide's family misses shows in moments and marginals side by side. Every other
    chain starts at a draw of the guide, and the rest far from it, at points that were annealed from
    the prior to the posterior (:func:`annealed_evidence`). Chains that stay where they started show
    that there are several modes, and the annealed points tell how much each weighs. A mode that
    annealing does not find either stays unseen.

    Where latent variables are global, the whole data set is one datum, as in :func:`log_evidence`:
    give all the rows that the guide was fitted to.

    Args:
        data: x (M, *event_shape), or a tuple (x, *context), of a few data.
        num_samples: draws of each chain that are kept.
        warmup_steps: steps before, in which step size and scales adapt.
        num_chains: at least 2, for R̂.
        num_temperatures: of the annealing; with 0, all chains start at draws of the guide.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, the data are too many, a latent site is discrete, a
            posterior ends within its prior's support, or the posterior of one datum is not
            defined (see :func:`log_evidence`).

    >>> from latente.guides import ExactPosterior
    >>> from latente.models import PPCA
    >>> model = PPCA(5, 2)
    >>> short = {"num_samples": 100, "warmup_steps": 50, "num_temperatures": 10}
    >>> nuts = nuts_posterior(model, ExactPosterior(model), torch.randn(2, 5), **short)
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
        set_seed(seed)
        space = latent_space(model, guide, args, inspect_local(model, guide, args))
        _refuse_walls(model, guide, args)
        if space.num_data * space.size > MAX_COORDINATES:
            raise ValueError(
                f"{space.num_data} data of {space.size} latent coordinates each are too many for "
                f"one chain: give some {max(1, MAX_COORDINATES // space.size)} data at most"
            )
        guide_draws = space.near(space.draw(guide, GUIDE_DRAWS)[0])
        starts = space.near(space.draw(guide, num_chains)[0])
        settings = num_samples, warmup_steps
        total = num_chains * sum(settings) + 2 * num_temperatures
        with progress("NUTS", total, show=show_progress) as advance, torch.enable_grad():
            particles = annealed_particles(space, num_temperatures, advance)
            starts = start_apart(starts, particles, space.circular)
            # Circles are cut where chains seldom come.
            likely = guide_draws if particles is None else particles.likely
            draws, divergences = _run_chains(space, starts, direction(likely), settings, advance)
        found = _summarize(space, draws, guide_draws, particles, divergences)
    return replace(found, set_rows=rows_of_set(model, rows))


def _run_chains(
    space: LatentSpace,
    starts: Tensor,
    centre: Tensor,
    settings: tuple[int, int],
    advance: Advance,
) -> tuple[Tensor, int]:
    """Draws of a chain from each starting point, (C, S, M, K), and how many transitions diverged.

    Args:
        centre: where circles are not cut, (M, K). On an uncut one chains would go round and round.
        settings: draws that are kept, and steps before.
    """
    circular, opened = space.circular, OpenCircle(centre)
    circles = circular.nonzero().flatten()  # found here: a recording cannot look at values

    def closed(points: Tensor) -> Tensor:
        return torch.where(circular, opened(points), points)  # pyright: ignore

    def negative_log_joint(line: Tensor) -> Tensor:
        line = line[None]
        points = closed(line) if len(circles) else line
        log_likelihood, log_prior = space.log_joint(points)
        total = (log_likelihood + log_prior + hold_idle(space, points)).sum()
        if len(circles):
            total = total + opened.log_abs_det_jacobian(line, points)[..., circles].sum()
        return -total

    # Pyro's handlers take longer than the arithmetic of one datum.
    energy = record_gradient(negative_log_joint)

    def potential(values: dict[str, Tensor]) -> Tensor:
        return energy(values["u"])

    chains, divergences = [], 0
    for start in torch.where(circular, opened.inv(starts), starts):  # pyright: ignore
        chain = MCMC(
            NUTS(potential_fn=potential, max_tree_depth=8),
            *settings,
            initial_params={"u": start},
            disable_progbar=True,
            hook_fn=lambda _, __, stage, step: advance(1, f"{stage} {step}"),
        )
        chain.run()
        chains.append(space.near(closed(chain.get_samples()["u"].detach())))
        divergences += len(chain.diagnostics()["divergences"]["chain 0"])
    return torch.stack(chains), divergences


def _refuse_walls(model: Program, guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a posterior that ends within its prior's support, at a wall that NUTS runs into."""
    for name in narrower_sites(model, guide, args):
        raise ValueError(
            f"the posterior of {name!r} ends within the support of its prior, as the guide says, "
            "and NUTS needs a density that has no such walls: write the site as a transform of a "
            "variable whose support does not depend on the data"
        )


def _summarize(
    space: LatentSpace,
    draws: Tensor,
    guide_draws: Tensor,
    particles: Particles | None,
    divergences: int,
) -> NUTSReference:
    draws, guide_draws = draws.double().cpu(), guide_draws.double().cpu()
    centre = direction(draws.flatten(0, 1))

    def on_a_line(points: Tensor) -> Tensor:
        """Coordinates with each circle cut opposite to the mean direction of the chains."""
        return torch.where(space.circular, cut_opposite(points, centre), points)

    draws, guide_draws = on_a_line(draws), on_a_line(guide_draws)
    if particles is not None:
        points = on_a_line(space.near(particles.points).double().cpu())
        particles = Particles(points, particles.weight.double().cpu())
    masked = None if space.idle is None else space.idle.cpu()
    rhat, ess = _converge(draws)
    judged = torch.ones_like(rhat, dtype=torch.bool) if masked is None else ~masked
    return NUTSReference(
        names=tuple(space.names),
        mean=draws.mean((0, 1)),
        sd=draws.flatten(0, 1).std(0),
        guide_mean=guide_draws.mean(0),
        guide_sd=guide_draws.std(0),
        rhat=rhat,
        ess=ess,
        divergences=divergences,
        draws=draws,
        guide_draws=guide_draws,
        masked=masked,
        modes=find_modes(draws, guide_draws, particles, judged),
    )


def _converge(draws: Tensor) -> tuple[Tensor, Tensor]:
    """R̂ and effective sample size of chains (C, S, M, K): each (M, K)."""
    from arviz_stats.base import array_stats  # pyright: ignore # slow to import

    both: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    rhat, ess = array_stats.rhat(draws.numpy(), **both), array_stats.ess(draws.numpy(), **both)
    return torch.from_numpy(np.asarray(rhat)), torch.from_numpy(np.asarray(ess))


def judge_nuts(nuts: NUTSReference) -> list[Finding]:
    """Whether the guide's moments are those of the posterior, and its modes."""
    of_data = name_data(len(nuts.mean), nuts.set_rows)
    misses, settled, judged = nuts.misses(), nuts.converged, nuts.judged
    modes = _judge_modes(nuts.modes)
    if not settled.any():
        found = f"R̂ up to {nuts.rhat[judged].max():.2f}" if judged.any() else "all are masked"
        text = (
            f"NUTS has not converged on any coordinate of {of_data} ({found}, as few as "
            f"{nuts.ess[judged].min():.0f} effective draws): take more."
            if judged.any()
            else f"All coordinates of {of_data} are masked."
        )
        return [modes or Finding("NUTS", Level.NOTE, text)]
    said = (
        f"Compared with NUTS on {of_data}, the guide's standard deviations "
        f"are {nuts.ratio[settled].median():.2f} times as large and its means are off by "
        f"{nuts.shift[settled].abs().median():.2f} standard deviations (medians); "
        f"{int(misses.sum())} of {int(settled.sum())} coordinates are off by more than a fifth "
        f"plus noise{_by_site(nuts.names, misses)}"
    )
    if (judged & ~settled).any():
        said += f"; {int((judged & ~settled).sum())} have not converged and are left out"
    share = misses.sum() / settled.sum()
    level = Level.GOOD if share == 0 else Level.WARNING if share <= BAD_MISS_SHARE else Level.BAD
    if modes:
        # A mode of its own says more than the moments beside it.
        level = max(level, modes.level if modes.level == Level.BAD else level)
        said += f". {modes.sentence.rstrip('.')}"
    return [Finding("NUTS", level, f"{said}.")]


def _by_site(names: tuple[str, ...], misses: Tensor) -> str:
    """How many coordinates are missed at each site, if there are several.

    >>> _by_site(("z2", "z1[0]", "z1[1]"), torch.tensor([[False, True, True]]))
    ' (z1: 2)'
    """
    sites = [name.partition("[")[0] for name in names]
    missed = Counter(sites[index] for index in misses.nonzero()[:, -1].tolist())
    if not missed or len({*sites}) == 1:
        return ""
    return f" ({', '.join(f'{name}: {count}' for name, count in missed.items())})"


def _judge_modes(modes: Modes | None) -> Finding | None:
    """What is said of coordinates in which chains stay in different modes."""
    if modes is None or not modes.apart.any():
        return None
    missed, apart = modes.missed(), modes.apart
    said = (
        f"Chains of NUTS that started apart stay in different modes of {int(apart.sum())} of "
        f"{counted(apart.numel(), 'coordinate', 'coordinates')}"
    )
    if missed.any():
        off = (modes.guide_share - modes.annealed_share).abs().amax(0)
        where = torch.where(missed, off, -1.0).flatten().argmax()
        chain = (modes.guide_share - modes.annealed_share).flatten(1)[:, where].argmin()
        guide, annealed = (
            share.flatten(1)[chain, where].item()
            for share in (modes.guide_share, modes.annealed_share)
        )
        text = (
            f"{said}: of one of them, the guide has {guide:.0%} of its draws where annealing finds "
            f"{annealed:.0%} of the posterior."
        )
        return Finding("NUTS", Level.BAD, text)
    if modes.error.isnan().any():
        return Finding("NUTS", Level.NOTE, f"{said}; how much each weighs is not known.")
    text = f"{said}; the guide's draws are divided among them as annealing says, up to noise."
    return Finding("NUTS", Level.NOTE, text)


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
        warmup_steps=context.budget.nuts_warmup,
        num_temperatures=context.budget.nuts_temperatures,
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
    judges_draws=True,
    applies=lambda context: context.budget.nuts_data > 0,
)
"""Means and standard deviations of the guide beside those of Markov chains."""
