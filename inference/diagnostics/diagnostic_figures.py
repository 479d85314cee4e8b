"""Pictures of diagnostics, each a matplotlib figure fit to print."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.plotting import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    SKY,
    counted,
    dots,
    grid,
    legend_below,
    marker_size,
    new_figure,
    only_say,
    say,
    short,
    signed,
    whole_ticks,
    write_below,
    write_beside,
)
from ..evidence.annealed_importance_sampling import Annealed
from ..evidence.importance_sampling import Evidence
from ..evidence.sandwich import Sandwich
from .inference_gap import InferenceGap
from .latent_information import IDLE_KL, LatentInformation
from .posterior_figures import plot_calibration, plot_checks, plot_coverage, plot_nuts

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .diagnosis import Diagnosis


KHAT = r"$\hat{k}$"
"""k̂ as matplotlib sets it well: its font puts the circumflex beside the letter."""


NAMED_DIMENSIONS = 20
"""Dimensions whose names are written, at most."""


def plot_khat(evidence: Evidence) -> "Figure":
    """Pareto k̂ of each datum, from the least to the largest, with its thresholds.

    >>> import torch
    >>> from latente.inference.evidence.importance_sampling import log_evidence
    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> figure = plot_khat(log_evidence(model, guide, torch.randn(30, 5)))
    >>> figure.axes[0].get_ylabel()
    'Pareto $\\\\hat{k}$'
    """
    if evidence.num_samples < 25:
        return only_say(f"S = {evidence.num_samples} is too small for Pareto {KHAT}")
    khat = evidence.khat.numpy()
    with new_figure(2.7) as (figure, (ax,)):
        _draw_khat(ax, np.sort(khat), evidence.khat_threshold)
        ax.set_title(
            f"{KHAT} is beyond its threshold for {evidence.khat_bad_fraction:.1%} of "
            f"{counted(len(khat), 'datum', 'data')} (S = {evidence.num_samples:,})"
        )
        write_below(ax, f"data, by {KHAT}", _not_drawn(khat))
        legend_below(figure, ax)
    return figure


def _draw_khat(ax: "Axes", khat: np.ndarray, threshold: float) -> None:
    """k̂ in the order given, with what is expected of them; only those that are finite."""
    place, size = np.arange(len(khat)), marker_size(len(khat))
    for chosen, marker, colour, label in (
        (khat <= threshold, "o", BLUE, "fine"),
        (khat > threshold, "^", RED, "bad"),
    ):
        shown = chosen & np.isfinite(khat)
        if shown.any():
            dots(ax, place[shown], khat[shown], marker, colour, size=size, label=label)
    for value, text, dashes, side in (
        (threshold, f"{threshold:.2f}: threshold", "--", "top"),
        (1.0, "1: infinite mean", ":", "bottom"),
    ):
        ax.axhline(value, color="black", linewidth=0.8, linestyle=dashes)
        ax.annotate(text, (1.01, value), xycoords=("axes fraction", "data"), va=side)
    finite = khat[np.isfinite(khat)]
    ax.set_ylim(min(0, finite.min(initial=0)) - 0.1, max(1.1, finite.max(initial=0) + 0.1))
    ax.set_xlim(-0.02 * len(khat) - 0.5, 1.02 * len(khat) - 0.5)
    ax.set_ylabel(f"Pareto {KHAT}")
    whole_ticks(ax)


def _not_drawn(khat: np.ndarray) -> str:
    """How many k̂ are not finite, and what that means."""
    groups = {
        "= −∞, all weights alike": khat == -math.inf,
        "= ∞, hardly any weight": khat == math.inf,
        "not to be had": np.isnan(khat),
    }
    told = [f"{KHAT} {what}: {some.sum():,}" for what, some in groups.items() if some.any()]
    return f"not drawn: {'; '.join(told)}" if told else ""


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
    >>> from latente.inference.evidence.importance_sampling import log_evidence
    >>> from latente.inference.evidence.annealed_importance_sampling import annealed_evidence
    >>> from latente.guides import ExactPosterior
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
        ax.set(title=counted(count, "datum", "data"), xlabel="datum", xlim=(-0.6, count - 0.4))
        ax.set_ylabel("nats above annealing")
        whole_ticks(ax)
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
    title = f"simulated data: {signed(f'{sandwich.gap:.2f}')} nats apart"
    ax.set(title=title, xlabel="simulated datum", xlim=(-0.6, len(place) - 0.4))
    ax.set_ylabel("nats about the middle")
    whole_ticks(ax)


def plot_gap(gap: InferenceGap) -> "Figure":
    """log p(x) − ELBO of each datum in its two parts, by size, and their means.

    Where the family cannot be taken apart: the whole, and what full-rank normals gain of it.

    >>> import torch
    >>> from latente.inference.diagnostics.inference_gap import inference_gap
    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> figure = plot_gap(inference_gap(model, guide, torch.randn(3, 5), num_steps=10))
    >>> len(figure.axes[0].patches)  # two parts of three data
    6
    """
    known = bool(gap.amortization.isfinite().any())
    shown = (gap.total + (gap.amortization if known else 0)).isfinite()
    total, gain = (part[shown].numpy() for part in (gap.total, gap.elbo_full_rank - gap.elbo))
    order, count = np.argsort(-total, kind="stable"), len(total)
    if known:
        parts = {
            "amortization: the encoder's": (gap.amortization[shown].numpy(), BLUE, None),
            "approximation: the family's": (gap.approximation[shown].numpy(), ORANGE, "///"),
        }
    else:
        parts = {"log p(x) − ELBO": (total, SKY, None)}
    if count == 0:
        return only_say(f"log p(x) − ELBO is not finite for any of {len(shown)} data")
    with grid(2.9, 1, 2, width_ratios=(3, 1.3)) as (figure, ((ax, means),)):
        bottom = np.zeros(count), np.zeros(1)
        for name, (values, colour, hatch) in parts.items():
            style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            # Noise can put a part below zero: it is then drawn downwards from there.
            ax.bar(np.arange(count), values[order], 0.9, bottom[0], label=name, **style)
            means.bar([0], values.mean(), 0.7, bottom[1], **style)
            bottom = bottom[0] + values[order], bottom[1] + values.mean()
        place = np.arange(count)
        if known:
            dots(ax, place, total[order], "_", "black", size=4, label="log p(x) − ELBO")
        else:
            label = "gained by full-rank normals"
            dots(ax, place, gain[order], "D", RED, size=marker_size(count), label=label)
            dots(means, [0], [gain.mean()], "D", RED, size=5)
        ax.set(ylabel="nats", xlim=(-0.6, max(count, 8) - 0.4))
        lost = len(shown) - count
        note = f"not drawn: {lost} whose gap is not finite" if lost else ""
        write_below(ax, "data, by log p(x) − ELBO", note)
        for panel in (ax, means):
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, -0.005), max(high, 0.1))  # next to nothing is to look like it
        _name_means(means, total, {name: values for name, (values, *_) in parts.items()})
        whole_ticks(ax)
        bad = int((gap.khat > 0.7).sum())
        note = f"; {KHAT} of log p(x) is above 0.7 for {bad}" if bad else ""
        ax.set_title(counted(count, "datum", "data") + note)
        legend_below(figure, ax, first=parts)
    return figure


def _name_means(ax: "Axes", total: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    """Write the means beside their bar."""
    error = total.std(ddof=1) / math.sqrt(len(total)) if len(total) > 1 else math.nan
    noise = f" ± {error:.2f}" if math.isfinite(error) else ""
    bottom, labels = 0.0, []
    for name, values in parts.items():
        middle, bottom = bottom + values.mean() / 2, bottom + values.mean()
        what = f" {name.split(':')[0]}" if len(parts) > 1 else ""
        labels.append((middle, signed(f"{values.mean():.2f}") + what))
    write_beside(ax, labels, 0.1)
    ax.set(xlim=(-0.5, 2.6), xticks=[], title=f"mean: {signed(f'{total.mean():.2f}')}{noise}")
    ax.hlines(0, -0.4, 0.4, color="black", linewidth=0.8)


def plot_information(information: LatentInformation) -> "Figure":
    """Mean KL of each latent dimension, and what the whole is made of against log N.

    >>> import torch
    >>> kl = torch.tensor([[2.0, 0.0], [1.0, 0.001]])
    >>> figure = plot_information(LatentInformation(("a", "b"), kl, {}, 0.6, 0.1, 0.9, 0.1))
    >>> figure.axes[0].get_title()
    '2 dimensions, 1 idle'
    """
    mean = information.kl.mean(0)
    lost = int((~mean.isfinite()).sum())
    mean = mean.nan_to_num(0.0, 0.0, 0.0).numpy()
    order = np.argsort(-mean, kind="stable")
    idle = np.array([information.names[index] in information.idle for index in order])
    place = np.arange(len(mean))
    with grid(2.9, 1, 2, width_ratios=(3, 1.3)) as (figure, ((ax, whole),)):
        for chosen, colour, hatch, label in (
            (~idle, BLUE, None, "in use"),
            (idle, ORANGE, "///", "idle"),
        ):
            if chosen.any():
                style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
                ax.bar(place[chosen], mean[order][chosen], 0.85, label=label, **style)
        # Linear up to the threshold, which would not be seen on a scale of nats.
        ax.set_yscale("symlog", linthresh=IDLE_KL, linscale=0.4)
        ax.set_ylim(min(0.0, 1.3 * mean.min(initial=0)), max(0.1, 1.6 * mean.max(initial=0)))
        _plain_ticks(ax)
        ax.axhline(
            IDLE_KL,
            color="black",
            linewidth=0.8,
            linestyle="--",
            label=f"idle below {IDLE_KL} nats",
        )
        ax.set(ylabel="mean KL, nats", xlim=(-0.6, max(len(mean), 4) - 0.4))
        note = f"not drawn: {lost} whose KL is not finite" if lost else ""
        write_below(ax, "latent dimensions, by KL", note)
        if len(mean) <= NAMED_DIMENSIONS:
            names = [short(information.names[index]) for index in order]
            crowded = len(names) * max(map(len, names)) > 40
            ax.set_xticks(
                place, names, rotation=60 if crowded else 0, ha="right" if crowded else "center"
            )
        else:
            whole_ticks(ax)
        many = counted(len(mean), "dimension", "dimensions")
        ax.set_title(f"{many}, {len(information.idle)} idle")
        _draw_whole(whole, information)
        legend_below(figure, ax, whole, columns=4)
    return figure


def _plain_ticks(ax: "Axes") -> None:
    """Numbers of nats in full, on a scale that is linear near zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.yaxis.set_major_locator(FixedLocator([-1, -0.1, 0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(f"{value:g}")))


def _draw_whole(ax: "Axes", information: LatentInformation) -> None:
    """I(x; z) and KL(q(z) ‖ p(z)), one on the other, against log N."""
    parts = (
        ("I(x; z)", information.mutual_information, information.mutual_information_error, BLUE),
        ("KL(q(z) ‖ p(z))", information.marginal_kl, information.marginal_kl_error, SKY),
    )
    bottom, labels = 0.0, []
    for name, value, error, colour in parts:
        if math.isfinite(value):
            ax.bar([0], [value], 0.7, bottom, color=colour)
            labels.append((bottom + value / 2, f"{name}\n{signed(f'{value:.2f}')}"))
            bottom += value
            if math.isfinite(error):
                ax.errorbar([0.2], [bottom], [error], color="black", linewidth=1)
    if not labels:
        say(ax, "I(x; z) is not\ndefined here")
        return
    label = f"log N = {information.limit:.2f}"
    ax.axhline(information.limit, color="black", linewidth=0.8, linestyle=":", label=label)
    ax.set(xlim=(-0.5, 2.2), xticks=[], ylabel="nats", title="all together")
    write_beside(ax, labels, 0.2)


def plot_loo(loo: "ELPDData") -> "Figure":
    """Pareto k̂ and log predictive density of each datum, left out.

    Args:
        loo: pointwise, as :func:`psis_loo` gives it.
    """
    khat, elpd = np.ravel(loo.pareto_k.values), np.ravel(loo.elpd_i.values)
    bad, place = ~(khat <= loo.good_k), np.arange(len(khat))
    with new_figure(2.8, columns=2) as (figure, axes):
        _draw_khat(axes[0], khat, loo.good_k)
        axes[0].set_title(f"{int(bad.sum())} of {len(khat):,} data are beyond the threshold")
        write_below(axes[0], "datum", _not_drawn(khat))
        for chosen, marker, colour in ((~bad, "o", BLUE), (bad, "^", RED)):
            if (chosen & np.isfinite(elpd)).any():
                size = marker_size(len(elpd))
                dots(axes[1], place[chosen], elpd[chosen], marker, colour, size=size)
        axes[1].set(ylabel="log predictive density, nats")
        each, error = (signed(f"{value / len(elpd):.3f}") for value in (loo.elpd, loo.se))
        axes[1].set_title(f"{each} ± {error} nats each")
        lost = int((~np.isfinite(elpd)).sum())
        write_below(axes[1], "datum", f"not drawn: {lost} that are not finite" if lost else "")
        whole_ticks(axes[1])
        legend_below(figure, axes[0])
    return figure


def plot_diagnosis(diagnosis: "Diagnosis") -> "dict[str, Figure]":
    """All pictures that apply to a diagnosis, by the name of their file, in the report's order."""
    found: dict[str, Any] = {}
    if diagnosis.evidence is not None:
        found["evidence"] = plot_khat(diagnosis.evidence)
        if diagnosis.annealed is not None:
            found["annealing"] = plot_evidence_methods(
                diagnosis.evidence, diagnosis.annealed, diagnosis.sandwich
            )
    if diagnosis.gap is not None:
        found["gap"] = plot_gap(diagnosis.gap)
    if diagnosis.information is not None:
        found["information"] = plot_information(diagnosis.information)
    if diagnosis.calibration is not None:
        found["calibration"] = plot_calibration(diagnosis.calibration)
        found["coverage"] = plot_coverage(diagnosis.calibration)
    if diagnosis.nuts is not None:
        found["nuts"] = plot_nuts(diagnosis.nuts)
    if diagnosis.checks or diagnosis.prior_checks:
        found["checks"] = plot_checks(diagnosis.checks, diagnosis.prior_checks)
    if diagnosis.loo is not None:
        found["loo"] = plot_loo(diagnosis.loo)
    return found
