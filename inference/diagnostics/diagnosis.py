"""Can this posterior be trusted? All diagnostics of a pair in one call."""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..common.arguments import check_least
from ..data.datasets import evaluation_rows
from ..data.rows import Rows
from ..evaluation.arviz_export import to_datatree
from ..evaluation.leave_one_out import psis_loo
from ..evidence.annealed_importance_sampling import Annealed, annealed_evidence
from ..evidence.importance_sampling import Evidence, log_evidence
from ..evidence.sandwich import Sandwich, bidirectional_evidence
from ..pairs.checks import check_support
from ..pairs.inspection import inspect_pair
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.structure import Structure
from .calibration import Calibration, calibrate
from .finding import Finding, Level, verdict
from .inference_gap import InferenceGap, inference_gap
from .judgement import (
    judge_annealing,
    judge_calibration,
    judge_checks,
    judge_evidence,
    judge_gap,
    judge_information,
    judge_loo,
    judge_nuts,
)
from .latent_information import LatentInformation, latent_information
from .nuts import NUTSReference, nuts_posterior
from .predictive_checks import DEFAULT_QUANTITIES, PredictiveCheck, Quantity, predictive_check

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData
    from matplotlib.figure import Figure
    from xarray import DataTree


@dataclass(frozen=True)
class Budget:
    """How many data, draws and steps each diagnostic takes.

    What is meant by so many data are the first ones; 0 of annealed, gap, nuts data, simulations or
    replications leaves that diagnostic out. The defaults take some two minutes on two
    cores for a VAE on MNIST.
    """

    num_data: int = 1000
    """Data for evidence, information and predictive checks, at most."""
    num_samples: int = 1000
    """Importance samples of each."""
    annealed_data: int = 16
    """Data that are annealed, and as many simulated ones."""
    temperatures: int = 300
    chains: int = 8
    gap_data: int = 64
    """Data that get a posterior of their own."""
    gap_steps: int = 300
    """Gradient steps to each."""
    simulations: int = 1000
    """Data simulated for calibration."""
    draws: int = 300
    """Draws of the guide that each is ranked among."""
    nuts_data: int = 2
    """Data whose posterior is sampled by NUTS."""
    nuts_samples: int = 300
    """Draws of each of two chains."""
    replications: int = 300
    """Data sets drawn anew for the predictive checks."""
    tree_data: int = 50
    """Data in the tree."""
    tree_samples: int = 100
    """Draws of each in the tree."""

    def __post_init__(self) -> None:
        least = {"num_data": 1, "num_samples": 2, "tree_data": 1, "tree_samples": 1}
        least |= {"temperatures": 2, "chains": 2, "gap_steps": 1, "draws": 1, "nuts_samples": 10}
        check_least({name: (value, least.get(name, 0)) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; each result is ``None`` where it does not apply."""

    findings: tuple[Finding, ...]
    """What each diagnostic says, in the order in which they ran."""
    tree: "DataTree" = field(repr=False)
    """Draws and densities for ArviZ, and the figures of each datum; see :func:`to_datatree`."""
    evidence: Evidence | None = field(repr=False)
    annealed: Annealed | None = field(repr=False)
    sandwich: Sandwich | None = field(repr=False)
    gap: InferenceGap | None = field(repr=False)
    information: LatentInformation | None = field(repr=False)
    calibration: Calibration | None = field(repr=False)
    nuts: NUTSReference | None = field(repr=False)
    checks: Mapping[str, PredictiveCheck] | None = field(repr=False)
    """Posterior predictive checks."""
    prior_checks: Mapping[str, PredictiveCheck] | None = field(repr=False)
    """Prior predictive checks."""
    loo: "ELPDData | None" = field(repr=False)
    """PSIS-LOO, of a pair with a global latent variable."""

    @property
    def verdict(self) -> str:
        """Whether the posterior can be trusted, in plain words."""
        return verdict(self.findings)

    @cached_property
    def figures(self) -> "dict[str, Figure]":
        """A picture of each result, by name."""
        from .diagnostic_figures import plot_diagnosis

        return plot_diagnosis(self)

    @property
    def numbers(self) -> dict[str, Any]:
        """The main figures and all findings, fit for JSON."""
        from ..reporting.diagnosis_folder import numbers

        return numbers(self)

    def save(self, folder: Path | str) -> list[Path]:
        """Write ``report.html``, ``diagnosis.json``, ``diagnosis.nc`` and ``figures/*.png``.

        Returns:
            What was written, the report first.
        """
        from ..reporting.diagnosis_folder import write_report

        return write_report(self, Path(folder))

    def __str__(self) -> str:
        return self.verdict


def diagnose(
    model: Program,
    guide: Program,
    data: Any,
    *,
    quantities: Mapping[str, Quantity] = DEFAULT_QUANTITIES,
    budget: Budget = Budget(),
    seed: int = 0,
    show_progress: bool = False,
) -> Diagnosis:
    """Ask of a fitted pair, in every way there is here, whether its posterior can be trusted.

    In turn: importance-sampled evidence and its Pareto k̂ (:func:`log_evidence`); annealed
    importance sampling, and its two bounds on simulated data (:func:`annealed_evidence`,
    :func:`bidirectional_evidence`); what family and encoder lose (:func:`inference_gap`); what z
    says of x (:func:`information`); ranks on simulated data (:func:`calibrate`); NUTS
    (:func:`nuts_posterior`); predictive checks (:func:`predictive_check`); and, for a pair with a
    global latent variable, whose data are not independent, PSIS-LOO (:func:`psis_loo`) in place of
    what is defined for one datum only. Each can be called by itself, with settings of its own.

    What does not apply to a pair (gradients in a discrete z, say) is named among the findings, with
    the reason.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``.
        quantities: functions of a data set by name, for the predictive checks.
        budget: how many data and draws each diagnostic takes.
        seed: of all draws.
        show_progress: show how far each has come.

    Returns:
        The results, with ``.verdict`` in plain words, ``.tree`` for ArviZ, ``.figures``, and
        ``.save(folder)`` for a report.

    Raises:
        ValueError: if the pair does not keep to the contract (sites that do not match, or stand
            outside the plate), the data cannot be used, weights are not finite, the guide does not
            reach where the prior does, or is a point.

    >>> from latente.guides import ExactPosterior
    >>> from latente.models import PPCA
    >>> model = PPCA(4, 1)
    >>> budget = Budget(temperatures=50, simulations=50, nuts_samples=50, gap_steps=50)
    >>> diagnosis = diagnose(model, ExactPosterior(model), torch.randn(20, 4), budget=budget)
    >>> diagnosis.evidence.khat_bad_fraction
    0.0
    """
    rows = evaluation_rows(data)
    rows = _first(rows, budget.num_data)
    structure = _inspect(model, guide, rows)
    ask = _Questions(model, guide, rows, budget, quantities, seed, show_progress)
    found: dict[str, Any] = {"evidence": None, "loo": None}
    if structure.global_latents:
        # q(w) is of all the data that were fitted, and so is leaving one of them out.
        found["loo"] = ask.attempt("leaving one out", lambda: ask.loo(data))
    else:
        found["evidence"] = ask.evidence()
        found["annealed"] = ask.attempt("annealing", ask.annealing, budget.annealed_data)
        found["sandwich"] = ask.sandwich
        found["gap"] = ask.attempt("gap", ask.gap, budget.gap_data)
    found["information"] = ask.attempt("information", ask.information)
    if not structure.global_latents:
        found["calibration"] = ask.attempt("calibration", ask.calibration, budget.simulations)
        found["nuts"] = ask.attempt("nuts", ask.nuts, budget.nuts_data)
    found["checks"] = ask.attempt("posterior predictive", ask.checks, budget.replications)
    found["prior_checks"] = ask.attempt("prior predictive", ask.prior_checks, budget.replications)
    names = ("annealed", "sandwich", "gap", "calibration", "nuts")
    results = {name: found.get(name) for name in names} | found
    tree = _tree(ask, results)
    return Diagnosis(findings=tuple(ask.findings), tree=tree, **results)


def _first(rows: tuple[Rows, ...], count: int) -> tuple[Tensor, ...]:
    return tuple(part[:count] for part in rows)


def _inspect(model: Program, guide: Program, rows: tuple[Tensor, ...]) -> Structure:
    args = place(tuple(part[:100] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        check_support(model, guide, args, "data")
        structure = inspect_pair(model, guide, args)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: there is no posterior to "
            "be judged; evaluate tells of its reconstructions"
        )
    if structure.enumerated:
        raise ValueError(
            f"the latent site {structure.enumerated[0]!r} is summed out, and the guide has no such "
            "site: there is no posterior to be judged"
        )
    return structure


class _Questions:
    """The diagnostics of one pair, asked one after the other, and what they found."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        rows: tuple[Tensor, ...],
        budget: Budget,
        quantities: Mapping[str, Quantity],
        seed: int,
        show_progress: bool,
    ):
        self.pair = (model, guide)
        self.rows = rows
        self.budget = budget
        self.quantities = quantities
        self.common: dict[str, Any] = {"seed": seed, "show_progress": show_progress}
        self.findings: list[Finding] = []
        self.sandwich: Sandwich | None = None
        self._evidence: Evidence | None = None

    def attempt(self, topic: str, question: Callable[[], Any], amount: int = 1) -> Any:
        """The answer, or ``None`` and the reason where the question does not apply."""
        if not amount:
            return None
        try:
            return question()
        except Exception as error:  # what is the user's may fail in any way; the rest goes on
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = kind + " ".join(str(error).split()).rstrip(".")
            self.findings.append(Finding(topic, Level.NOTE, f"Not looked at: {reason}."))
            return None

    def evidence(self) -> Evidence:
        samples = self.budget.num_samples
        found = log_evidence(*self.pair, self.rows, num_samples=samples, **self.common)
        self._evidence = found
        self.findings.append(judge_evidence(found))
        return found

    def annealing(self) -> Annealed:
        settings = {
            "num_temperatures": self.budget.temperatures,
            "num_chains": self.budget.chains,
            "num_leapfrog": 5,
            **self.common,
        }
        some = _first(self.rows, self.budget.annealed_data)
        annealed = annealed_evidence(*self.pair, some, **settings)
        number = self.budget.annealed_data
        # Where no data can be simulated, what was annealed stands by itself.
        with contextlib.suppress(ValueError):
            self.sandwich = bidirectional_evidence(
                *self.pair, self.rows, num_data=number, **settings
            )
        count, evidence = len(annealed.log_px), self._evidence
        assert evidence is not None  # asked before
        self.findings.append(
            judge_annealing(
                evidence.log_px[:count], evidence.standard_error[:count], annealed, self.sandwich
            )
        )
        return annealed

    def gap(self) -> InferenceGap:
        some = _first(self.rows, self.budget.gap_data)
        steps = self.budget.gap_steps
        found = inference_gap(*self.pair, some, num_steps=steps, **self.common)
        self.findings.append(judge_gap(found))
        return found

    def information(self) -> LatentInformation:
        found = latent_information(*self.pair, self.rows, seed=self.common["seed"])
        self.findings.append(judge_information(found))
        return found

    def calibration(self) -> Calibration:
        found = calibrate(
            *self.pair,
            self.rows,
            num_simulations=self.budget.simulations,
            num_draws=self.budget.draws,
            **self.common,
        )
        self.findings += judge_calibration(found)
        return found

    def nuts(self) -> NUTSReference:
        some = _first(self.rows, self.budget.nuts_data)
        samples = self.budget.nuts_samples
        found = nuts_posterior(
            *self.pair, some, num_samples=samples, warmup_steps=200, **self.common
        )
        self.findings.append(judge_nuts(found))
        return found

    def checks(self) -> dict[str, PredictiveCheck]:
        return self._check("posterior predictive", from_prior=False)

    def prior_checks(self) -> dict[str, PredictiveCheck]:
        return self._check("prior predictive", from_prior=True)

    def _check(self, topic: str, *, from_prior: bool) -> dict[str, PredictiveCheck]:
        found = predictive_check(
            *self.pair,
            self.rows,
            self.quantities,
            num_samples=self.budget.replications,
            from_prior=from_prior,
            **self.common,
        )
        self.findings.append(judge_checks(topic, found))
        return found

    def loo(self, fitted: Any) -> Any:
        samples = self.budget.num_samples
        with warnings.catch_warnings():  # of k̂, which is judged below
            warnings.simplefilter("ignore", UserWarning)
            found = psis_loo(*self.pair, fitted, num_samples=samples, **self.common)
        self.findings.append(judge_loo(found))
        return found


def _tree(ask: _Questions, results: Mapping[str, Any]) -> "DataTree":
    """Draws of some data, and groups of their own for what is known of each datum."""
    import xarray

    some = _first(ask.rows, ask.budget.tree_data)
    samples = ask.budget.tree_samples
    drawn = ask.attempt(
        "tree", lambda: to_datatree(*ask.pair, some, num_samples=samples, **ask.common)
    )
    tree = xarray.DataTree() if drawn is None else drawn
    evidence, gap, found = results["evidence"], results["gap"], results["calibration"]
    if evidence is not None:
        names = ("log_px", "standard_error", "ess", "khat", "log_px_smoothed")
        figures = {name: ("datum", getattr(evidence, name).numpy()) for name in names}
        figures["elbo"] = ("datum", (evidence.reconstruction - evidence.kl).numpy())
        tree["evidence"] = xarray.DataTree(_by_datum(figures))
    if gap is not None:
        names = ("log_px", "elbo", "elbo_local", "elbo_full_rank", "khat")
        figures = {name: ("datum", getattr(gap, name).numpy()) for name in names}
        tree["inference_gap"] = xarray.DataTree(_by_datum(figures))
    if found is not None:
        pits = {"pit": found.pit, "weighted_pit": found.weighted_pit}
        tree["calibration"] = xarray.DataTree(
            xarray.Dataset(
                {name: (("simulation", "quantity"), value.numpy()) for name, value in pits.items()},
                coords={"quantity": list(found.names), "simulation": range(len(found.pit))},
            )
        )
    return tree


def _by_datum(figures: dict[str, Any]) -> Any:
    import xarray

    count = len(next(iter(figures.values()))[1])
    return xarray.Dataset(figures, coords={"datum": range(count)})
