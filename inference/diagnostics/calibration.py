"""Are posteriors right on simulated data? Ranks of the true z among draws, and coverage (SBC)."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from scipy import stats
from torch import Tensor

from ..common.plotting import BLUE, GREY, ORANGE, RED, SKY, legend_below, new_figure
from ..common.progress import Advance, progress
from ..common.seeding import set_seed
from ..data.batches import epoch_seed
from ..data.whole_set import open_posterior, rows_of_set
from ..evidence.importance_sampling import inspect_local
from ..evidence.pareto_smoothing import pareto_smooth
from ..pairs.coordinates import cut_opposite, direction
from ..pairs.kept_rows import check_amortized
from ..pairs.latent_space import LatentSpace, latent_space
from ..pairs.log_terms import draw, score_in_chunks
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import SCORED_AT_ONCE
from ..pairs.sites import latent_sites
from ..simulation.simulate import simulate
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .ecdf_band import Band, ecdf_band
from .finding import Finding, Level
from .refitting import Refit, is_amortized, refit_by_fit, refitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

CLEAR_ERRORS = 3.0
"""Standard errors from uniform that a PIT sample must have before its deviation gets a name."""


LOG_Q, LOG_JOINT = "log q(z|x)", "log p(x, z)"


SET_SIMULATIONS = 100
"""Data sets simulated for a pair with global latent variables, if no number is given."""


NAMED_CURVES = 5
"""The most quantities that get a colour and a name of their own in a figure."""


TIE_TOLERANCE = 100.0
"""Units of rounding by which two densities of one discrete value may differ."""


_LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


_LINE_COLOURS = (RED, BLUE, "#009E73", "#CC79A7", "black")


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
"""Of the two densities: a z* of low density lies outside the region where the guide expects it."""


@dataclass(frozen=True)
class Coverage:
    """How often intervals, or regions, of a nominal level contain z*."""

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
    :attr:`weighted_miscalibrated` and :attr:`biased` is one family of tests: where q(z|x) is the
    exact posterior, it is not empty with probability at most 1 − ``level``.
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
    """Probability that an exact posterior gives no alarm."""
    set_rows: int = 0
    """Rows of the data set, where it is one datum as latent variables are global; else 0."""
    refitted: bool = False
    """Whether the guide was refitted to each simulated data set."""

    def band(self) -> Band:
        """The band of each ECDF: if q(z|x) is exact, all Q stay in with probability ``level``."""
        return ecdf_band(len(self.pit), 1 - (1 - self.level) / len(self.names))

    def ecdf(self, *, weighted: bool = False) -> Tensor:
        """The share of u up to each point of :meth:`band`, (G, Q)."""
        pit = self.weighted_pit if weighted else self.pit
        ordered = pit.T.contiguous().sort(-1).values
        points = self.band().points.repeat(len(self.names), 1)
        return torch.searchsorted(ordered, points, right=True).T.double() / len(pit)

    @property
    def miscalibrated(self) -> dict[str, str]:
        """The quantities whose ECDF leaves :meth:`band`, and how; see :func:`describe_pit`."""
        return self._outside(weighted=False)

    @property
    def weighted_miscalibrated(self) -> dict[str, str]:
        """The same of the re-weighted draws: the faults that importance weights do not correct."""
        return self._outside(weighted=True)

    def _outside(self, *, weighted: bool) -> dict[str, str]:
        band, ecdf = self.band(), self.ecdf(weighted=weighted)
        beyond = (ecdf < band.lower[:, None] - 1e-12) | (ecdf > band.upper[:, None] + 1e-12)
        pit = self.weighted_pit if weighted else self.pit
        return {
            name: describe_pit(sample, WORDS.get(name, Words()))
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
        # The share of the posterior that is closer to the median, or denser, than z*.
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
        """The coordinates whose p-value is below (1 − level) / K, and the direction of the bias."""
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
    num_simulations: int | None = None,
    num_draws: int = 100,
    level: float = 0.95,
    refit: Refit | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Calibration:
    """Simulation-based calibration of an amortized posterior on data of its own model.

    ::

        z* ~ p(z),  x* ~ p(x|z*),  z_1 … z_L ~ q(z|x*):   u = (#{z_l < z*} + U) / (L + 1)

    If q(z|x) is the posterior, z* is one more draw of it, and u is uniform (Talts et al. 2018,
    arXiv 1804.06788). Ranked are each unconstrained coordinate, a circle cut opposite to the mean
    direction of z* and z_l; log q(z|x), for regions of highest density; and log p(x, z), as a
    posterior that ignores x passes all tests that do not look at x (Modrák et al. 2023, arXiv
    2211.02383). Densities are those of the coordinates.

    Each is also ranked with Pareto-smoothed weights w_l = p(x*, z_l) / q(z_l|x*)::

        u_w = (Σ_l w_l 1[z_l < z*] + U w̄) / (Σ_l w_l + w̄),   w̄ = Σ_l w_l² / Σ_l w_l

    which is u for equal weights. Ties, as between values of a discrete site, are broken at random,
    so that u is uniform there too. Where u is not uniform and u_w is, the guide is wrong but good
    enough as a proposal. All of this is about simulated data: it does not tell whether the model
    fits the real ones.

    **Global latent variables.** Where latent variables are global, the whole data set is one datum,
    as in :func:`log_evidence`, and whole data sets are simulated, with the contexts of the real
    one. If the guide computes its posterior from the data, it is asked for that of each. If it
    keeps the posterior that it was fitted with, it has to be fitted to each simulated data set
    anew, which ``refit`` does; the parameters are what they were afterwards. Ranks then judge guide
    and fit together.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        like: data whose shape, and contexts in turn, are taken; x's values do not matter.
        num_simulations: M, at least 20; 1,000 if not given, and 100 of whole data sets.
        num_draws: L.
        level: of each family of tests, see :class:`Calibration`.
        refit: for a guide that is not amortized: a function ``refit(model, guide, data)``, of a
            simulated data set in the form of ``like``, that changes the guide's parameters, or
            returns a guide, or what :func:`fit` returns. If not given, :func:`fit` with 300 epochs,
            from the current parameters, with the model's held fixed.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: of all draws.
        show_progress: show the simulations done.

    Raises:
        ValueError: if an argument is out of range, the data cannot be used, data cannot be
            simulated (:func:`simulate`), the pair does not suit importance sampling, all latent
            sites are summed out, or a density is NaN.

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
    if num_simulations is not None and num_simulations < 20:
        raise ValueError(f"num_simulations must be at least 20, got {num_simulations}")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    model, guide, rows = open_posterior(model, guide, like, data_plate=data_plate)
    size = rows_of_set(model, rows)
    if not size:
        check_amortized(guide)
    num_simulations = num_simulations or (SET_SIMULATIONS if size else 1000)
    args, values = simulate(model, guide, rows, num_simulations, seed=seed)
    step, blocks = max(1, SCORED_AT_ONCE // num_draws), []
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(epoch_seed(seed, 1))
        some = tuple(arg[: 1 if size else step] for arg in args)
        structure = inspect_local(model, guide, some)
        space = latent_space(model, guide, some, structure, discrete=True)
        truth = replace(space, args=args).locate(values)
        needs_refit = size > 0 and not is_amortized(guide, place_all(model, guide, rows), some)
        with (
            progress("calibration", num_simulations, show=show_progress) as advance,
            pyro.validation_enabled(False),
        ):
            if size:
                how = (refit or refit_by_fit) if needs_refit else None
                blocks = list(_rank_sets(space, args, truth, num_draws, how, seed, advance))
            for start in range(0, 0 if size else num_simulations, step):
                rows = slice(start, start + step)
                block = replace(space, args=tuple(arg[rows] for arg in args))
                blocks.append(_rank(block, truth[:, rows], num_draws))
                advance(block.num_data, f"{start + block.num_data} of {num_simulations}")
    pit, weighted, khat = (torch.cat(part) for part in zip(*blocks, strict=True))
    names = (*space.names, LOG_Q, LOG_JOINT)
    return Calibration(names, pit, weighted, khat, num_draws, level, size, needs_refit)


def _rank_sets(
    space: LatentSpace,
    args: tuple[Tensor, ...],
    truth: Tensor,
    num_draws: int,
    refit: Refit | None,
    seed: int,
    advance: Advance,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """u, u_w and k̂ of each simulated data set, whose guide is refitted to it if need be."""
    count = len(args[0])
    for number in range(count):
        one = tuple(arg[number : number + 1] for arg in args)
        with contextlib.ExitStack() as stack:
            guide: Any = space.guide
            if refit is not None:
                guide = stack.enter_context(refitted(space.model, guide, refit, one))  # pyright: ignore
            stack.enter_context(evaluating(space.model, guide))
            set_seed(epoch_seed(seed, 2 + number))  # a refit may set a seed of its own
            own = latent_space(space.model, guide, one, space.structure)
            yield _rank(own, truth[:, number : number + 1], num_draws)
        advance(1, f"{number + 1} of {count} data sets")


def _rank(space: LatentSpace, truth: Tensor, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """u and u_w of a block of simulations, each (N, Q), and k̂ (N,)."""
    draws = draw(space.guide, space.args, num_draws, space.structure)
    known = {site.name for site in (*space.sites, *space.auxiliary)}
    beyond = latent_sites(draws.trace).keys() - known
    for name in sorted(beyond):
        raise ValueError(
            f"the guide's {name!r} is no part of the model: z* has no value for it, so its rank "
            "is not defined"
        )
    read, log_q = space.read(draws)
    points, truth = space.near(read), space.near(truth)
    densities: Any
    if points is read:
        terms = list(score_in_chunks(space.model, draws, max(1, SCORED_AT_ONCE // space.num_data)))
        log_joint = torch.cat([part.log_likelihood + part.log_prior for part in terms])
        log_joint = log_joint + (log_q - draws.log_posterior)
        densities = space.log_density(space.guide, truth), sum(space.log_joint(truth))
    else:
        # A draw at the edge of a support, where its density is infinite, is taken just inside. All
        # are scored in one call, as ties of z* and draws there are to be ties of their densities.
        both = torch.cat([truth, points])
        scored = space.log_density(space.guide, both), sum(space.log_joint(both))
        densities = [part[:1] for part in scored]  # pyright: ignore
        log_q, log_joint = (part[1:] for part in scored)  # pyright: ignore
    drawn = torch.cat([points, log_q[..., None], log_joint[..., None]], dim=-1).cpu()
    own = torch.cat([truth, *[part[..., None] for part in densities]], dim=-1).cpu()  # pyright: ignore
    for index, name in enumerate((*space.names, LOG_Q, LOG_JOINT)):
        if drawn[..., index].isnan().any() or own[..., index].isnan().any():
            raise ValueError(
                f"{name} is NaN on data simulated from the model: its networks overflow, or the "
                "guide puts draws where the prior has none"
            )
    _cut_circles(own, drawn, space.circular)
    khat, log_weight = pareto_smooth(log_joint.double() - log_q.double())  # pyright: ignore
    log_weight = log_weight - log_weight.max(0).values
    # Where no draw has any density under the model, none is better than another.
    log_weight = torch.where(log_weight.isnan(), 0.0, log_weight)
    noise = torch.rand(own.shape[1:], dtype=torch.float64)
    if space.has_discrete:
        drawn = _settle_ties(own, drawn)
    plain = torch.ones_like(log_weight)
    return _pit(own, drawn, plain, noise), _pit(own, drawn, log_weight.exp(), noise), khat


def _settle_ties(truth: Tensor, drawn: Tensor) -> Tensor:
    """Draws whose densities are z*'s but for rounding, as those of one discrete value are.

    Densities of z* and of the draws are computed in two runs, which may round differently. The
    rounding would decide every tie the same way.
    """
    tolerance = TIE_TOLERANCE * torch.finfo(drawn.dtype).eps
    tied = (drawn - truth).abs() <= tolerance * (1 + truth.abs())
    return torch.where(tied, truth, drawn)


def _cut_circles(truth: Tensor, drawn: Tensor, circular: Tensor) -> None:
    """Make numbers of the angles among truth (1, N, Q) and draws (S, N, Q), in place.

    Each circle is cut opposite to the mean direction of truth and draws together. As each of them
    has an equal part in it, z* is still one more draw where q is exact, and its rank is uniform.
    """
    for index in circular.nonzero().flatten().tolist():
        centre = direction(torch.cat([truth[..., index], drawn[..., index]]))
        for values in (truth, drawn):
            values[..., index] = cut_opposite(values[..., index], centre)


def _pit(truth: Tensor, drawn: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """The weighted rank of truth (1, N, Q) among draws (S, N, Q), as a share: (N, Q)."""
    below = torch.einsum("sn,snq->nq", weight, (drawn < truth).double())
    level = torch.einsum("sn,snq->nq", weight, (drawn == truth).double())
    # z* counts as much as a draw of the posterior does on average. Its own weight would make u_w
    # uniform for every q, as z* and the draws then come from one distribution: it could never fire.
    own = (weight.square().sum(0) / weight.sum(0))[:, None]
    return (below + noise * (level + own)) / (weight.sum(0)[:, None] + own)


def describe_pit(pit: Tensor, words: Words = Words()) -> str:
    """Name how a PIT sample (M,) deviates from uniform: by the larger of two deviations.

    ::

        mean(u) − ½, of variance 1 / (12 M);   var(u) − 1/12, of variance 1 / (180 M)

    ``"unclear"`` where neither is :data:`CLEAR_ERRORS` standard errors.

    >>> u = (torch.arange(200) + 0.5) / 200
    >>> describe_pit(u**3), describe_pit(torch.sin(u * math.pi / 2) ** 2), describe_pit(u / 4 + 0.4)
    ('biased high', 'too narrow', 'too wide')
    """
    place = ((pit.mean() - 0.5) * math.sqrt(12 * len(pit))).item()
    spread = ((pit.var(correction=0) - 1 / 12) * math.sqrt(180 * len(pit))).item()
    if max(abs(place), abs(spread)) < CLEAR_ERRORS:
        return "unclear"
    if abs(place) >= abs(spread):
        return words.low if place < 0 else words.high
    return words.ends if spread > 0 else words.middle


def judge_calibration(found: Calibration) -> list[Finding]:
    """Whether ranks are uniform, and whether medians are shifted to one side."""
    wrong, mended = found.miscalibrated, found.weighted_miscalibrated
    count, level = len(found.pit), f"{found.level:.0%}"
    said = f"On {count:,} {'data sets' if found.set_rows else 'data'} simulated from the model"
    said += ", with the guide refitted to each" if found.refitted else ""
    if not wrong:
        text = f"{said}, the ranks of all {len(found.names)} quantities are in their {level} band."
        findings = [Finding("calibration", Level.GOOD, text)]
    else:
        # Ranks cannot tell means that are randomly off from standard deviations too small.
        narrow = "too narrow or misplaced"
        told = _count_words({n: narrow if w == "too narrow" else w for n, w in wrong.items()})
        cover = found.coverage((0.8,)).share[-1, 0].item()
        text = (
            f"{said}, {len(wrong)} of {len(found.names)} quantities {_out_of(len(wrong))} {level} "
            f"band ({told}); credible regions of 80% contain z in {cover:.0%} of the cases. "
        )
        are = "is" if len(mended) == 1 else "are"
        left = f"{len(mended)} {are} still out" if mended else "none is"
        text += f"After importance weighting of {found.num_draws} draws, {left}."
        findings = [Finding("calibration", Level.BAD if mended else Level.WARNING, text)]
    if found.biased:
        text = (
            f"Posterior medians are shifted to one side in {len(found.biased)} of "
            f"{len(found.names) - 2} coordinates ({_count_words(found.biased)})."
        )
        findings.append(Finding("bias", Level.WARNING, text))
    return findings


def _out_of(count: int) -> str:
    return "is out of its" if count == 1 else "are out of their"


def _count_words(words: Mapping[str, str]) -> str:
    """How many are wrong in each way, with the first names.

    >>> _count_words({"a": "too narrow", "b": "too narrow", "c": "too wide"})
    'too narrow: a, b; too wide: c'
    """
    groups: dict[str, list[str]] = {}
    for name, word in words.items():
        groups.setdefault(word, []).append(name)
    return "; ".join(
        f"{word}: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for word, names in groups.items()
    )


def plot_calibration(calibration: Calibration) -> "Figure":
    """Ranks of z* on simulated data: ECDF of u minus u, as drawn and re-weighted.

    If the guide is the exact posterior, all lines stay in the band with probability
    ``calibration.level``. Of those that leave it, the :data:`NAMED_CURVES` furthest out are named.

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
    style = {"color": _LINE_COLOURS[index], "linestyle": _LINE_STYLES[index]}
    return {**style, "linewidth": 1.4, "zorder": 3, "label": told[name]}


def plot_coverage(calibration: Calibration) -> "Figure":
    """How often credible regions of each nominal level contain z*, as drawn and re-weighted.

    A thin line is a coordinate's central interval, the thick one the region of highest density of
    all z. The grey band has the diagonal's noise at any one level.

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


def _run(context: DiagnosticContext) -> Calibration:
    budget, whole = context.budget, rows_of_set(context.model, context.rows) > 0
    if whole and context.refit is None:
        _refuse_unfitted(context)
    return calibrate(
        *context.pair,
        context.rows,
        num_simulations=budget.set_simulations if whole else budget.simulations,
        num_draws=budget.draws,
        refit=context.refit,
        seed=context.seed,
        show_progress=context.show_progress,
    )


def _refuse_unfitted(context: DiagnosticContext) -> None:
    """Refuse to calibrate a guide that would have to be refitted, where it is not said how.

    Raises:
        ValueError: saying how.
    """
    model, guide = context.pair
    args, _ = simulate(model, guide, context.rows, 1, seed=context.seed)
    with evaluating(model, guide), torch.random.fork_rng():
        if is_amortized(guide, place_all(model, guide, context.rows), args):
            return
    raise ValueError(
        "the guide keeps the posterior that it was fitted with, whatever data it is given, so its "
        "calibration takes a fit to each of many simulated data sets. Say how it is fitted, as by "
        "diagnose(…, refit=lambda model, guide, data: fit(model, guide, data, epochs=300)), or "
        "call calibrate, which has a default"
    )


def _numbers(found: Calibration) -> list[Number]:
    count = len(found.names)
    rows = (
        ("miscalibrated", found.miscalibrated, "quantities out of their band", count),
        ("weighted_miscalibrated", found.weighted_miscalibrated, "the same, re-weighted", count),
        # The two densities have no median.
        ("biased", found.biased, "coordinates with shifted medians", count - 2),
    )
    return [
        Number(key, names, label, text=f"{len(names)} of {total}")
        for key, names, label, total in rows
    ]


def _groups(found: Calibration) -> "Mapping[str, Dataset]":
    import xarray

    pits = {"pit": found.pit, "weighted_pit": found.weighted_pit}
    dataset = xarray.Dataset(
        {name: (("simulation", "quantity"), value.numpy()) for name, value in pits.items()},
        coords={"quantity": list(found.names), "simulation": range(len(found.pit))},
    )
    return {"calibration": dataset}


CALIBRATION = Diagnostic(
    name="calibration",
    question="Are posteriors right on data simulated from the model?",
    topics=("calibration", "bias"),
    run=_run,
    judge=judge_calibration,
    figures=(
        DiagnosticFigure(
            "calibration",
            "Ranks of the true z among the guide's draws, for simulated data. Good: all lines in "
            "the band. A line on one side of zero means bias (above zero: the guide is too high). "
            "A line above zero on the left and below zero on the right means that posteriors are "
            "too narrow; the reverse, that they are too wide. Lines that are back in the band in "
            "the right panel are corrected by importance weights.",
            plot_calibration,
        ),
        DiagnosticFigure(
            "coverage",
            "How often credible regions of each level contain the true z, for simulated data. "
            "Good: along the diagonal. Below it, regions are too narrow: the guide is "
            "overconfident. Above it, they are too wide. Right: after importance weighting.",
            plot_coverage,
            title="Do credible regions contain z as often as they should?",
            topics=("calibration",),
        ),
    ),
    numbers=_numbers,
    groups=_groups,
    per_datum=True,
    judges_draws=True,
    applies=lambda context: (
        context.budget.simulations > 0
        and (context.budget.set_simulations > 0 or not rows_of_set(context.model, context.rows))
    ),
)
"""Simulation-based calibration: ranks, coverage, and medians shifted to one side."""
