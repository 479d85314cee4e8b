"""Can this posterior be trusted? All diagnostics of a pair in one call."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.arguments import open_pair
from ..data.load_data import Data
from ..evaluation.arviz_export import to_datatree
from ..pairs.checks import check_support
from ..pairs.inspection import check_summed_within_data, inspect_pair
from ..pairs.kept_rows import rows_kept
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.structure import Structure
from .budget import DEFAULT_BUDGET, Budget
from .diagnosis import Diagnosis
from .diagnostic import Diagnostic, DiagnosticContext, Number
from .finding import Finding, Level, not_looked_at
from .predictive_checks import DEFAULT_QUANTITIES, Quantity
from .registry import DIAGNOSTICS

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

INSPECTED_DATA = 100
"""Data that the pair is run on to learn its plates and sites, at most."""


RESERVED_KEYS = ("verdict", "findings")
"""Keys of the JSON that are no number's."""


def diagnose(
    model: Program,
    guide: Program,
    data: Any,
    *,
    diagnostics: Sequence[Diagnostic[Any]] = DIAGNOSTICS,
    quantities: Mapping[str, Quantity] = DEFAULT_QUANTITIES,
    budget: Budget = DEFAULT_BUDGET,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Diagnosis:
    """Ask a fitted pair, with all diagnostics of the library, whether its posterior can be trusted.

    In turn: importance-sampled evidence and its Pareto k̂ (:func:`log_evidence`); annealed
    importance sampling, and its two bounds on simulated data (:func:`annealed_evidence`,
    :func:`bidirectional_evidence`); what family and encoder lose (:func:`inference_gap`); what z
    says of x (:func:`latent_information`); ranks on simulated data (:func:`calibrate`); NUTS
    (:func:`nuts_posterior`); predictive checks (:func:`predictive_check`). A pair with a global
    latent variable, whose data are not independent, gets PSIS-LOO (:func:`psis_loo`) in place of
    what is defined for one datum only. Each of these functions can be called by itself, with
    settings of its own.

    Where a diagnostic does not suit a pair (gradients in a discrete z, say), a finding has the
    reason.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``.
        diagnostics: which ones to run, in order. ``(*DIAGNOSTICS, mine)`` adds one of your own.
        quantities: functions of a data set by name, for the predictive checks.
        budget: how many data and draws each diagnostic takes.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: of all draws.
        show_progress: show how far each diagnostic has come.

    Returns:
        The results, with ``.verdict`` in plain words, ``.findings``, ``.numbers``, ``.figures``,
        and ``.tree`` for ArviZ. :func:`save_report` writes all of it.

    Raises:
        ValueError: if the pair breaks the contract (sites that do not match, or stand outside the
            plate), the data cannot be used, weights are not finite, the guide has no mass where
            the prior has, or is a point, or two diagnostics or figures have the same name.

    >>> from latente.guides import ExactPosterior
    >>> from latente.models import PPCA
    >>> model = PPCA(4, 1)
    >>> budget = Budget(temperatures=50, simulations=50, nuts_samples=50, gap_steps=50)
    >>> diagnosis = diagnose(model, ExactPosterior(model), torch.randn(20, 4), budget=budget)
    >>> diagnosis["evidence"].khat_bad_fraction
    0.0
    """
    _check_names(diagnostics)
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    data = data if isinstance(data, Data) else rows
    rows = tuple(part[: budget.num_data] for part in rows)
    structure = _inspect(model, guide, rows)
    results: dict[str, Any] = {}
    context = DiagnosticContext(
        model=model,
        guide=guide,
        data=data,
        rows=rows,
        structure=structure,
        quantities=quantities,
        budget=budget,
        seed=seed,
        show_progress=show_progress,
        results=results,
    )
    findings: list[Finding] = []
    not_run: list[str] = []
    without_draws: list[str] = []
    table: list[Number] = []
    groups: dict[str, Dataset] = {}
    for diagnostic in diagnostics:
        if not diagnostic.applies(context):
            continue
        if diagnostic.per_datum and structure.global_latents:
            not_run.append(diagnostic.topics[0])
            continue
        # Of sites that are all summed out, the evidence is known, and no draw is to be judged.
        if diagnostic.judges_draws and context.all_summed_out:
            without_draws.append(diagnostic.topics[0])
            continue
        try:
            result = diagnostic.run(context)
            said, numbers = list(diagnostic.judge(result)), list(diagnostic.numbers(result))
            _check_keys(numbers, table)
            own_groups = diagnostic.groups(result)
        except Exception as error:  # a user's code may fail in any way; the others still run
            if diagnostic.required:
                raise
            findings.append(not_looked_at(diagnostic.topics[0], error))
            continue
        results[diagnostic.name] = result
        findings += said
        table += numbers
        groups |= own_groups
    if not_run:
        findings.append(_not_run(not_run, structure.global_latents))
    if without_draws:
        findings.append(_exact(without_draws, structure.enumerated))
    tree = _draw_tree(context, findings)
    for name, group in groups.items():
        tree[name] = type(tree)(group)
    ran = tuple(diagnostic for diagnostic in diagnostics if diagnostic.name in results)
    return Diagnosis(
        findings=tuple(findings),
        results=results,
        table=tuple(table),
        tree=tree,
        diagnostics=ran,
        num_data=len(rows[0]),
    )


def _inspect(model: Program, guide: Program, rows: tuple[Tensor, ...]) -> Structure:
    """The facts of a pair, which must have a posterior to judge."""
    size = rows_kept(guide) or INSPECTED_DATA
    args = place(tuple(part[:size] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        check_support(model, guide, args, "data")
        structure = inspect_pair(model, guide, args)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: there is no posterior to "
            "be judged; evaluate tells of its reconstructions"
        )
    check_summed_within_data(structure)
    return structure


def _not_run(topics: Sequence[str], shared: Sequence[str]) -> Finding:
    """The finding that a pair with global latent variables has no posterior of one datum."""
    names = ", ".join(map(repr, shared))
    return Finding(
        "posterior of one datum",
        Level.NOTE,
        f"Not run: {', '.join(topics)}. They judge the posterior of one datum, and all data share "
        f"{names}.",
    )


def _name_sites(names: Sequence[str]) -> str:
    """Some site names, with their verb.

    >>> _name_sites(["k"]), _name_sites(["k_0", "k_1", "k_2", "k_3", "k_4"])
    ("'k' is", "'k_0', 'k_1', 'k_2' and 2 more are")
    """
    shown = ", ".join(map(repr, names[:3]))
    if len(names) > 3:
        return f"{shown} and {len(names) - 3} more are"
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _exact(topics: Sequence[str], summed: Sequence[str]) -> Finding:
    """The finding that the posterior of one datum is not approximated at all."""
    return Finding(
        "posterior of one datum",
        Level.GOOD,
        f"Exact: the guide draws nothing, and {_name_sites(summed)} summed out. There are no draws "
        f"to be judged by {', '.join(topics)}.",
    )


def _draw_tree(context: DiagnosticContext, findings: list[Finding]) -> "DataTree":
    """Draws of the first data; an empty tree, and a finding, where there can be none."""
    import xarray

    some, samples = context.first(context.budget.tree_data), context.budget.tree_samples
    try:
        return to_datatree(
            *context.pair,
            some,
            num_samples=samples,
            seed=context.seed,
            show_progress=context.show_progress,
        )
    except Exception as error:  # a user's program may fail in any way
        findings.append(not_looked_at("tree", error))
        return xarray.DataTree()


def _check_names(diagnostics: Sequence[Diagnostic[Any]]) -> None:
    """Refuse names that would overwrite one another."""
    figures = [figure.name for diagnostic in diagnostics for figure in diagnostic.figures]
    for kind, names in (
        ("diagnostics", [diagnostic.name for diagnostic in diagnostics]),
        ("figures", figures),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"{count} {kind} are named {name!r}: give each a name of its own")


def _check_keys(numbers: Iterable[Number], before: Iterable[Number]) -> None:
    """Refuse numbers whose key in the JSON is that of another one."""
    taken = {*RESERVED_KEYS, *(key for number in before for key in number.entries())}
    for number in numbers:
        for key in number.entries():
            json.dumps(number.entries())  # what JSON cannot hold fails here, with the reason
            if key in taken:
                raise ValueError(f"its number {key!r} has the name of another one")
            taken.add(key)
