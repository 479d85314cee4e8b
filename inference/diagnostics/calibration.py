"""Simulation-based calibration: ranks of true latent variables among the guide's draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from scipy import stats
from torch import Tensor

from ..common.progress import progress
from ..data.batches import epoch_seed
from ..evidence.importance_sampling import inspect_local
from ..evidence.pareto_smoothing import pareto_smooth
from ..pairs.latent_space import LatentSpace, latent_space
from ..pairs.log_terms import draw, score_in_chunks
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import SCORED_AT_ONCE
from ..pairs.sites import latent_sites
from ..simulation.simulate import simulate
from .ecdf_band import Band, ecdf_band

CLEAR_ERRORS = 3.0
"""Standard errors by which a PIT sample must lean before it is said which way."""


LOG_Q, LOG_JOINT = "log q(z|x)", "log p(x, z)"


@dataclass(frozen=True)
class Words:
    """What to call a PIT sample that piles up at 0, at 1, at both ends, or in the middle."""

    low: str = "biased high"
    high: str = "biased low"
    ends: str = "too narrow"
    middle: str = "too wide"


WORDS = {
    LOG_Q: Words("overconfident", "underconfident", "unclear", "unclear"),
    LOG_JOINT: Words("draws too likely", "draws too unlikely", "unclear", "unclear"),
}
"""Of the two densities: z* less dense than the draws lies outside of where the guide expects it."""


@dataclass(frozen=True)
class Coverage:
    """How often intervals, or regions, of a stated level held z*."""

    names: tuple[str, ...]
    """The coordinates, and ``"log q(z|x)"`` for regions of highest density."""
    levels: tuple[float, ...]
    share: Tensor
    """(names, levels)."""
    standard_error: Tensor
    """√(share (1 − share) / M), (names, levels)."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of z* among draws of q(z|x*), for M simulations (z*, x*) and Q quantities.

    The quantities are the K unconstrained coordinates of z, ``"log q(z|x)"`` and
    ``"log p(x, z)"``. Tensors are float64, on CPU. Each of :attr:`miscalibrated`,
    :attr:`weighted_miscalibrated` and :attr:`biased` is one family of tests, and names anything at
    all with probability at most 1 − ``level`` where q(z|x) is the posterior.
    """

    names: tuple[str, ...]
    """The Q quantities."""
    pit: Tensor
    """u = (#{z_l < z*} + U) / (L + 1) with U uniform, (M, Q): uniform if q(z|x) is exact."""
    weighted_pit: Tensor
    """The same with draws weighed by p(x*, z_l) / q(z_l|x*), (M, Q)."""
    khat: Tensor
    """Pareto k̂ of these weights, (M,); NaN where L < 25."""
    num_draws: int
    """L."""
    level: float
    """Probability that all is found well where it is."""

    def band(self) -> Band:
        """The band of each ECDF, so wide that all Q stay inside with probability ``level``."""
        return ecdf_band(len(self.pit), 1 - (1 - self.level) / len(self.names))

    def ecdf(self, *, weighted: bool = False) -> Tensor:
        """The share of u up to each point of :meth:`band`, (G, Q)."""
        pit = self.weighted_pit if weighted else self.pit
        ordered = pit.T.contiguous().sort(-1).values
        points = self.band().points.repeat(len(self.names), 1)
        return torch.searchsorted(ordered, points, right=True).T.double() / len(pit)

    @property
    def miscalibrated(self) -> dict[str, str]:
        """The quantities whose ECDF leaves :meth:`band`, and how; see :func:`describe`."""
        return self._outside(weighted=False)

    @property
    def weighted_miscalibrated(self) -> dict[str, str]:
        """The same of the re-weighted draws: what importance weights do not mend."""
        return self._outside(weighted=True)

    def _outside(self, *, weighted: bool) -> dict[str, str]:
        band, ecdf = self.band(), self.ecdf(weighted=weighted)
        beyond = (ecdf < band.lower[:, None] - 1e-12) | (ecdf > band.upper[:, None] + 1e-12)
        pit = self.weighted_pit if weighted else self.pit
        return {
            name: describe(sample, WORDS.get(name, Words()))
            for name, sample, out in zip(self.names, pit.T, beyond.any(0), strict=True)
            if out
        }

    def coverage(
        self, levels: Sequence[float] = (0.5, 0.8, 0.95), *, weighted: bool = False
    ) -> Coverage:
        """How often z* lies in the guide's credible intervals, and highest-density regions.

        A coordinate's interval is central; the regions are of all z, so that their share is the
        expected coverage of Hermans et al. (2022, arXiv 2110.06581).

        Raises:
            ValueError: if there is no level, or one is not between 0 and 1.
        """
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels lie between 0 and 1, got {tuple(levels)}")
        pit = (self.weighted_pit if weighted else self.pit)[:, :-1]
        # How much of the posterior is nearer to the middle, or denser, than z*.
        within = torch.cat([(2 * pit[:, :-1] - 1).abs(), 1 - pit[:, -1:]], dim=1)
        wanted = torch.tensor(tuple(levels), dtype=torch.float64)
        share = (within[..., None] <= wanted).double().mean(0)
        error = (share * (1 - share) / len(pit)).sqrt()
        return Coverage(self.names[:-1], tuple(levels), share, error)

    @property
    def bias_p_value(self) -> Tensor:
        """Of each coordinate, (K,): that p_j = Q(z_j < z_j*) is symmetric about ½ (VSBC).

        If it is, posterior medians are neither too high nor too low on average over data, however
        wrong their widths (Yao et al. 2018, arXiv 1802.02538).
        """
        # Not the two-sample Kolmogorov–Smirnov test of p and 1 − p: it takes the two samples to
        # be independent, and one is the other's mirror image.
        return torch.from_numpy(stats.wilcoxon(self.pit[:, :-2].numpy() - 0.5)[1])

    @property
    def biased(self) -> dict[str, str]:
        """The coordinates whose p-value is below (1 − level) / K, and which way they lean."""
        words = Words()
        tests = zip(self.names, self.bias_p_value, self.pit.mean(0), strict=False)
        return {
            name: words.low if mean < 0.5 else words.high
            for name, value, mean in tests
            if value < (1 - self.level) / (len(self.names) - 2)
        }

    def __repr__(self) -> str:
        return (
            f"Calibration(M={len(self.pit)}, L={self.num_draws}; of {len(self.names)} quantities "
            f"miscalibrated: {len(self.miscalibrated)}, re-weighted: "
            f"{len(self.weighted_miscalibrated)}; of {len(self.names) - 2} coordinates biased: "
            f"{len(self.biased)})"
        )


def calibrate(
    model: Program,
    guide: Program,
    like: Any,
    *,
    num_simulations: int = 1000,
    num_draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> Calibration:
    """Simulation-based calibration of an amortized posterior on data of its own model.

    ::

        z* ~ p(z),  x* ~ p(x|z*),  z_1 … z_L ~ q(z|x*):   u = (#{z_l < z*} + U) / (L + 1)

    If q(z|x) is the posterior, z* is one more draw of it, and u is uniform (Talts et al. 2018,
    arXiv 1804.06788). Ranked are each unconstrained coordinate; log q(z|x), for regions of
    highest density; and log p(x, z), as a posterior that ignores x passes all tests that do not
    look at x (Modrák et al. 2023, arXiv 2211.02383). Densities are those of the coordinates.

    Each is also ranked with Pareto-smoothed weights w_l = p(x*, z_l) / q(z_l|x*)::

        u_w = (Σ_l w_l 1[z_l < z*] + U w̄) / (Σ_l w_l + w̄),   w̄ = Σ_l w_l² / Σ_l w_l

    which is u for equal weights. Where u is not uniform and u_w is, the guide is wrong but good
    enough to weigh draws of. All this is about data of the model's own: a model far from the real
    ones is not found out by it.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        like: data whose shape, and contexts in turn, are taken; x's values do not matter.
        num_simulations: M, at least 20.
        num_draws: L.
        level: of each family of tests, see :class:`Calibration`.
        seed: of all draws.
        show_progress: show the simulations done.

    Raises:
        ValueError: if an argument is out of range, the data cannot be used, data cannot be
            simulated (:func:`simulate`), the pair does not suit importance sampling, a latent
            site is discrete, or a density is NaN.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x, scale=math.sqrt(0.5)):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, scale))
    >>> calibrate(model, guide, torch.zeros(1), num_simulations=500).miscalibrated
    {}
    >>> found = calibrate(model, lambda x: guide(x, 0.35), torch.zeros(1), num_simulations=500)
    >>> found.miscalibrated["z"], found.biased
    ('too narrow', {})
    """
    if num_simulations < 20:
        raise ValueError(f"num_simulations must be at least 20, got {num_simulations}")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    args, values = simulate(model, guide, like, num_simulations, seed=seed)
    step, blocks = max(1, SCORED_AT_ONCE // num_draws), []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(epoch_seed(seed, 1))
        some = tuple(arg[:step] for arg in args)
        space = latent_space(model, guide, some, inspect_local(model, guide, some))
        truth = replace(space, args=args).locate(values)
        with (
            progress("calibration", num_simulations, show=show_progress) as advance,
            pyro.validation_enabled(False),
        ):
            for start in range(0, num_simulations, step):
                rows = slice(start, start + step)
                block = replace(space, args=tuple(arg[rows] for arg in args))
                blocks.append(_rank(block, truth[:, rows], num_draws))
                advance(block.num_data, f"{start + block.num_data} of {num_simulations}")
    pit, weighted, khat = (torch.cat(part) for part in zip(*blocks, strict=True))
    return Calibration((*space.names, LOG_Q, LOG_JOINT), pit, weighted, khat, num_draws, level)


def _rank(space: LatentSpace, truth: Tensor, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """u and u_w of a block of simulations, each (N, Q), and k̂ (N,)."""
    draws = draw(space.guide, space.args, num_draws, space.structure)
    beyond = latent_sites(draws.trace).keys() - {site.name for site in space.sites}
    for name in sorted(beyond):
        raise ValueError(
            f"the guide's {name!r} is no part of the model: z* has no value for it, so its rank "
            "is not defined"
        )
    points, log_q = space.read(draws)
    terms = list(score_in_chunks(space.model, draws, max(1, SCORED_AT_ONCE // space.num_data)))
    log_joint = torch.cat([part.log_likelihood + part.log_prior for part in terms])
    log_joint = log_joint + (log_q - draws.log_posterior)
    drawn = torch.cat([points, log_q[..., None], log_joint[..., None]], dim=-1).cpu()
    densities = space.log_density(space.guide, truth), sum(space.log_joint(truth))
    own = torch.cat([truth, *[part[..., None] for part in densities]], dim=-1).cpu()  # pyright: ignore
    for index, name in enumerate((*space.names, LOG_Q, LOG_JOINT)):
        if drawn[..., index].isnan().any() or own[..., index].isnan().any():
            raise ValueError(
                f"{name} is NaN on data simulated from the model: its networks overflow, or the "
                "guide puts draws where the prior has none"
            )
    khat, log_weight = pareto_smooth(log_joint.double() - log_q.double())
    log_weight = log_weight - log_weight.max(0).values
    # Where no draw has any density under the model, none is better than another.
    log_weight = torch.where(log_weight.isnan(), 0.0, log_weight)
    noise = torch.rand(own.shape[1:], dtype=torch.float64)
    plain = torch.ones_like(log_weight)
    return _pit(own, drawn, plain, noise), _pit(own, drawn, log_weight.exp(), noise), khat


def _pit(truth: Tensor, drawn: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """The weighted rank of truth (1, N, Q) among draws (S, N, Q), as a share: (N, Q)."""
    below = torch.einsum("sn,snq->nq", weight, (drawn < truth).double())
    level = torch.einsum("sn,snq->nq", weight, (drawn == truth).double())
    # z* counts as much as a draw of the posterior does on average. Its own weight would make u_w
    # uniform for every q, as z* and the draws then come from one distribution: it could never fire.
    own = (weight.square().sum(0) / weight.sum(0))[:, None]
    return (below + noise * (level + own)) / (weight.sum(0)[:, None] + own)


def describe(pit: Tensor, words: Words = Words()) -> str:
    """How a PIT sample (M,) leans, in a word: the larger of two deviations from uniform.

    ::

        mean(u) − ½, of variance 1 / (12 M);   var(u) − 1/12, of variance 1 / (180 M)

    ``"unclear"`` where neither is :data:`CLEAR_ERRORS` standard errors.

    >>> u = (torch.arange(200) + 0.5) / 200
    >>> describe(u**3), describe(torch.sin(u * math.pi / 2) ** 2), describe(u / 4 + 0.4)
    ('biased high', 'too narrow', 'too wide')
    """
    place = ((pit.mean() - 0.5) * math.sqrt(12 * len(pit))).item()
    spread = ((pit.var(correction=0) - 1 / 12) * math.sqrt(180 * len(pit))).item()
    if max(abs(place), abs(spread)) < CLEAR_ERRORS:
        return "unclear"
    if abs(place) >= abs(spread):
        return words.low if place < 0 else words.high
    return words.ends if spread > 0 else words.middle
