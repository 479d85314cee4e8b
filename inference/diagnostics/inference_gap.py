"""Where is the bound loose? What is lost by the guide's family, and what by its encoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ..common.arguments import check_least
from ..common.plotting import (
    BLUE,
    ORANGE,
    RED,
    SKY,
    dots,
    grid,
    integer_ticks,
    legend_below,
    marker_size,
    signed,
    text_figure,
    write_below,
    write_beside,
)
from ..common.progress import Advance, progress
from ..common.seeding import set_seed
from ..data.whole_set import open_posterior, rows_of_set
from ..evidence.importance_sampling import inspect_local
from ..evidence.pareto_smoothing import summarize_weights
from ..execution.recorded import Recorded
from ..pairs.calling import called_as_written
from ..pairs.latent_space import latent_space
from ..pairs.log_terms import draw, log_density_at, score
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import DRAWS_AT_ONCE, Scorer
from ..pairs.structure import Structure
from .diagnostic import Diagnostic, DiagnosticContext, DiagnosticFigure, Number, per_datum
from .finding import TOLERATED_NATS, Finding, Level, in_nats, name_data, per_what
from .khat import KHAT_LABEL
from .local_posteriors import LocalPosterior, check_flat, full_rank, own_family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import Dataset

KHAT_GOOD = 0.7
"""Pareto k̂ up to which the error of an estimate can be trusted."""


TOLERATED_UNTRUSTED_SHARE = 0.1
"""Share of the data whose log p(x) may have a k̂ above :data:`KHAT_GOOD` without being named."""


@dataclass(frozen=True)
class InferenceGap:
    """log p(x) − ELBO of N data in two parts, in nats; every tensor is (N,), float64, on CPU."""

    log_px: Tensor
    """log p(x) by importance sampling; the proposal is, of encoder and local posteriors, the
    one with the least error whose k̂ is good."""
    log_px_error: Tensor
    """Its Monte Carlo standard error."""
    khat: Tensor
    """Pareto k̂ of its weights."""
    elbo: Tensor
    """The ELBO of the guide itself."""
    elbo_local: Tensor
    """The best ELBO found in the guide's own family; NaN where the family cannot be refined."""
    elbo_full_rank: Tensor
    """The best found among full-rank normals of the unconstrained latent variables."""
    elbo_error: Tensor
    """Monte Carlo standard error of ``elbo``; ``elbo_local``'s is about the same."""
    local: Program | None = field(repr=False)
    """The posteriors of ``elbo_local``, a guide for these data; ``None`` where there are none."""
    full_rank: Program = field(repr=False)
    """The posteriors of ``elbo_full_rank``, a guide for these data: nearest to the posterior in z.

    The ELBO penalizes draws outside the posterior strongly, and a tail that is left out hardly. So,
    as proposals, local posteriors can have a worse k̂ than the encoder, with more effective draws.
    """
    set_rows: int = 0
    """Rows of the data set, where it is one datum as latent variables are global; else 0."""
    reason: str = ""
    """Why the parts ``approximation`` and ``amortization`` are NaN; empty where they are known."""

    def __repr__(self) -> str:
        return (
            f"InferenceGap(total={self.total.mean():.3f} nats, approximation="
            f"{self.approximation.mean():.3f}, amortization={self.amortization.mean():.3f}, "
            f"N={len(self.elbo)}{f'; {self.reason}' if self.reason else ''})"
        )

    @property
    def approximation(self) -> Tensor:
        """log p(x) − the best ELBO of the family: the loss that no parameters can mend."""
        return self.log_px - self.elbo_local

    @property
    def amortization(self) -> Tensor:
        """The best ELBO of the family − the encoder's: the loss that a better encoder can mend."""
        return self.elbo_local - self.elbo

    @property
    def total(self) -> Tensor:
        """log p(x) − ELBO."""
        return self.log_px - self.elbo


