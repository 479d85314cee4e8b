"""Pictures of how a guide's posterior compares: with ranks, with chains, and with the data."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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
    new_figure,
    short,
)
from .calibration import Calibration
from .judgement import unlike
from .nuts import NUTSReference
from .predictive_checks import PredictiveCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NAMED_CURVES = 5
"""Quantities that get a colour and a name of their own, at most."""


SHOWN_MARGINALS = 6
"""Marginals of the chains that are drawn, at most."""


_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


_COLOURS = (RED, BLUE, "#009E73", "#CC79A7", "black")


def plot_calibration(calibration: Calibration) -> "Figure":
    """Ranks of z* on simulated data: ECDF of u minus u, as drawn and re-weighted.

    All lines stay in the band with probability ``calibration.level`` if the guide is the posterior.
    Of those that leave it, the :data:`NAMED_CURVES` that go furthest are named.

    >>> import torch
    >>> u = (torch.arange(100.0)[:, None].double() + 0.5) / 100
    >>> u = torch.cat([u**3, u, u], 1)
    >>> names = ("z", "log q(z|x)", "log p(x, z)")
    >>> figure = plot_calibration(Calibration(names, u, u, u[:, 0], 99, 0.95))
    >>> [text.get_text() for text in figure.legends[0].get_texts()][0]
    'z: biased high'
    """
    panels = {
        "as the guide draws them": (calibration.ecdf(), calibration.miscalibrated),
        "re-weighted": (calibration.ecdf(weighted=True), calibration.weighted_miscalibrated),
    }
    band = calibration.band()
    points = np.concatenate([[0.0], band.points.numpy(), [1.0]])
    below = np.concatenate([[0.0], (band.lower - band.points).numpy(), [0.0]])
    above = np.concatenate([[0.0], (band.upper - band.points).numpy(), [0.0]])
    told = _furthest(calibration)
    with new_figure(3.1, columns=2) as (figure, axes):
        for ax, (title, (ecdf, outside)) in zip(axes, panels.items(), strict=True):
            label = f"{calibration.level:.0%} band for all lines together"
            ax.fill_between(points, below, above, color="0.88", linewidth=0, label=label)
            curves = (ecdf - band.points[:, None]).numpy()
            curves = np.pad(curves, ((1, 1), (0, 0)))
            for name, curve in zip(calibration.names, curves.T, strict=True):
                ax.plot(points, curve, **_line(name, outside, told))
            count = f"{len(outside)} of {len(calibration.names)} outside"
            ax.set(title=f"{title}: {count}", xlabel="u, the rank of z* as a share", xlim=(0, 1))
        axes[1].sharey(axes[0])
        axes[0].set_ylabel("ECDF(u) − u")
        legend_below(figure, *axes, columns=2, first=told.values())
    return figure


def _furthest(calibration: Calibration) -> dict[str, str]:
    """The quantities that leave the band the furthest, and what to call them in the legend."""
    band, beyond = calibration.band(), np.zeros(len(calibration.names))
    for weighted in (False, True):
        ecdf = calibration.ecdf(weighted=weighted)
        apart = torch.maximum(ecdf - band.upper[:, None], band.lower[:, None] - ecdf)
        beyond = np.maximum(beyond, apart.max(0).values.numpy())
    plain, weighted = calibration.miscalibrated, calibration.weighted_miscalibrated
    words = {name: f"{name}: re-weighted, {word}" for name, word in weighted.items()}
    words |= {name: f"{name}: {word}" for name, word in plain.items()}
    order = [calibration.names[index] for index in np.argsort(-beyond, kind="stable")]
    return {name: words[name] for name in [name for name in order if name in words][:NAMED_CURVES]}


def _line(name: str, outside: Mapping[str, str], told: dict[str, str]) -> dict[str, Any]:
    """How a quantity's ECDF is drawn."""
    if name not in outside:
        return {"color": GREY, "linewidth": 0.6, "label": "inside"}
    if name not in told:
        return {"color": ORANGE, "linewidth": 0.6, "label": "others outside"}
    index = list(told).index(name)
    style = {"color": _COLOURS[index], "linestyle": _STYLES[index]}
    return {**style, "linewidth": 1.4, "zorder": 3, "label": told[name]}


