"""Can importance weights be trusted? Evidence of each datum with the guide as proposal, and k̂."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..common.plotting import legend_below, new_figure, text_figure, write_below
from ..evidence.importance_sampling import Evidence, log_evidence
from ..evidence.pareto_smoothing import KHAT_MIN_SAMPLES
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number, per_datum
from .finding import Finding, Level, name_data, per_what
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
    count = name_data(len(evidence.log_px), evidence.set_rows)
    if evidence.exact:
        unit = per_what(evidence.set_rows)
        text = f"log p(x) = {evidence.mean:.2f} {unit}, exactly ({count})."
        return [Finding("evidence", Level.GOOD, text)]
    if evidence.point_masses:
        text = (
            f"log p(x) ≥ {evidence.mean:.2f} {per_what(evidence.set_rows)}, the ELBO ({count}): "
            "the guide puts a mass of 1 on one value of "
            f"{evidence.point_masses[0]!r}, so weights say "
            "nothing of the distance; enumerated_evidence is exact where the values are few."
        )
        return [Finding("evidence", Level.NOTE, text)]
    said = (
        f"log p(x) = {evidence.mean:.2f} ± {evidence.mean_standard_error:.2f} "
        f"{per_what(evidence.set_rows)} by importance sampling ({count}, "
        f"S = {evidence.num_samples:,})"
    )
    if evidence.num_samples < KHAT_MIN_SAMPLES:
        return [Finding("evidence", Level.NOTE, f"{said}. {evidence.sample_size_warning}")]
    share, threshold = evidence.khat_bad_fraction, evidence.khat_threshold
    khat = _write_khat(evidence.khat.max().item())
    level = judge_khat_share(share)
    if level == Level.GOOD:
        which = "no datum" if share == 0 else f"{share:.1%} of the data"
        about = f"Pareto k̂ is above {threshold:.2f} for {which}"
        if evidence.set_rows:
            about = f"Pareto k̂ of the joint weights is {khat}, and fine up to {threshold:.2f}"
        said = f"{said}; {about}."
    else:
        about = f"Pareto k̂ is above {threshold:.2f} for {share:.1%} of the data"
        if evidence.set_rows:
            about = f"Pareto k̂ of the joint weights is {khat}, above {threshold:.2f}"
        said = (
            f"{said}; but {about}: the guide is too narrow somewhere, or so wide that few draws "
            f"count, and {'this' if evidence.set_rows else 'their'} log p(x) is likely too low, by "
            f"more than its ± says. {evidence.sample_size_warning}".rstrip()
        )
    return [Finding("evidence", level, said)]


def _write_khat(khat: float) -> str:
    """A k̂ in words.

    >>> _write_khat(0.5), _write_khat(-math.inf)
    ('0.50', '−∞ (all weights are alike)')
    """
    if khat == -math.inf:
        return "−∞ (all weights are alike)"
    return "∞" if khat == math.inf else f"{khat:.2f}"


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
        count, share = name_data(len(khat), evidence.set_rows), evidence.khat_bad_fraction
        title = f"{KHAT_LABEL} is beyond its threshold for {share:.1%} of {count}"
        if evidence.set_rows:
            ax.set_xticks([])
            title = f"{KHAT_LABEL} = {_write_khat(khat.max())} of {count}"
        ax.set_title(f"{title} (S = {evidence.num_samples:,})")
        below = "joint weights" if evidence.set_rows else f"data, by {KHAT_LABEL}"
        write_below(ax, below, khat_not_drawn(khat))
        legend_below(figure, ax)
    return figure


def _numbers(evidence: Evidence) -> list[Number]:
    """The main numbers."""
    share, unit = evidence.khat_bad_fraction, per_what(evidence.set_rows)
    khat = Number(
        "khat_bad_fraction",
        share,
        "Pareto k̂ beyond its threshold",
        "of the data",
        text=f"{share:.1%}",
    )
    if evidence.set_rows:
        khat = Number("khat", evidence.khat.max().item(), "Pareto k̂ of the joint weights")
    return [
        Number(
            "log_evidence",
            evidence.mean,
            "log p(x), importance sampling",
            unit,
            error=evidence.mean_standard_error,
        ),
        Number("elbo", evidence.elbo, "ELBO", unit),
        khat,
        Number("num_data", evidence.set_rows or len(evidence.log_px)),
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
            "Pareto k̂ of each datum's importance weights (of the joint weights, where latent "
            "variables are global and the whole data set is one datum). Good: all below the dashed "
            "threshold. Above it, the guide is too narrow for that datum, and the estimate of log "
            "p(x) is likely too low. Above 1, more draws do not help.",
            plot_khat,
        ),
    ),
    numbers=_numbers,
    groups=_groups,
    per_datum=True,
    required=True,
)
"""Pareto k̂ of the importance weights. It runs first, because it also checks the pair."""
