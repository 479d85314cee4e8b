"""Does annealing find what the guide misses? Annealed beside importance-sampled evidence."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..common.plotting import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    dots,
    integer_ticks,
    legend_below,
    marker_size,
    new_figure,
    signed,
)
from ..evidence.annealed_importance_sampling import Annealed, annealed_evidence
from ..evidence.importance_sampling import Evidence
from ..evidence.sandwich import Sandwich, bidirectional_evidence
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .finding import TOLERATED_NATS, Finding, Level, in_nats, name_data, per_what

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_LEAPFROG = 5
"""Leapfrog steps of a Hamiltonian transition."""


MAX_SANDWICH_GAP = 1.0
"""Nats between the two annealed bounds above which the annealing is too short to be trusted."""


BAD_MISSED_NATS = 1.0
"""Nats per datum that the guide misses, above which the finding is bad."""


MISSED_ERRORS = 3.0
"""Standard errors that a difference must exceed to be more than noise."""


@dataclass(frozen=True)
class Annealing:
    """Annealed evidence of the first data, and what it is compared with."""

    annealed: Annealed
    """Of the first N data."""
    sandwich: Sandwich | None
    """Annealed bounds on simulated data; ``None`` where no data can be simulated."""
    evidence: Evidence
    """Importance-sampled evidence of the same data, and of others after them."""

    @property
    def missed(self) -> float:
        """Annealed less importance-sampled log p(x), mean over the data: what the guide misses."""
        return (self.annealed.log_px - self._weighed(self.evidence.log_px)).mean().item()

    @property
    def missed_error(self) -> float:
        """Monte Carlo standard error of :attr:`missed`."""
        error = self._weighed(self.evidence.standard_error)
        both = self.annealed.standard_error.square() + error.square()
        return both.sum().sqrt().item() / len(error)

    def _weighed(self, values: Tensor) -> Tensor:
        return values[: len(self.annealed.log_px)]


def _run(context: DiagnosticContext) -> Annealing:
    """Anneal the first data, and as many simulated ones."""
    evidence, budget = context.result("evidence"), context.budget
    annealed = annealed_evidence(
        *context.pair,
        context.first(budget.annealed_data),
        num_temperatures=budget.temperatures,
        num_chains=budget.chains,
        num_leapfrog=NUM_LEAPFROG,
        seed=context.seed,
        show_progress=context.show_progress,
    )
    sandwich = None
    # Where no data can be simulated, there are no bounds from both sides.
    with contextlib.suppress(ValueError):
        sandwich = bidirectional_evidence(
            *context.pair,
            context.rows,
            num_data=budget.annealed_sets if annealed.set_rows else budget.annealed_data,
            num_temperatures=budget.temperatures,
            num_chains=budget.chains,
            num_leapfrog=NUM_LEAPFROG,
            seed=context.seed,
            show_progress=context.show_progress,
        )
    return Annealing(annealed, sandwich, evidence)


def judge_annealing(found: Annealing) -> list[Finding]:
    """Whether the guide misses what annealing finds."""
    more, noise, sandwich = found.missed, found.missed_error, found.sandwich
    count = len(found.annealed.log_px)
    size = found.annealed.set_rows
    of_data = name_data(count, size) if size else f"the first {count} data"
    simulated = "data sets" if size else "data"
    said = (
        "Annealed importance sampling, which does not use the guide, gives "
        f"{found.annealed.mean:.2f} nats on {of_data}; "
        f"importance sampling gives {in_nats(abs(more))} ± {noise:.2f} "
        f"{'less' if more > 0 else 'more'}"
    )
    if sandwich is not None:
        said += (
            f"; on {simulated} simulated from the model, the two annealed bounds are "
            f"{in_nats(sandwich.gap)} nats apart"
        )
    enough = max(TOLERATED_NATS, MISSED_ERRORS * noise)
    if (sandwich is not None and sandwich.gap > MAX_SANDWICH_GAP) or more < -enough:
        why = "with these temperatures annealing is too short to say anything about the guide."
        return [Finding("annealing", Level.NOTE, f"{said}: {why}")]
    if more > enough:
        level = Level.BAD if more > BAD_MISSED_NATS else Level.WARNING
        return [Finding("annealing", level, f"{said}: the guide misses some of the posterior.")]
    return [Finding("annealing", Level.GOOD, f"{said}: the two agree within noise.")]


def plot_evidence_methods(
    evidence: Evidence, annealed: Annealed, sandwich: Sandwich | None = None
) -> "Figure":
    """log p(x) in three ways, as differences from annealing; and annealing's own two bounds.

    On the left ELBO, importance sampling and annealing of the first data, with two standard errors.
    On the right, for simulated data, the lower and the upper bound about the middle of the two.

    Args:
        evidence: of at least the data that were annealed, in the same order.

    Raises:
        ValueError: if there are fewer data in ``evidence`` than in ``annealed``.

    >>> import torch
    >>> from latente.guides import ExactPosterior
    >>> from latente.inference import log_evidence
    >>> from latente.models import PPCA
    >>> model, x = PPCA(5, 2), torch.randn(4, 5)
    >>> annealed = annealed_evidence(model, ExactPosterior(model), x, num_temperatures=10)
    >>> figure = plot_evidence_methods(log_evidence(model, ExactPosterior(model), x), annealed)
    >>> figure.axes[0].get_title()
    '4 data'
    """
    count = len(annealed.log_px)
    if len(evidence.log_px) < count:
        raise ValueError(
            f"evidence is of {len(evidence.log_px)} data, annealed of {count}: give the evidence "
            "of the same data"
        )
    place, base = np.arange(count), annealed.log_px.numpy()
    elbo = (evidence.reconstruction - evidence.kl)[:count].numpy() - base
    weighed = evidence.log_px[:count].numpy() - base
    with new_figure(2.9, columns=1 if sandwich is None else 2) as (figure, axes):
        ax = axes[0]
        two = 2 * annealed.standard_error.numpy()
        style = {"color": GREY, "linewidth": 4, "alpha": 0.8}
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.vlines(place, -two, two, **style, label="annealing, ± 2 errors")
        ax.errorbar(
            place,
            weighed,
            2 * evidence.standard_error[:count].numpy(),
            color=BLUE,
            fmt="o",
            markersize=marker_size(count),
            linewidth=1,
            label="importance sampling, ± 2 errors",
        )
        dots(ax, place + 0.2, elbo, "v", RED, size=marker_size(count), label="ELBO")
        of_data = name_data(count, annealed.set_rows)
        ax.set(title=of_data, xlabel="datum", xlim=(-0.6, count - 0.4))
        if annealed.set_rows:
            ax.set(xlabel="", xticks=[])
        ax.set_ylabel("nats above annealing")
        if not annealed.set_rows:
            integer_ticks(ax)
        if sandwich is not None:
            _draw_sandwich(axes[1], sandwich)
        legend_below(figure, *axes)
    return figure


def _draw_sandwich(ax: "Axes", sandwich: Sandwich) -> None:
    """Both bounds of simulated data, about their middle."""
    lower, upper = sandwich.lower.log_px.numpy(), sandwich.upper.log_px.numpy()
    half, place = (upper - lower) / 2, np.arange(len(lower))
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.vlines(place, -half, half, color=GREY, linewidth=1)
    for height, bound, marker, label in (
        (half, sandwich.upper, "v", "upper bound, ± 2 errors"),
        (-half, sandwich.lower, "^", "lower bound, ± 2 errors"),
    ):
        error = 2 * bound.standard_error.numpy()
        style: dict[str, Any] = {"fmt": marker, "linewidth": 1, "label": label}
        style["markersize"] = marker_size(len(place))
        ax.errorbar(place, height, error, color=ORANGE if marker == "v" else "black", **style)
    kind = "data sets" if sandwich.lower.set_rows else "data"
    title = f"simulated {kind}: {signed(f'{sandwich.gap:.2f}')} nats apart"
    ax.set(
        title=title,
        xlabel="simulated data set" if sandwich.lower.set_rows else "simulated datum",
        xlim=(-0.6, len(place) - 0.4),
    )
    ax.set_ylabel("nats about the middle")
    integer_ticks(ax)


def _plot(found: Annealing) -> "Figure":
    """:func:`plot_evidence_methods` of a result."""
    return plot_evidence_methods(found.evidence, found.annealed, found.sandwich)


def _numbers(found: Annealing) -> list[Number]:
    """The main numbers."""
    size = found.annealed.set_rows
    annealed = Number(
        "annealed_evidence",
        found.annealed.mean,
        "log p(x), annealing" if size else "log p(x), annealing, of the first data",
        per_what(size),
        error=found.annealed.mean_standard_error,
    )
    if found.sandwich is None:
        return [annealed] if size else []
    kind = "data sets" if size else "data"
    return [
        annealed,
        Number(
            "sandwich_gap",
            found.sandwich.gap,
            f"gap between the two annealed bounds, simulated {kind}",
            "nats per data set" if size else "nats per datum",
        ),
    ]


ANNEALING = Diagnostic(
    name="annealing",
    question="Does annealing find what the guide misses?",
    topics=("annealing",),
    run=_run,
    judge=judge_annealing,
    figures=(
        DiagnosticFigure(
            "annealing",
            "Left: log p(x) by importance sampling and the ELBO, minus log p(x) by annealing. "
            "Good: importance sampling within the grey bars. Below them, the guide misses some of "
            "the posterior; above them, annealing was too short. Right: the two annealed bounds "
            "on simulated data. They are far apart where annealing was too short.",
            _plot,
        ),
    ),
    numbers=_numbers,
    per_datum=True,
    judges_draws=True,
    applies=lambda context: context.budget.annealed_data > 0,
)
"""Annealed evidence, which does not use the guide, beside importance-sampled evidence."""