def plot_coverage(calibration: Calibration) -> "Figure":
    """How often z* lies in credible regions of each nominal level, as drawn and re-weighted.

    A thin line is a coordinate's central interval, the thick one the region of highest density of
    all z. Beside the diagonal, what chance leaves of it at any one level.

    >>> import torch
    >>> u = (torch.arange(100.0)[:, None].double() + 0.5).expand(-1, 3) / 100
    >>> names = ("z", "log q(z|x)", "log p(x, z)")
    >>> figure = plot_coverage(Calibration(names, u, u, u[:, 0], 99, 0.95))
    >>> [ax.get_title() for ax in figure.axes]
    ['as the guide draws them', 're-weighted']
    """
    levels = np.arange(1, 50) / 50
    chance = 1.96 * np.sqrt(levels * (1 - levels) / len(calibration.pit))
    with new_figure(3.5, columns=2) as (figure, axes):
        for ax, weighted in zip(axes, (False, True), strict=True):
            share = calibration.coverage(tuple(levels), weighted=weighted).share.numpy()
            low, high = np.clip([levels - chance, levels + chance], 0, 1)
            label = "95% of chance, at one level"
            ax.fill_between(levels, low, high, color="0.88", linewidth=0, label=label)
            label = "exact (below: too narrow, above: too wide)"
            ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label=label)
            for row in share[:-1]:
                ax.plot(levels, row, color=SKY, linewidth=0.8, label="interval of a coordinate")
            ax.plot(levels, share[-1], color=RED, linewidth=2, label="region of highest density")
            title = "re-weighted" if weighted else "as the guide draws them"
            ax.set(title=title, xlabel="nominal level", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes[0].set_ylabel("share of simulations inside")
        legend_below(figure, *axes, columns=2)
    return figure


def plot_nuts(nuts: NUTSReference) -> "Figure":
    """The guide's posteriors on those of NUTS, where they differ most; and moments of all of them.

    On the right, the dashed box is what :meth:`NUTSReference.misses` lets pass, noise apart.

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
    edges = np.linspace(low, high, 1 + _bins(len(chains)))
    for draws, style in (
        (chains, {"color": "0.75", "fill": True, "label": "NUTS"}),
        (guide, {"color": BLUE, "linewidth": 1.2, "label": "guide"}),
    ):
        height = np.histogram(draws, edges)[0] / max(len(draws), 1) / (edges[1] - edges[0])
        ax.stairs(height, edges, **style)
    settled = bool(nuts.converged[datum, index])
    ax.set_title(
        f"datum {datum}, {short(nuts.names[index])}" + ("" if settled else "\nnot converged")
    )
    ax.set(yticks=[], ylim=(0, None))
    ax.spines.left.set_visible(False)
    ax.locator_params(axis="x", nbins=3)


def _bins(count: int) -> int:
    """Of a histogram: few where there is little to show (the rule of Rice)."""
    return int(np.clip(math.ceil(2 * count ** (1 / 3)), 5, 30))


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


def plot_checks(
    checks: Mapping[str, PredictiveCheck] | None,
    prior_checks: Mapping[str, PredictiveCheck] | None = None,
) -> "Figure":
    """Quantities of the data (lines) in those of data sets drawn anew (histograms).

    Each histogram is as high as its panel, so that a narrow and a wide one both show.

    Raises:
        ValueError: if there is no quantity.

    >>> import torch
    >>> check = PredictiveCheck(30.0, torch.randn(100).double())
    >>> figure = plot_checks({"largest": check})
    >>> figure.axes[0].get_title()
    'largest\\nposterior: p = 0.00, unlike'
    """
    both = {"posterior": checks or {}, "prior": prior_checks or {}}
    names = list(dict.fromkeys([*both["posterior"], *both["prior"]]))
    if not names:
        raise ValueError("there is no quantity to draw: give the checks of predictive_check")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with grid(0.4 + 1.55 * rows, rows, columns) as (figure, axes):
        panels = axes.ravel()
        for ax in panels[len(names) :]:
            ax.remove()
        odd = {distribution: unlike(checks) for distribution, checks in both.items()}
        for ax, name in zip(panels, names, strict=False):
            found = {
                distribution: checks[name]
                for distribution, checks in both.items()
                if name in checks
            }
            _draw_check(
                ax,
                name,
                found,
                {distribution for distribution in found if name in odd[distribution]},
            )
        legend_below(figure, *panels[: len(names)])
    return figure


def _draw_check(ax: "Axes", name: str, found: Mapping[str, PredictiveCheck], odd: set[str]) -> None:
    """One quantity; ``found`` by the distribution that its replications are drawn from, ``odd`` of
    which it is unlike."""
    observed = next(iter(found.values())).observed
    values = np.concatenate([[observed], *[check.replicated.numpy() for check in found.values()]])
    low, high = values.min(), values.max()
    pad = 0.06 * (high - low) or 0.5 * max(1.0, abs(low))
    lines = [name]
    for distribution, check in found.items():
        drawn = check.replicated.numpy()
        # What does not vary gets one bar that can be seen.
        edges: Any = (
            _bins(len(drawn))
            if np.ptp(drawn) > 1e-3 * pad
            else np.array([-0.3, 0.3]) * pad + drawn[0]
        )
        height, edges = np.histogram(drawn, edges)
        style: dict[str, Any] = {"color": BLUE, "alpha": 0.55, "fill": True}
        if distribution == "prior":
            style = {"color": RED, "linewidth": 1.2}
        ax.stairs(height / max(height.max(), 1), edges, label=f"{distribution} predictive", **style)
        same = (check.replicated == observed).all()
        said = "always so" if same else f"p = {check.p_value:.2f}"
        lines.append(f"{distribution}: {said}" + (", unlike" if distribution in odd else ""))
    ax.axvline(observed, color="black", linewidth=1.4, label="data")
    ax.set_title("\n".join(lines), fontsize=8)
    ax.set(yticks=[], ylim=(0, 1.05), xlim=(low - pad, high + pad))
    ax.spines.left.set_visible(False)
    ax.locator_params(axis="x", nbins=3)
