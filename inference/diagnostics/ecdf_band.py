"""Simultaneous bands for the empirical distribution of ranks."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

BAND_POINTS = 200
"""The most points at which an ECDF is compared with its band."""


@dataclass(frozen=True)
class Band:
    """A band that the whole ECDF of M uniform numbers stays in with a known probability."""

    points: Tensor
    """(G,), inside (0, 1)."""
    lower: Tensor
    """(G,), a share of the M."""
    upper: Tensor
    """(G,), a share of the M."""
    probability: float
    """Of the whole ECDF being inside, edges included: exact, and at least the level asked for."""


@lru_cache(maxsize=64)
def ecdf_band(num: int, level: float) -> Band:
    """The simultaneous band of the ECDF of ``num`` uniform numbers, of probability ≥ ``level``.

    At each point it is the binomial interval of one pointwise probability, the smallest that
    keeps the whole ECDF inside often enough (Säilynoja, Bürkner and Vehtari 2022, arXiv
    2103.10522). How often is computed, not simulated: given their number, uniform points are
    those of a Poisson process, whose counts are followed from point to point.

    Raises:
        ValueError: if ``num`` < 1 or the level is not between 0 and 1.

    >>> band = ecdf_band(100, 0.9)
    >>> len(band.points), bool((band.upper - band.lower).max() < 0.3), band.probability >= 0.9
    (99, True, True)
    """
    if num < 1:
        raise ValueError(f"an ECDF needs at least one number, got {num}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    cells = min(max(num, 2), BAND_POINTS)
    points = np.arange(1, cells) / cells
    # By Bonferroni, tails of (1 − level) / cells at each point are small enough.
    low, high = math.log((1 - level) / cells), 0.0
    for _ in range(25):
        middle = (low + high) / 2
        inside = _probability_inside(*_counts(num, points, math.exp(middle)), num, cells)
        low, high = (middle, high) if inside >= level else (low, middle)
    least, most = _counts(num, points, math.exp(low))
    inside = _probability_inside(least, most, num, cells)
    return Band(
        torch.from_numpy(points),
        torch.from_numpy(least / num),
        torch.from_numpy(most / num),
        inside,
    )


def _counts(num: int, points: np.ndarray, tails: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most points below each, of a binomial interval with these tails."""
    distribution = stats.binom(num, points)
    return distribution.ppf(tails / 2).astype(int), distribution.isf(tails / 2).astype(int)


def _probability_inside(least: np.ndarray, most: np.ndarray, num: int, cells: int) -> float:
    """That the counts of ``num`` uniform points stay between two bounds at each grid point."""
    pmf = stats.poisson.pmf(np.arange(num + 1), num / cells)
    state, first = np.ones(1), 0
    for bottom, top in zip(least, most, strict=True):
        state = np.convolve(state, pmf[: top - first + 1])[bottom - first : top - first + 1]
        first = bottom
    last = pmf[num - first - np.arange(len(state))]
    return float((state * last).sum() / stats.poisson.pmf(num, num))