def inference_gap(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_steps: int = 300,
    num_draws: int = 8,
    learning_rate: float = 0.05,
    num_samples: int = 1000,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> InferenceGap:
    """Split log p(x) − ELBO of each datum (Cremer, Li and Duvenaud 2018, arXiv 1801.03558).

    ::

        log p(x) − ELBO(q) = [log p(x) − max_{q′ in family} ELBO(q′)] + [max ELBO(q′) − ELBO(q)]
                           =   approximation gap                      +  amortization gap

    The model held fixed, each datum gets parameters of its own, found by Adam from where the guide
    puts it: once in the guide's own family, and from there as a full-rank normal of the
    unconstrained latent variables. The family of a guide with methods ``features`` and ``family``,
    as ours, is that of all features; of one with ``local_parameters`` and ``run_local``, as those
    of a hierarchy, that of the numbers that it names: see
    :meth:`latente.guides.TopDown.local_parameters`; of any other guide, that of its distributions'
    parameters. A family cannot be refined where a distribution has no parameters known to PyTorch
    (a flow), or parameters that depend on other draws: then the two parts are NaN, ``reason`` says
    why, and the total is still known.

    Where latent variables are global, the whole data set is one datum, as in :func:`log_evidence`:
    all are fitted together, and what the guide loses to its own family is lost by its fit.

    Args:
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``. Cost grows
            with N: some hundred data say enough.
        num_steps: gradient steps; the rate falls to zero over them.
        num_draws: draws of each posterior in a step.
        learning_rate: Adam's, at first.
        num_samples: draws by which the ELBOs and log p(x) are then measured.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, a latent site is discrete, or inside a plate of its
            own to the left of the data, or log p(x) is not defined (see :func:`log_evidence`).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.inference import log_evidence
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> x = torch.randn(3, 5)
    >>> gap = inference_gap(model, guide, x, num_steps=100)
    >>> bool(((gap.log_px - model.log_prob(x)).abs() < 0.01).all())
    True
    >>> evidence = log_evidence(model, gap.full_rank, x)  # the local posteriors, as a guide
    """
    check_least(
        {
            "num_steps": (num_steps, 1),
            "num_draws": (num_draws, 1),
            "num_samples": (num_samples, 2),
        }
    )
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(seed)
        structure = inspect_local(model, guide, args)
        fitting = _Fitting(model, args, structure, num_steps, num_draws, learning_rate)
        with progress("local posteriors", 2 * num_steps, show=show_progress) as advance:
            space = latent_space(model, guide, args, structure)
            check_flat(space)
            encoder = _measure(model, guide, args, structure, num_samples)
            own = own_family(guide, args)
            local = None if isinstance(own, str) else fitting.best(own, advance)
            wide = fitting.best(full_rank(space, local or guide, num_samples), advance)
        measured = _measure(model, local, args, structure, num_samples) if local else None
        richest = _measure(model, wide, args, structure, num_samples)
    unknown = torch.full_like(encoder["elbo"], torch.nan)
    trusted = _most_trusted([richest, encoder, *([measured] if measured else [])])
    return InferenceGap(
        log_px=trusted["log_px"],
        log_px_error=trusted["standard_error"],
        khat=trusted["khat"],
        elbo=encoder["elbo"],
        elbo_local=measured["elbo"] if measured else unknown,
        elbo_full_rank=richest["elbo"],
        elbo_error=encoder["error"],
        local=None if local is None else called_as_written(model, local),
        full_rank=called_as_written(model, wide),
        set_rows=rows_of_set(model, rows),
        reason=own if isinstance(own, str) else "",
    )


@dataclass(frozen=True)
class _Fitting:
    """How the parameters of each datum are fitted."""

    model: Program
    args: tuple[Tensor, ...]
    structure: Structure
    num_steps: int
    num_draws: int
    learning_rate: float

    def best(self, start: LocalPosterior, advance: Advance) -> LocalPosterior:
        """The posterior whose parameters make each datum's ELBO largest, from a start."""
        leaves = [value.detach().clone().requires_grad_() for value in start.parameters]
        # Adam scales each parameter by itself, so the data are fitted independently.
        optimizer = torch.optim.Adam(leaves, self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps)
        slopes = Recorded(partial(self._slopes, start))
        for step in range(self.num_steps):
            for leaf, slope in zip(leaves, slopes(*map(torch.detach, leaves)), strict=True):
                leaf.grad = None if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)
            optimizer.step()
            schedule.step()
            advance(1, f"step {step + 1} of {self.num_steps}")
        found = [leaf.detach() for leaf in leaves]
        return LocalPosterior(self.args, found, start.sampler)

    def _slopes(self, start: LocalPosterior, *leaves: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the loss with respect to each parameter."""
        with torch.enable_grad():
            given = [leaf.detach().requires_grad_() for leaf in leaves]
            bound = self._bound(start, given)
            # A datum whose bound is not finite takes no step, and does not stop the others.
            loss = -torch.where(bound.isfinite(), bound, 0.0).sum()
            # Not backward(): the pair's own parameters must get no gradient.
            return torch.autograd.grad(loss, given, allow_unused=True)

    def _bound(self, start: LocalPosterior, leaves: list[Tensor]) -> Tensor:
        """log p(x, z) − log q(z), with gradients through z only: without noise where q is exact.

        Source: Roeder, Wu and Duvenaud 2017 (arXiv 1703.09194).
        """
        draws = draw(start.with_parameters(leaves), self.args, self.num_draws, self.structure)
        still = start.with_parameters([leaf.detach() for leaf in leaves])
        log_posterior = log_density_at(still, draws)
        terms = score(self.model, draws)
        return (terms.log_likelihood + terms.log_prior - log_posterior).mean(0)


def _measure(
    model: Program, guide: Program, args: tuple[Tensor, ...], structure: Structure, num_samples: int
) -> dict[str, Tensor]:
    """Evidence and ELBO of each datum by S draws, with their errors, each (N,)."""
    blocks, scorer = [], Scorer(model, guide, structure, compile="plain")
    step = max(1, DRAWS_AT_ONCE // num_samples)
    for begin in range(0, len(args[0]), step):
        block = tuple(value[begin : begin + step] for value in args)
        terms = scorer.terms(block, num_samples)
        log_weight = torch.cat([part.log_weight.double() for part in terms]).cpu()
        error = log_weight.std(0) / math.sqrt(num_samples)
        blocks.append({**summarize_weights(log_weight), "elbo": log_weight.mean(0), "error": error})
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _most_trusted(measured: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each datum, the figures of the proposal whose error is least, among those of good k̂."""
    scores = []
    for one in measured:
        khat = one["khat"].nan_to_num(math.inf, math.inf, -math.inf)
        # Where k̂ is bad, the error may be far too small: then k̂ itself decides.
        scores.append(torch.where(khat <= KHAT_GOOD, one["standard_error"], 1e6 * (1 + khat.abs())))
    best = torch.stack(scores).argmin(0, keepdim=True)
    return {
        name: torch.stack([one[name] for one in measured]).gather(0, best)[0]
        for name in measured[0]
    }


def judge_gap(gap: InferenceGap) -> list[Finding]:
    """Where the bound is loose."""
    total, count = gap.total.mean().item(), len(gap.elbo)
    if not math.isfinite(total):
        text = "The ELBO is −∞ for some data: the guide has draws where the model has no density."
        return [Finding("gap", Level.WARNING, text)]
    of_data = name_data(count, gap.set_rows)
    said = f"The ELBO is {in_nats(total)} nats below log p(x) ({of_data})"
    encoders, each = ("the fit", "it") if gap.set_rows else ("the encoder", "each datum")
    if gap.local is None:
        gain = (gap.elbo_full_rank - gap.elbo).mean().item()
        said += (
            f"; the guide's family cannot be fitted to one datum"
            f"{f', as {gap.reason}' if gap.reason else ''}; full-rank normals fitted to {each} "
            f"gain {in_nats(gain)}"
        )
    else:
        family, encoder = gap.approximation.mean().item(), gap.amortization.mean().item()
        said += f": {in_nats(family)} are due to the family, {in_nats(encoder)} to {encoders}"
        if total >= TOLERATED_NATS:
            better = "fit" if gap.set_rows else "encoder"
            longer = "longer fit" if gap.set_rows else "longer fit or a better encoder"
            said += (
                f". A {longer} would gain more than a richer family"
                if encoder > family
                else f". A richer family would gain more than a better {better}"
            )
    bad = (gap.khat > KHAT_GOOD).double().mean().item()
    if bad > TOLERATED_UNTRUSTED_SHARE:
        share = "" if gap.set_rows else f" for {bad:.0%}"
        said += f" (k̂ of that log p(x) is above {KHAT_GOOD}{share}: the gap may be larger)"
    level = Level.GOOD if total < TOLERATED_NATS else Level.WARNING
    return [Finding("gap", level, f"{said}.")]


def plot_gap(gap: InferenceGap) -> "Figure":
    """log p(x) − ELBO of each datum in its two parts, by size, and their means.

    Where the family cannot be taken apart: the whole, and what full-rank normals gain of it.

    >>> import torch
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
            f"amortization: the {'fit' if gap.set_rows else 'encoder'}'s": (
                gap.amortization[shown].numpy(),
                BLUE,
                None,
            ),
            "approximation: the family's": (gap.approximation[shown].numpy(), ORANGE, "///"),
        }
    else:
        parts = {"log p(x) − ELBO": (total, SKY, None)}
    if count == 0:
        return text_figure(f"log p(x) − ELBO is not finite for any of {len(shown)} data")
    with grid(2.9, 1, 2, width_ratios=(3, 1.3)) as (figure, ((ax, means),)):
        bottom = np.zeros(count), np.zeros(1)
        for name, (values, colour, hatch) in parts.items():
            style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            # Noise can make a part negative: it is then drawn downwards.
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
        write_below(ax, "" if gap.set_rows else "data, by log p(x) − ELBO", note)
        for panel in (ax, means):
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, -0.005), max(high, 0.1))  # a tiny gap must look tiny
        _name_means(means, total, {name: values for name, (values, *_) in parts.items()})
        if gap.set_rows:
            ax.set_xticks([])
        else:
            integer_ticks(ax)
        bad = int((gap.khat > KHAT_GOOD).sum())
        note = f"; {KHAT_LABEL} of log p(x) is above {KHAT_GOOD} for {bad}" if bad else ""
        ax.set_title(name_data(count, gap.set_rows) + note)
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


def _run(context: DiagnosticContext) -> InferenceGap:
    return inference_gap(
        *context.pair,
        context.first(context.budget.gap_data),
        num_steps=context.budget.gap_steps,
        seed=context.seed,
        show_progress=context.show_progress,
    )


def _numbers(gap: InferenceGap) -> list[Number]:
    unit, size = per_what(gap.set_rows), gap.set_rows
    label = "log p(x) − ELBO" if size else "log p(x) − ELBO, of the first data"
    parts = (
        ("inference_gap", gap.total, label, False),
        ("approximation_gap", gap.approximation, "due to the family", True),
        ("amortization_gap", gap.amortization, f"due to the {'fit' if size else 'encoder'}", True),
    )
    unknown = f"not known: {gap.reason}" if gap.reason else ""
    numbers = [
        Number(key, value.mean().item(), label, unit, is_part=is_part,
               text=unknown if is_part else "")
        for key, value, label, is_part in parts
    ]  # fmt: skip
    return [*numbers, Number("gap_parts_unknown", gap.reason)] if gap.reason else numbers


def _groups(gap: InferenceGap) -> "Mapping[str, Dataset]":
    names = ("log_px", "elbo", "elbo_local", "elbo_full_rank", "khat")
    return {"inference_gap": per_datum({name: getattr(gap, name) for name in names})}


INFERENCE_GAP = Diagnostic(
    name="gap",
    question="Where is the bound loose?",
    topics=("gap",),
    run=_run,
    judge=judge_gap,
    figures=(
        DiagnosticFigure(
            "gap",
            "How far the ELBO of each datum is below log p(x). Good: close to zero. Where the "
            "encoder's part is large, a longer fit or a larger encoder would help; where the "
            "family's part is large, a richer posterior. A part below zero is noise, or the fit "
            "to that datum has not converged.",
            plot_gap,
        ),
    ),
    numbers=_numbers,
    groups=_groups,
    per_datum=True,
    judges_draws=True,
    applies=lambda context: context.budget.gap_data > 0,
)
"""log p(x) − ELBO, split into what the family and what the encoder loses."""
