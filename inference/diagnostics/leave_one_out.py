"""How well is each datum predicted by the others? PSIS-LOO of pairs with global variables."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..common.plotting import (
    BLUE,
    RED,
    dots,
    integer_ticks,
    legend_below,
    marker_size,
    new_figure,
    signed,
    write_below,
)
from ..evaluation.leave_one_out import psis_loo
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .finding import Finding, Level
from .khat import draw_khat, judge_khat_share, khat_not_drawn

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData
    from matplotlib.figure import Figure


def judge_loo(loo: "ELPDData") -> list[Finding]:
    """How well each datum is predicted by the others, and whether that estimate can be trusted."""
    khat = torch.as_tensor(loo.pareto_k.values.copy())
    share = 1 - (khat <= loo.good_k).double().mean().item()  # NaN counts as beyond it
    count = loo.n_data_points
    said = (
        f"Left out one by one, the {count} data have an expected log predictive density of "
        f"{loo.elpd / count:.3f} ± {loo.se / count:.3f} nats each"
    )
    level = judge_khat_share(share)
    if level == Level.GOOD:
        said = f"{said}; Pareto k̂ is fine."
    else:
        said = (
            f"{said}; but Pareto k̂ is above {loo.good_k:.2f} for {share:.0%} of them: the fitted "
            "posterior of the shared variables is too far from the one without that datum, or from "
            "the exact one."
        )
    return [Finding("leaving one out", level, said)]


def plot_loo(loo: "ELPDData") -> "Figure":
    """Pareto k̂ and log predictive density of each datum, left out.

    Args:
        loo: pointwise, as :func:`psis_loo` gives it.
    """
    khat, elpd = np.ravel(loo.pareto_k.values), np.ravel(loo.elpd_i.values)
    bad, place = ~(khat <= loo.good_k), np.arange(len(khat))
    with new_figure(2.8, columns=2) as (figure, axes):
        draw_khat(axes[0], khat, loo.good_k)
        axes[0].set_title(f"{int(bad.sum())} of {len(khat):,} data are beyond the threshold")
        write_below(axes[0], "datum", khat_not_drawn(khat))
        for chosen, marker, colour in ((~bad, "o", BLUE), (bad, "^", RED)):
            if (chosen & np.isfinite(elpd)).any():
                size = marker_size(len(elpd))
                dots(axes[1], place[chosen], elpd[chosen], marker, colour, size=size)
        axes[1].set(ylabel="log predictive density, nats")
        each, error = (signed(f"{value / len(elpd):.3f}") for value in (loo.elpd, loo.se))
        axes[1].set_title(f"{each} ± {error} nats each")
        lost = int((~np.isfinite(elpd)).sum())
        write_below(axes[1], "datum", f"not drawn: {lost} that are not finite" if lost else "")
        integer_ticks(axes[1])
        legend_below(figure, axes[0])
    return figure


def _run(context: DiagnosticContext) -> "ELPDData":
    with warnings.catch_warnings():  # of k̂, which is judged afterwards
        warnings.simplefilter("ignore", UserWarning)
        return psis_loo(
            *context.pair,
            context.data,
            num_samples=context.budget.num_samples,
            seed=context.seed,
            show_progress=context.show_progress,
        )


def _numbers(loo: "ELPDData") -> list[Number]:
    label = "expected log predictive density, all data"
    return [Number("elpd_loo", float(loo.elpd), label, "nats", error=float(loo.se))]


LEAVE_ONE_OUT = Diagnostic(
    name="loo",
    question="How well is each datum predicted by the others?",
    topics=("leaving one out",),
    run=_run,
    judge=judge_loo,
    figures=(
        DiagnosticFigure(
            "loo",
            "Left: Pareto k̂ of leaving each datum out. Good: all below the dashed threshold. Above "
            "it, the estimate in the right panel cannot be trusted. Right: log predictive density "
            "of each datum given the others. Data far below the rest are predicted badly.",
            plot_loo,
        ),
    ),
    numbers=_numbers,
    # Without a shared variable, the other data say nothing about a datum.
    applies=lambda context: not context.all_local,
)
"""Leave-one-out densities of a pair with a global latent variable."""
