"""Can importance weights be trusted? Evidence of each datum with the guide as proposal, and k̂."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..common.plotting import counted, legend_below, new_figure, text_figure, write_below
from ..evidence.importance_sampling import Evidence, log_evidence
from ..evidence.pareto_smoothing import KHAT_MIN_SAMPLES
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number, per_datum
from .finding import Finding, Level
from .khat import KHAT_LABEL, draw_khat, judge_khat_share, khat_not_drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset


def _run(context: DiagnosticContext) -> Evidence:
    """Importance-sampled evidence of all rows."""
    return log_evidence(
        *context.pair,
        context.rows,
        num_samples=context.budget.num_samples,
        seed=context.seed,
        show_progress=context.show_progress,
    )


def judge_evidence(evidence: Evidence) -> list[Finding]:
    """Whether importance weights can be trusted."""
    count = counted(len(evidence.log_px), "datum", "data")
    if evidence.exact:
        text = f"log p(x) = {evidence.mean:.2f} nats per datum, exactly ({count})."
        return [Finding("evidence", Level.GOOD, text)]
    said = (
        f"log p(x) = {evidence.mean:.2f} ± {evidence.mean_standard_error:.2f} nats per datum by "
        f"importance sampling ({count}, S = {evidence.num_samples:,})"
    )
    if evidence.num_samples < KHAT_MIN_SAMPLES:
        return [Finding("evidence", Level.NOTE, f"{said}. {evidence.sample_size_warning}")]
    share, threshold = evidence.khat_bad_fraction, evidence.khat_threshold
    level = judge_khat_share(share)
    if level == Level.GOOD:
        which = "no datum" if share == 0 else f"{share:.1%} of the data"
        said = f"{said}; Pareto k̂ is above {threshold:.2f} for {which}."
    else:
        said = (
            f"{said}; but Pareto k̂ is above {threshold:.2f} for {share:.1%} of the data: the guide "
            "is too narrow somewhere, or so wide that few draws count, and their log p(x) is "
            f"likely too low, by more than its ± says. {evidence.sample_size_warning}".rstrip()
        )
    return [Finding("evidence", level, said)]


def plot_khat(evidence: Evidence) -> "Figure":
    """Pareto k̂ of each datum, from the least to the largest, with its thresholds.

    >>> import torch
    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> figure = plot_khat(log_evidence(model, guide, torch.randn(30, 5)))
    >>> figure.axes[0].get_ylabel()
    'Pareto $\\\\hat{k}$'
    """
    if evidence.num_samples < KHAT_MIN_SAMPLES:
        return text_figure(f"S = {evidence.num_samples} is too small for Pareto {KHAT_LABEL}")
    khat = evidence.khat.numpy()
    with new_figure(2.7) as (figure, (ax,)):
        draw_khat(ax, np.sort(khat), evidence.khat_threshold)
        ax.set_title(
            f"{KHAT_LABEL} is beyond its threshold for {evidence.khat_bad_fraction:.1%} of "
            f"{counted(len(khat), 'datum', 'data')} (S = {evidence.num_samples:,})"
        )
        write_below(ax, f"data, by {KHAT_LABEL}", khat_not_drawn(khat))
        legend_below(figure, ax)
    return figure


def _numbers(evidence: Evidence) -> list[Number]:
    """The main numbers."""
    share = evidence.khat_bad_fraction
    return [
        Number(
            "log_evidence",
            evidence.mean,
            "log p(x), importance sampling",
            "nats per datum",
            error=evidence.mean_standard_error,
        ),
        Number("elbo", evidence.elbo, "ELBO", "nats per datum"),
        Number(
            "khat_bad_fraction",
            share,
            "Pareto k̂ beyond its threshold",
            "of the data",
            text=f"{share:.1%}",
        ),
        Number("num_data", len(evidence.log_px)),
        Number("num_samples", evidence.num_samples),
    ]


def _groups(evidence: Evidence) -> "Mapping[str, Dataset]":
    """Evidence, its errors and the ELBO of each datum."""
    names = ("log_px", "standard_error", "ess", "khat", "log_px_smoothed")
    values = {name: getattr(evidence, name) for name in names}
    values["elbo"] = evidence.reconstruction - evidence.kl
    return {"evidence": per_datum(values)}


IMPORTANCE_WEIGHTS = Diagnostic(
    name="evidence",
    question="Can importance weights be trusted?",
    topics=("evidence",),
    run=_run,
    judge=judge_evidence,
    figures=(
        DiagnosticFigure(
            "evidence",
            "Pareto k̂ of each datum's importance weights. Good: all below the dashed threshold. "
            "Above it, the guide is too narrow for that datum, and the estimate of log p(x) is "
            "likely too low. Above 1, more draws do not help.",
            plot_khat,
        ),
    ),
    numbers=_numbers,
    groups=_groups,
    per_datum=True,
    required=True,
)
"""Pareto k̂ of the importance weights. It runs first, because it also checks the pair."""
