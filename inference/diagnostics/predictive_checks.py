"""Could the model have made these data? Quantities of the data, and of replicated data sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.plotting import BLUE, RED, counted, grid, legend_below, num_bins
from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.rows import BLOCK_ROWS
from ..pairs.checks import check_support
from ..pairs.enumeration import draw_summed_out
from ..pairs.inspection import inspect_drawn
from ..pairs.observed_values import ObservedValues, find_observed_values
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import global_latent_sites
from ..pairs.structure import Structure
from ..simulation.ancestral import draw_data
from ..simulation.simulate import check_defines_data, check_prior_can_be_drawn
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure
from .finding import Finding, Level, not_looked_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FALSE_ALARM_RATE = 0.05
"""Probability of any alarm among the checks of a model that did make the data."""


Quantity = Callable[[Tensor], Any]
"""A function of a data set x (N, *event_shape) that gives one number."""


DEFAULT_QUANTITIES: dict[str, Quantity] = {
    "mean": lambda x: x.double().mean(),
    "standard deviation": lambda x: x.double().std(correction=0),
    "sd of data means": lambda x: x.double().reshape(len(x), -1).mean(1).std(correction=0),
    "smallest": lambda x: x.min(),
    "largest": lambda x: x.max(),
    "share of zeros": lambda x: (x == 0).double().mean(),
}
"""The quantities of :func:`predictive_check` if none are given: level, spread, spread between data
apart from that within each, extremes, and zeros. A quantity that cannot vary, such as the extremes
of bits, has the p-value ½."""


@dataclass(frozen=True)
class PredictiveCheck:
    """A quantity T of the data, and of S replicated data sets."""

    observed: float
    """T(x)."""
    replicated: Tensor
    """T of each replicated data set, (S,), float64, on CPU."""

    @property
    def p_value(self) -> float:
        """P(T(x_rep) > T(x)) + ½ P(T(x_rep) = T(x)), over the replicated data sets."""
        above = (self.replicated > self.observed).double()
        ties = (self.replicated == self.observed).double()
        return (above + ties / 2).mean().item()

    @property
    def two_sided(self) -> float:
        """2 min(p, 1 − p): small where T(x) lies in either tail."""
        return 2 * min(self.p_value, 1 - self.p_value)

    def __repr__(self) -> str:
        return (
            f"PredictiveCheck(observed={self.observed:.4g}, replicated="
            f"{self.replicated.mean().item():.4g} ± {self.replicated.std(correction=0).item():.2g},"
            f" p={self.p_value:.3f}, S={len(self.replicated)})"
        )


def predictive_check(
    model: Program,
    guide: Program,
    data: Any,
    quantities: Mapping[str, Quantity] = DEFAULT_QUANTITIES,
    *,
    num_samples: int = 200,
    from_prior: bool = False,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, PredictiveCheck]:
    """Compare quantities of the data with those of data sets that the fitted model makes.

    ::

        p = P(T(x_rep) > T(x)) + ½ P(T(x_rep) = T(x))
        posterior predictive:  zₙ ~ q(z|xₙ),  x_rep,ₙ ~ p(x|zₙ)
        prior predictive:      zₙ ~ p(z),     x_rep,ₙ ~ p(x|zₙ)

    Sites that are summed out are drawn from their exact posterior given x and the other sites, or
    from their prior. Latent variables outside the data plate are drawn once for each replicated
    data set, from the guide or from their prior. Covariates, and the values of conditioned sites,
    stay as they are.

    If the model observes several arguments, ``model(x, y)`` say, all are replicated, and each
    quantity is asked of each: ``"mean of x"``, ``"mean of y"``, by the name of the site. Sites that
    observe parts of one argument (``x[:, t]``) are drawn in their order, each given those before
    it, and the quantities see the whole argument.

    Prior predictive p-values are uniform if the data come from the model as it stands. Posterior
    predictive ones are not: zₙ was found from the very xₙ that is then checked, so the data are
    used twice, and p keeps nearer to ½ than a uniform number would (Gelman, Meng and Stern 1996;
    Robins, van der Vaart and Ventura 2000). They are conservative: an extreme one says that the
    model cannot make such data even with z inferred from them, one near ½ says little.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or (x, *context); the test part, of what :func:`load_data`
            returns.
        quantities: by name, functions of a data set x (N, *event_shape), on CPU, each giving one
            number; :data:`DEFAULT_QUANTITIES` if not given.
        num_samples: S, replicated data sets.
        from_prior: whether latent variables come from the model's prior.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: of the draws.
        show_progress: show the replications done.

    Raises:
        ValueError: if S < 1, there is no quantity, or one gives no finite number, the data cannot
            be used, a site outside the data plate is summed out, or the model does not define how
            its data are drawn: see :func:`simulate`.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(0.8 * x, 0.45))
    >>> x = torch.linspace(-1, 1, 50)
    >>> x[0] = 30.0
    >>> checks = predictive_check(model, guide, x, {"largest": lambda x: x.max()}, from_prior=True)
    >>> checks["largest"].p_value
    0.0
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not quantities:
        raise ValueError("there is no quantity to check: give functions of x by name")
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    num_rows = len(rows[0])
    device, dtype = placement(model, guide)
    blocks = [
        place(tuple(part[start : start + BLOCK_ROWS] for part in rows), device, dtype)
        for start in range(0, num_rows, BLOCK_ROWS)
    ]
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        for number, args in enumerate(blocks):
            check_support(model, guide, args, "data", number * BLOCK_ROWS)
        structure = inspect_drawn(model, guide, blocks[0])
        observed = _check_draws_data(model, guide, blocks[0])
        if from_prior:
            check_prior_can_be_drawn(model, blocks[0], observed)
        asked = _ask_of_each(quantities, observed)
        of_data = _compute(asked, blocks)
        of_replicated = {name: torch.empty(num_samples, dtype=torch.float64) for name in asked}
        # A guide may compute shared variables from all data: it must see them together.
        together = structure.global_latents and not from_prior
        whole = tuple(map(torch.cat, zip(*blocks, strict=True))) if together else None
        places = _Places(model, guide)
        with (
            pyro.validation_enabled(False),
            progress("predictive check", num_samples, show=show_progress) as advance,
        ):
            for sample in range(num_samples):
                drawn = _replicate(model, guide, blocks, places, whole, from_prior, structure)
                for name, value in _compute(asked, drawn).items():
                    of_replicated[name][sample] = value
                advance(1, f"{sample + 1} of {num_samples} replications")
    return {name: PredictiveCheck(of_data[name], of_replicated[name]) for name in asked}


