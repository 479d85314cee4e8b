"""How much do the latent variables say about x? KL by dimension, and mutual information."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from ..common.plotting import (
    BLUE,
    ORANGE,
    SKY,
    counted,
    grid,
    integer_ticks,
    legend_below,
    shorten,
    show_text,
    signed,
    write_below,
    write_beside,
)
from ..common.seeding import set_seed
from ..data.whole_set import open_posterior, rows_of_set
from ..evaluation.metrics import ACTIVE_VARIANCE
from ..objectives.reading import Reading, closed_forms
from ..pairs.cached_flows import UnknownDensityError
from ..pairs.chains import Chain, flags_of_chains
from ..pairs.coordinates import cut_opposite, direction, is_circular
from ..pairs.enumeration import is_summed_out, varies
from ..pairs.inspection import inspect_drawn
from ..pairs.kept_rows import rows_kept
from ..pairs.kl import counted as counted_in
from ..pairs.latent_space import LatentSpace, VaryingSupportError, latent_space
from ..pairs.log_terms import draw, read_terms, trace_model
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import SCORED_AT_ONCE
from ..pairs.sites import check_prior_has_draws, latent_sites, rows_dim
from ..pairs.structure import Structure
from ..simulation.predictive import posterior_means
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number
from .finding import Finding, Level, in_nats, per_what

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PAIRS = 4_000_000
"""The most numbers in memory while each draw is scored under the posterior of each datum."""


IDLE_KL, IDLE_SHARE = 0.01, 0.99
"""A dimension is idle whose KL is below 0.01 nats for 99 % of the data (Lucas et al. 2019)."""


MIN_AGGREGATED_DATA = 20
"""The fewest data whose posteriors, averaged, can stand for the aggregated posterior."""


SATURATED_NATS = 2.0
"""Distance from log N, in nats, below which the estimate of I(x; z) falls short of the truth."""


TOLERATED_MARGINAL_KL = 1.0
"""KL(q(z) ‖ p(z)) in nats that gives no warning."""


MOST_SITES = 8
"""The most latent sites whose KL is told in a sentence, or in the legend of a figure."""


OTHER_LENGTHS = "the sequences have different lengths, so their posteriors have no average"
"""Why I(x; z) is not known of sequences."""


NAMED_DIMENSIONS = 20
"""The most dimensions whose names are written below a figure."""


@dataclass(frozen=True)
class LatentInformation:
    """How much the latent variables of a pair say about N data, in nats."""

    names: tuple[str, ...]
    """The J parts that the KL splits into: dimensions, where it does, else sites."""
    kl: Tensor
    """KL(q(z|x) ‖ p(z)) of each datum and part, (N, J)."""
    mean_variance: dict[str, Tensor]
    """Variance over the data of the posterior mean of each latent dimension, by site; NaN of one
    datum."""
    mutual_information: float
    """I(x; z) = E[log q(z|x) − log q(z)], q(z) the posterior averaged over the N data; at most
    log N. NaN where there is a global latent variable."""
    mutual_information_error: float
    """Its standard error."""
    marginal_kl: float
    """KL(q(z) ‖ p(z)); NaN where the prior differs from datum to datum."""
    marginal_kl_error: float
    """Its standard error."""
    note: str = ""
    """Why I(x; z) is not known, where it needs a density that the pair does not give."""
    counted: Tensor | None = None
    """For which data a part counts, (N, J): not where it is masked. ``None`` if for all."""
    set_rows: int = 0
    """Rows of the data set, where it is one datum as latent variables are global; else 0."""
    sites: tuple[str, ...] = ()
    """The latent sites, where there are several whose KLs are told apart."""

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.kl)

    @property
    def limit(self) -> float:
        """log N, which I(x; z) cannot exceed when estimated from N data."""
        return math.log(self.num_data)

    @property
    def idle(self) -> tuple[str, ...]:
        """The parts whose KL is below 0.01 nats for 99 % of the data or more, masked ones apart."""
        counted = torch.ones_like(self.kl) if self.counted is None else self.counted.double()
        # By draws from the bottom up a level's term of the KL may be below zero, and it is in use.
        share = ((self.kl.abs() < IDLE_KL) * counted).sum(0) / counted.sum(0)  # NaN of none
        return tuple(name for name, one in zip(self.names, share, strict=True) if one >= IDLE_SHARE)

    @property
    def kl_by_site(self) -> dict[str, float]:
        """Mean KL of each latent site, where there are several; they sum to that of all."""
        mean = self.kl.mean(0)
        return {site: mean[self.parts_of(site)].sum().item() for site in self.sites}

    @property
    def sites_in_use(self) -> tuple[str, ...]:
        """The latent sites, of several, that say something: not all of their parts are idle."""
        idle = set(self.idle)
        return tuple(
            site
            for site in self.sites
            if any(self.names[part] not in idle for part in self.parts_of(site))
        )

    def parts_of(self, site: str) -> list[int]:
        """Where the parts of a latent site stand among :attr:`names`."""
        return [at for at, name in enumerate(self.names) if is_part_of(name, site)]

    @property
    def active_units(self) -> int:
        """How many dimensions' posterior means vary by more than 0.01 over the data."""
        return sum(int((one > ACTIVE_VARIANCE).sum()) for one in self.mean_variance.values())

    @property
    def latent_dim(self) -> int:
        """How many latent dimensions there are, without those that are masked for all data."""
        sizes = self.mean_variance.values()
        if self.counted is None:
            return sum(one.numel() for one in sizes)
        return sum(int(one.isfinite().sum()) for one in sizes)

    @property
    def collapsed(self) -> bool:
        """Whether the posterior of every datum is the prior: every part is idle."""
        parts = len(self.names) if self.counted is None else int(self.counted.any(0).sum())
        return len(self.idle) == parts > 0 and (self.num_data > 1 or self.set_rows > 0)


