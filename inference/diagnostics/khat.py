"""Pareto k̂ of many data: how it is judged, and how it is drawn."""

import math
from typing import TYPE_CHECKING

import numpy as np

from ..common.plotting import BLUE, RED, dots, integer_ticks, marker_size
from .finding import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KHAT_LABEL = r"$\hat{k}$"
"""k̂ as matplotlib sets it well: its font puts the circumflex beside the letter."""


TOLERATED_KHAT_SHARE = 0.01
"""Share of the data whose k̂ may be above its threshold without a warning."""


BAD_KHAT_SHARE = 0.5
"""Share of the data whose k̂ is above its threshold from which on the finding is bad."""


def judge_khat_share(share: float) -> Level:
    """The level of a share of the data whose k̂ is above its threshold.

    >>> [judge_khat_share(share).name for share in (0.01, 0.5, 0.51)]
    ['GOOD', 'WARNING', 'BAD']
    """
    if share <= TOLERATED_KHAT_SHARE:
        return Level.GOOD
    return Level.WARNING if share <= BAD_KHAT_SHARE else Level.BAD


def draw_khat(ax: "Axes", khat: np.ndarray, threshold: float) -> None:
    """Draw k̂ in the order given, those that are finite, with the thresholds."""
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
    ax.set_ylabel(f"Pareto {KHAT_LABEL}")
    integer_ticks(ax)


def khat_not_drawn(khat: np.ndarray) -> str:
    """How many k̂ are not finite, and what that means; empty if all are."""
    groups = {
        "= −∞, all weights alike": khat == -math.inf,
        "= ∞, hardly any weight": khat == math.inf,
        "not known": np.isnan(khat),
    }
    words = [f"{KHAT_LABEL} {what}: {some.sum():,}" for what, some in groups.items() if some.any()]
    return f"not drawn: {'; '.join(words)}" if words else ""