def _ask_of_each(
    quantities: Mapping[str, Quantity], observed: ObservedValues
) -> dict[str, tuple[int, Quantity]]:
    """The quantities by name, each with the number of the argument that it is asked of."""
    names = observed.names
    return {
        quantity if len(names) == 1 else f"{quantity} of {name}": (number, function)
        for number, name in names.items()
        for quantity, function in quantities.items()
    }


def _compute(
    asked: Mapping[str, tuple[int, Quantity]], blocks: Sequence[tuple[Tensor, ...]]
) -> dict[str, float]:
    """The quantities of a data set, given in blocks."""
    numbers = {number for number, _ in asked.values()}
    whole = {number: torch.cat([args[number] for args in blocks]).cpu() for number in numbers}
    return {name: _number(name, quantity(whole[n])) for name, (n, quantity) in asked.items()}


def _number(name: str, value: Any) -> float:
    """The value of a quantity, as a number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        shown = f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape else "")
    else:
        if isfinite(number):
            return number
        shown = str(number)
    raise ValueError(
        f"the quantity {name!r} gives {shown}: it must give one finite number for a data set x"
    )


class _Places:
    """Where the observed values stand in blocks of data, found once for each size of a block."""

    def __init__(self, model: Program, guide: Program):
        self.model, self.guide = model, guide
        self._found: dict[int, ObservedValues] = {}

    def of(self, args: tuple[Tensor, ...]) -> ObservedValues:
        """The places in a block of data."""
        size = len(args[0])
        if size not in self._found:
            with torch.random.fork_rng():
                given = poutine.trace(self.guide).get_trace(*args)
            program = poutine.replay(self.model, trace=given)
            self._found[size] = find_observed_values(program, args)
        return self._found[size]


def _replicate(
    model: Program,
    guide: Program,
    blocks: list[tuple[Tensor, ...]],
    places: _Places,
    whole: tuple[Tensor, ...] | None,
    from_prior: bool,
    structure: Structure,
) -> list[tuple[Tensor, ...]]:
    """One replicated data set, in blocks.

    Args:
        whole: all data at once, where the guide draws latent variables that they share.
    """
    shared = Trace()
    if whole is not None:
        shared = global_latent_sites(poutine.trace(guide).get_trace(*whole))
    parts = []
    for args in blocks:
        given, observed = shared, places.of(args)
        if not from_prior:
            given = poutine.trace(poutine.replay(guide, trace=shared)).get_trace(*args)
        if not from_prior and structure.enumerated:
            given = draw_summed_out(model, args, given, -1 - structure.nesting)
        # One site was checked to be drawn at once; of several, each may depend on those before.
        check = len(observed.places) > 1
        replicated, drawn = draw_data(model, args, observed, given, check=check)
        shared = shared or global_latent_sites(drawn)
        parts.append(replicated)
    return parts


def _check_draws_data(model: Program, guide: Program, args: tuple[Tensor, ...]) -> ObservedValues:
    """Refuse a model that does not define how data are drawn; find what its sites observe."""
    with pyro.validation_enabled(False), plain_errors():
        given = poutine.trace(guide).get_trace(*args)
    program = poutine.replay(model, trace=given)
    observed = find_observed_values(program, args)
    check_defines_data(program, args, observed)
    draw_data(model, args, observed)
    return observed


def unlike(checks: Mapping[str, PredictiveCheck]) -> dict[str, PredictiveCheck]:
    """The quantities in which the data are unlike the replicated data sets.

    The two-sided p-value of each, 2 (least count + 1) / (S + 1), counts the data as one more of the
    S replications, and is below 5 % divided by the number of quantities (Bonferroni).
    """
    level = FALSE_ALARM_RATE / max(1, len(checks))
    return {
        name: check
        for name, check in checks.items()
        for count in [len(check.replicated)]
        if (check.two_sided * count + 2) / (count + 1) < level
    }


@dataclass(frozen=True)
class PredictiveChecks:
    """Posterior and prior predictive checks of the same quantities."""

    posterior: Mapping[str, PredictiveCheck] | None
    """By the name of the quantity; ``None`` where it could not be checked."""
    prior: Mapping[str, PredictiveCheck] | None
    not_checked: tuple[Finding, ...] = ()
    """The findings that say why."""


def judge_checks(found: PredictiveChecks) -> list[Finding]:
    """Whether the model makes data like these."""
    checked = {"posterior": found.posterior, "prior": found.prior}
    findings = [_judge(name, checks) for name, checks in checked.items() if checks is not None]
    return sorted([*findings, *found.not_checked], key=lambda finding: finding.topic)


def _judge(distribution: str, checks: Mapping[str, PredictiveCheck]) -> Finding:
    """The finding of the checks against data drawn from one of the two distributions."""
    topic, made = f"{distribution} predictive", f"data sets replicated from the {distribution}"
    odd, threshold = unlike(checks), FALSE_ALARM_RATE / len(checks)
    replications = min(len(check.replicated) for check in checks.values())
    if 2 / (replications + 1) >= threshold:
        level, needed = Level.NOTE, int(2 / threshold) + 1
        text = (
            f"{replications} replications are too few to judge {len(checks)} quantities by. "
            f"Take {needed}, by Budget(replications={needed}) or num_samples={needed}."
        )
    elif not odd:
        level = Level.GOOD
        text = f"In {counted(len(checks), 'quantity', 'quantities')} the data are like {made}."
    else:
        level = Level.WARNING
        told = "; ".join(
            f"{name} is {check.observed:.4g}, in them {check.replicated.mean():.4g} ± "
            f"{check.replicated.std():.2g}"
            for name, check in odd.items()
        )
        text = (
            f"The data are unlike {made}: {told}. (Test data can differ from training data, too.)"
        )
    return Finding(topic, level, text, about_model=True)


def plot_checks(
    checks: Mapping[str, PredictiveCheck] | None,
    prior_checks: Mapping[str, PredictiveCheck] | None = None,
) -> "Figure":
    """Quantities of the data (lines) and of replicated data sets (histograms).

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
        # Where nothing varies, one bar wide enough to be seen.
        edges: Any = (
            num_bins(len(drawn))
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


def _run(context: DiagnosticContext) -> PredictiveChecks:
    found: dict[str, Mapping[str, PredictiveCheck] | None] = {"posterior": None, "prior": None}
    not_checked = []
    for distribution in found:
        try:
            found[distribution] = predictive_check(
                *context.pair,
                context.rows,
                context.quantities,
                num_samples=context.budget.replications,
                from_prior=distribution == "prior",
                seed=context.seed,
                show_progress=context.show_progress,
            )
        except Exception as error:  # a user's quantity may fail in any way
            not_checked.append(not_looked_at(f"{distribution} predictive", error))
    return PredictiveChecks(found["posterior"], found["prior"], tuple(not_checked))


def _plot(found: PredictiveChecks) -> "Figure | None":
    return plot_checks(found.posterior, found.prior) if found.posterior or found.prior else None


PREDICTIVE_CHECKS = Diagnostic(
    name="checks",
    question="Could the model have made these data?",
    topics=("posterior predictive", "prior predictive"),
    run=_run,
    judge=judge_checks,
    figures=(
        DiagnosticFigure(
            "checks",
            "A quantity of the data (line) and of replicated data sets (histograms). Good: the "
            "line is inside both. Outside the filled histogram, the model cannot make such data "
            "even with z inferred from them. Outside the outlined one only, its prior does not "
            "fit the data. Each histogram is scaled to its own peak.",
            _plot,
        ),
    ),
    applies=lambda context: context.budget.replications > 0,
)
"""Posterior and prior predictive checks; they judge the model, not the posterior."""