def latent_information(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_draws: int = 10,
    data_plate: str | None = None,
    seed: int = 0,
) -> LatentInformation:
    """KL by dimension, active units, mutual information and the aggregated posterior's KL.

    ::

        mean KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)),   q(z) = 1/N Σₙ q(z|xₙ)

    (Hoffman and Johnson 2016). The first term is what z says about x, the second is how far the
    draws that the decoder was trained on are from draws of the prior. The KL of a dimension is in
    closed form where there is one. Where a prior depends on a site that is summed out, the KL is
    that of all sites together, and one part.

    Where latent variables are global, the whole data set is one datum, as in :func:`log_evidence`:
    KL is that of all latent variables, global ones included, and q(z) and I(x; z) are not defined.

    Args:
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``. Cost grows
            with N²: some thousand data say enough.
        num_draws: draws of each posterior for the KL.
        seed: of all draws.

    Raises:
        ValueError: if a number is too small, the data cannot be used, the guide is a point, which
            has no KL, or draws a site where its prior has no mass, or a prior is masked, so that
            there is no KL to it.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> idle = latent_information(PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2), torch.randn(50, 5))
    >>> idle.names, idle.kl.shape
    (('z[0]', 'z[1]'), torch.Size([50, 2]))
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        structure = inspect_drawn(model, guide, args)
        check_prior_has_draws(poutine.trace(model).get_trace(*args))
        if structure.points:
            raise ValueError(f"the guide puts {structure.points[0]!r} on one point: it has no KL")
        step = rows_kept(guide) or max(1, SCORED_AT_ONCE // num_draws)
        blocks = [
            tuple(part[start : start + step] for part in args)
            for start in range(0, len(args[0]), step)
        ]
        # With a global latent variable all data are seen at once, as the guide may look at them.
        blocks = [args] if structure.global_latents else blocks
        readings = [_read(model, guide, some, num_draws, structure) for some in blocks]
        found = [_kl_parts(reading) for reading in readings]
        names, kl = found[0][0], torch.cat([part for _, part in found])
        counts = [_counts(reading) for reading in readings]
        count = {name: torch.cat([one[name] for one in counts]) for name in counts[0]}
        is_masked = not all(part.all() for part in count.values())
        angles = {n for n, (q, _) in readings[0].local_sites().items() if is_circular(q["fn"])}
        carried = marginal = torch.full((2,), math.nan, dtype=torch.float64)
        size = rows_of_set(model, rows)  # one datum has no average over data
        note = (
            OTHER_LENGTHS
            if is_masked and flags_of_chains(latent_sites(readings[0].draws.trace))
            else ""
        )
        # Of data with different masks, posteriors have different dimensions and no average.
        if not structure.global_latents and not is_masked and not size:
            try:
                space = latent_space(model, guide, args, structure, discrete=True)
                carried, marginal = _split(space)
            except (UnknownDensityError, VaryingSupportError) as error:
                note = str(error)
        means = posterior_means(model, guide, args)
    return LatentInformation(
        names=names,
        kl=kl,
        mean_variance={
            name: _mean_variance(value.double(), count[name], name in angles)
            for name, value in means.items()
        },
        mutual_information=carried.mean().item(),
        mutual_information_error=_error(carried),
        marginal_kl=marginal.mean().item(),
        marginal_kl_error=_error(marginal),
        note=note,
        counted=_by_part(count, names) if is_masked else None,
        set_rows=size,
        sites=_sites_apart(names, count),
    )


def _sites_apart(names: tuple[str, ...], sites: Iterable[str]) -> tuple[str, ...]:
    """The latent sites, if there are several and each part of the KL belongs to one of them."""
    found = tuple(sites)
    apart = all(any(is_part_of(name, site) for site in found) for name in names)
    return found if len(found) > 1 and apart else ()


def is_part_of(name: str, site: str) -> bool:
    """Whether a part of the KL is a site, or one of its dimensions.

    >>> is_part_of("z1[0]", "z1"), is_part_of("z1", "z1"), is_part_of("z10", "z1")
    (True, True, False)
    """
    return name == site or name.startswith(f"{site}[")


def _counts(reading: Reading) -> dict[str, Tensor]:
    """For which data the elements of a latent site count in the model: by site, (N, elements).

    An element is one of the plates of a site within the data, or a step of a Markov chain.
    """
    found = {}
    for name, (_, p) in reading.local_sites().items():
        mask, event_dim = counted_in(p), len(p["fn"].event_shape)
        if isinstance(p["fn"], Chain):
            mask = mask.any(-1)  # (…, N, T)
            found[name] = mask.reshape(-1, *mask.shape[-2:])[0].cpu()
            continue
        if event_dim:  # an event counts where some of it does
            mask = mask.flatten(-event_dim).any(-1)
        if reading.draws.plated and mask.dim() > reading.draws.nesting:
            mask = mask[0]  # of the plate of samples
        mask = mask.movedim(rows_dim(p), 0)[..., None]
        mask = mask.reshape(
            -1, reading.draws.num_data, mask[0].numel() * len(mask) // mask.shape[0]
        )
        found[name] = mask[0].cpu()
    return found


def _by_part(counts: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    """The same by the parts of the KL, (N, J)."""
    parts = []
    for name, count in counts.items():
        size = sum(is_part_of(part, name) for part in names)
        if size < count.shape[-1]:  # all steps are one part
            count = count.any(-1, keepdim=True)
        parts.append(count.repeat_interleave(size // count.shape[-1], -1))
    return torch.cat(parts, dim=-1)


def _mean_variance(means: Tensor, counts: Tensor, circular: bool) -> Tensor:
    """Variance over the data of posterior means (N, *plates, *event), masked ones left out.

    Of angles, it is that of their distances from their mean direction.
    """
    flat = means.reshape(*counts.shape, -1)
    found = torch.full_like(flat[0], math.nan)
    for index in range(counts.shape[-1]):
        values = flat[counts[:, index], index]
        if circular:
            values = cut_opposite(values, direction(values))
        if len(values) > 1:
            found[index] = values.var(0)
    return found.reshape(means.shape[1:])


def _variance(values: Tensor) -> Tensor:
    """Over the first dimension; NaN of one value, of which PyTorch warns."""
    return values.var(0) if len(values) > 1 else torch.full_like(values[0], math.nan)


def _error(values: Tensor) -> float:
    return (_variance(values) / len(values)).sqrt().item()


def _kl_parts(reading: Reading) -> tuple[tuple[str, ...], Tensor]:
    """Names of the parts that the KL splits into, and KL of each datum and part, (N, J)."""
    draws, trace = reading.draws, reading.model_trace
    drawn = [site for site in latent_sites(trace).values() if not is_summed_out(site)]
    # Sites whose priors share a parent that is summed out have one prior together.
    if draws.enumerated and any(varies(site) for site in drawn):
        terms = read_terms(trace, draws)
        kl = (terms.log_posterior - terms.log_prior).double().mean(0).cpu()
        return (", ".join(reading.structure.local_latents),), kl[:, None]
    return _kl_by_dimension(replace(reading, closed=closed_forms(reading)))


def _read(
    model: Program, guide: Program, args: Any, num_draws: int, structure: Structure
) -> Reading:
    draws = draw(guide, args, num_draws, structure, keep_distributions=True)
    return Reading(model, guide, draws, trace_model(model, draws), structure, frozenset(), 1.0)


def _kl_by_dimension(reading: Reading) -> tuple[tuple[str, ...], Tensor]:
    """Names of the parts, and KL of each datum and part, (N, J)."""
    names: list[str] = []
    parts = []
    for name, kl in zip(reading.local_sites(), reading.kl_by_dimension(), strict=True):
        size = kl.shape[-1]
        names += [name] if size == 1 else [f"{name}[{index}]" for index in range(size)]
        parts.append(kl.double().mean(0).cpu())
    if not parts:
        plate = reading.structure.data_plate
        raise ValueError(f"nothing is latent in {plate}: there is no z to measure")
    return tuple(names), torch.cat(parts, dim=-1)


def _split(space: LatentSpace) -> tuple[Tensor, Tensor]:
    """log q(z|x) − log q(z) and log q(z) − log p(z) at one draw of each posterior, each (N,)."""
    num_data = space.num_data
    points, log_posterior = space.draw(space.guide, 1)
    log_prior = space.log_joint(points)[1][0].double()
    block = max(1, MAX_PAIRS // (num_data * space.size))
    log_aggregated = torch.cat(
        [
            space.log_density(space.guide, some[:, None].expand(-1, num_data, -1))
            .double()
            .logsumexp(1)
            for some in points[0].split(block)
        ]
    ) - math.log(num_data)
    # The same point under the prior of each datum: these differ where the prior is conditional,
    # and then there is no single KL to q(z).
    shared = space.log_joint(points[:, :1].expand(-1, num_data, -1))[1][0]
    marginal = log_aggregated - log_prior
    if not torch.allclose(shared, shared[:1], rtol=1e-4, atol=1e-4):
        marginal = torch.full_like(marginal, math.nan)
    return (log_posterior[0].double() - log_aggregated).cpu(), marginal.cpu()


def judge_information(found: LatentInformation) -> list[Finding]:
    """Whether the posterior has collapsed."""
    kl = found.kl.sum(1).mean().item()
    said = f"KL(q(z|x) ‖ p(z)) is {in_nats(kl)} {per_what(found.set_rows)}"
    # Of one datum, no variance over the data is known.
    if found.num_data > 1:
        said += f", {found.active_units} of {found.latent_dim} latent dimensions are in use"
    if found.set_rows:
        return [_judge_set(found, said)]
    if found.sites:
        said += f" ({_say_sites(found)})"
    if found.collapsed:
        text = f"{said}: the posterior has collapsed onto the prior, z says nothing about x."
        return [Finding("information", Level.BAD, text)]
    if found.idle:
        names = ", ".join(found.idle[:5]) + (", …" if len(found.idle) > 5 else "")
        said += f"; idle: {names}"
    level = Level.WARNING if found.idle else Level.GOOD
    if found.num_data < MIN_AGGREGATED_DATA:  # too few for their average to stand for q(z)
        return [Finding("information", level, f"{said}.")]
    mutual, marginal = found.mutual_information, found.marginal_kl
    if math.isnan(mutual):  # not defined, with a global latent variable
        said += f". I(x; z) is not known: {found.note}" if found.note else ""
        return [Finding("information", level, f"{said}.")]
    if found.limit - mutual < SATURATED_NATS:
        said += (
            f". z tells the {found.num_data:,} data apart: I(x; z) is at least {in_nats(mutual)} "
            "nats, close to the most that so many data can show"
        )
        if not math.isnan(marginal):
            said += (
                f", and the aggregated posterior at most {in_nats(marginal)} nats from the prior"
            )
        return [Finding("information", level, f"{said}.")]
    said += f". I(x; z) is {in_nats(mutual)} nats"
    if not math.isnan(marginal):
        said += f", the aggregated posterior {in_nats(marginal)} nats from the prior"
        if marginal > TOLERATED_MARGINAL_KL + 3 * found.marginal_kl_error:
            said += ": draws of the prior fall where the decoder was not trained"
            level = Level.WARNING
    return [Finding("information", level, f"{said}.")]


def _say_sites(found: LatentInformation) -> str:
    """The KL of each latent site, and which of them say nothing about x."""
    shown = list(found.kl_by_site.items())[:MOST_SITES]
    told = ", ".join(f"{name} {in_nats(kl)}" for name, kl in shown)
    told += ", …" if len(found.sites) > MOST_SITES else ""
    unused = [name for name in found.sites if name not in found.sites_in_use]
    if not unused:
        return f"by site: {told}; all {len(found.sites)} are in use"
    names = ", ".join(unused[:MOST_SITES]) + (", …" if len(unused) > MOST_SITES else "")
    return f"by site: {told}; not in use: {names}"


def _judge_set(found: LatentInformation, said: str) -> Finding:
    """What is said of a whole data set: it may well say nothing about one of many variables."""
    if found.collapsed:
        text = f"{said}: the posterior of all latent variables is their prior."
        return Finding("information", Level.WARNING, text)
    if found.idle:
        names = ", ".join(found.idle[:5]) + (", …" if len(found.idle) > 5 else "")
        said += f"; the posterior is the prior (KL below {IDLE_KL} nats) of: {names}"
    return Finding("information", Level.GOOD, f"{said}.")


def plot_information(information: LatentInformation) -> "Figure":
    """Mean KL of each latent dimension; and I(x; z) and the aggregated posterior's KL, with log N.

    >>> import torch
    >>> kl = torch.tensor([[2.0, 0.0], [1.0, 0.001]])
    >>> figure = plot_information(LatentInformation(("a", "b"), kl, {}, 0.6, 0.1, 0.9, 0.1))
    >>> figure.axes[0].get_title()
    '2 dimensions, 1 idle'
    """
    mean = information.kl.mean(0)
    lost = int((~mean.isfinite()).sum())
    mean = mean.nan_to_num(0.0, 0.0, 0.0).numpy()
    rank = np.zeros(len(mean))
    for number, site in enumerate(information.sites):
        rank[information.parts_of(site)] = number
    order = np.lexsort((-mean, rank))
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
        # Linear up to the threshold, which would be invisible on a linear scale.
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
        by = "by site, and by KL" if information.sites else "by KL"
        write_below(ax, f"latent dimensions, {by}", note)
        _mark_sites(ax, information)
        if len(mean) <= NAMED_DIMENSIONS:
            names = [shorten(information.names[index]) for index in order]
            crowded = len(names) * max(map(len, names)) > 40
            ax.set_xticks(
                place, names, rotation=60 if crowded else 0, ha="right" if crowded else "center"
            )
        else:
            integer_ticks(ax)
        many = counted(len(mean), "dimension", "dimensions")
        ax.set_title(f"{many}, {len(information.idle)} idle")
        _draw_whole(whole, information)
        legend_below(figure, ax, whole, columns=4)
    return figure


def _mark_sites(ax: "Axes", information: LatentInformation) -> None:
    """Separate the bars of latent sites, and write the KL of each above them."""
    start, kls = 0, information.kl_by_site
    if kls:
        ax.set_ylim(top=2 * ax.get_ylim()[1])
    for site, kl in kls.items():
        stop = start + len(information.parts_of(site))
        if start:
            ax.axvline(start - 0.5, color="black", linewidth=0.6)
        if len(kls) <= MOST_SITES:
            style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": "small"}
            place = (start + stop - 1) / 2, 0.98
            text = f"{shorten(site)}\n{signed(f'{kl:.2f}')}"
            ax.text(*place, text, transform=ax.get_xaxis_transform(), **style)
        start = stop


def _plain_ticks(ax: "Axes") -> None:
    """Numbers of nats in full, on a scale that is linear near zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.yaxis.set_major_locator(FixedLocator([-1, -0.1, 0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(f"{value:g}")))


def _draw_whole(ax: "Axes", information: LatentInformation) -> None:
    """I(x; z) and KL(q(z) ‖ p(z)), stacked, beside log N."""
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
        show_text(ax, "I(x; z) is not\ndefined here")
        return
    label = f"log N = {information.limit:.2f}"
    ax.axhline(information.limit, color="black", linewidth=0.8, linestyle=":", label=label)
    ax.set(xlim=(-0.5, 2.2), xticks=[], ylabel="nats", title="all together")
    write_beside(ax, labels, 0.2)


def _run(context: DiagnosticContext) -> LatentInformation:
    return latent_information(*context.pair, context.rows, seed=context.seed)


def _numbers(found: LatentInformation) -> list[Number]:
    active = f"{found.active_units} of {found.latent_dim}"
    kl = Number("kl", found.kl.sum(1).mean().item(), "KL(q(z|x) ‖ p(z))", per_what(found.set_rows))
    if found.set_rows:
        return [kl, Number("idle", list(found.idle)), Number("collapsed", found.collapsed)]
    return [
        kl,
        *_numbers_of_sites(found),
        Number("mutual_information", found.mutual_information, "I(x; z)", "nats"),
        Number(
            "marginal_kl",
            found.marginal_kl,
            "KL(q(z) ‖ p(z)) of the aggregated posterior",
            "nats",
        ),
        Number("active_units", found.active_units, "latent dimensions in use", text=active),
        Number("idle", list(found.idle)),
        Number("collapsed", found.collapsed),
    ]


def _numbers_of_sites(found: LatentInformation) -> list[Number]:
    if not found.sites:
        return []
    of_sites = [
        Number(f"kl_{name}", kl, f"KL of {name}", "nats per datum", is_part=True)
        for name, kl in found.kl_by_site.items()
    ]
    return [*of_sites, Number("sites_in_use", list(found.sites_in_use))]


LATENT_INFORMATION = Diagnostic(
    name="information",
    question="How much do the latent variables say about x?",
    topics=("information",),
    run=_run,
    judge=judge_information,
    figures=(
        DiagnosticFigure(
            "information",
            "Left: mean KL of each latent dimension, on a scale that is linear up to the dashed "
            "line and logarithmic above. Good: all above the line. Those below it are idle; if all "
            "are, the posterior has collapsed. Several latent sites stand side by side, each with "
            "the KL of all its dimensions. Right: the mutual information I(x; z), and the KL "
            "from the aggregated posterior to the prior. Where the blue bar is close to log N, the "
            "data are too few: I(x; z) is then at least that large, and the KL at most as large as "
            "drawn.",
            plot_information,
        ),
    ),
    numbers=_numbers,
    per_datum=True,
    judges_draws=True,
)
"""KL of each latent dimension, active units, mutual information, the aggregated posterior's KL."""
