"""Can this posterior be trusted? All diagnostics of a pair in one call."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Never

import torch
from torch import Tensor

from ..common.arguments import refuse_more
from ..data.arguments import open_pair
from ..data.load_data import Data
from ..data.whole_set import open_posterior, rows_of_set
from ..evaluation.arviz_export import to_datatree
from ..pairs.checks import check_support
from ..pairs.inspection import check_summed_within_data, inspect_pair
from ..pairs.kept_rows import rows_kept
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.structure import Structure
from .budget import DEFAULT_BUDGET, SHOWN, Budget, fitting
from .diagnosis import Diagnosis
from .diagnostic import Diagnostic, DiagnosticContext, Number
from .finding import Finding, Level, not_looked_at
from .predictive_checks import DEFAULT_QUANTITIES, Quantity
from .refitting import Refit
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
    *more: Never,
    diagnostics: Sequence[Diagnostic[Any]] = DIAGNOSTICS,
    quantities: Mapping[str, Quantity] = DEFAULT_QUANTITIES,
    budget: Budget = DEFAULT_BUDGET,
    refit: Refit | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Diagnosis:
    """Ask a fitted pair, with all diagnostics of the library, whether its posterior can be trusted.

    In turn: importance-sampled evidence and its Pareto k̂ (:func:`log_evidence`); annealed
    importance sampling, and its two bounds on simulated data (:func:`annealed_evidence`,
    :func:`bidirectional_evidence`); what family and encoder lose (:func:`inference_gap`); what z
    says of x (:func:`latent_information`); ranks on simulated data (:func:`calibrate`); NUTS
    (:func:`nuts_posterior`); predictive checks (:func:`predictive_check`). Each of these functions
    can be called by itself, with settings of its own.

    Where latent variables are global, the data are not independent. Then all of these are of the
    whole data set, as one datum with all latent variables (see :func:`log_evidence`), except for
    the predictive checks; and PSIS-LOO (:func:`psis_loo`) is run beside them.

    Where a diagnostic does not suit a pair (gradients in a discrete z, say), a finding has the
    reason.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``.
        more: none: the data of programs of several arguments are one tuple or dict.
        diagnostics: which ones to run, in order. ``(*DIAGNOSTICS, mine)`` adds one of your own.
        quantities: functions of a data set by name, for the predictive checks.
        budget: how many data and draws each diagnostic takes.
        refit: how the guide is fitted to other data, ``refit(model, guide, data)``; without it,
            calibration is not run where latent variables are global and the guide is not amortized,
            and a finding says so. See :func:`calibrate`.
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
    >>> budget = Budget(annealed_data=0, simulations=50, gap_steps=20, gap_data=8, nuts_data=0)
    >>> diagnosis = diagnose(model, ExactPosterior(model), torch.randn(20, 4), budget=budget)
    >>> diagnosis["evidence"].khat_bad_fraction
    0.0
    """
    refuse_more("diagnose", more)
    if not isinstance(budget, Budget):
        kind = type(budget).__name__
        raise ValueError(f"budget is of type {kind}: give Budget(…), or leave it out")
    _check_names(diagnostics)
    given = model, guide
    model, guide, rows = open_pair(*given, data, data_plate=data_plate)
    whole = open_posterior(*given, data, data_plate=data_plate)
    size = rows_of_set(whole[0], whole[2])
    if isinstance(data, Data) and size:  # the posterior is that of the training data
        model, guide, rows = open_pair(*given, data.rows("train"), data_plate=data_plate)
    data = data if isinstance(data, Data) else rows
    rows = tuple(part[: len(part) if size else budget.num_data] for part in rows)
    structure = _inspect(model, guide, rows, whole=size > 0)
    is_chain = structure.num_steps > 1 and not size
    asked, latent_numbers = budget, structure.local_values if is_chain else 0
    budget = fitting(asked, latent_numbers, len(rows[0]))
    rows = tuple(part[: len(part) if size else budget.num_data] for part in rows)
    results: dict[str, Any] = {}
    context = DiagnosticContext(
        model=model, guide=guide, data=data, rows=rows, structure=structure,
        quantities=quantities, budget=budget, seed=seed, show_progress=show_progress,
        refit=refit, results=results,
    )  # fmt: skip
    each = _of_one_datum(context, *whole) if size else context
    findings = _made_smaller(asked, budget, latent_numbers, diagnostics)
    without_draws: list[str] = []
    table: list[Number] = []
    groups: dict[str, Dataset] = {}
    for diagnostic in diagnostics:
        own = each if diagnostic.per_datum else context
        if not diagnostic.applies(own):
            continue
        # Of sites that are all summed out, the evidence is known, and no draw is to be judged.
        if diagnostic.judges_draws and context.all_summed_out:
            without_draws.append(diagnostic.topics[0])
            continue
        try:
            result = diagnostic.run(own)
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
        set_rows=size,
    )


def _inspect(model: Program, guide: Program, rows: tuple[Tensor, ...], *, whole: bool) -> Structure:
    """The facts of a pair, which must have a posterior to judge."""
    count = len(rows[0]) if whole else rows_kept(guide) or INSPECTED_DATA
    args = place(tuple(part[:count] for part in rows), *placement(model, guide))
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


def _made_smaller(
    asked: Budget, budget: Budget, numbers: int, diagnostics: Sequence[Diagnostic[Any]]
) -> list[Finding]:
    """What is left out, or made smaller, as each datum has many latent numbers."""
    if asked == budget:
        return []
    topics = {one.name: one.topics[0] for one in diagnostics}
    left_out = [
        (topics[name], field)
        for name, field in LEFT_OUT.items()
        if name in topics and getattr(asked, field) and not getattr(budget, field)
    ]
    many = f"a datum has {numbers:,} latent numbers"
    found = [
        Finding(
            topic,
            Level.NOTE,
            f"Left out: {many}, for which this takes too long; Budget({field}=4) runs it.",
        )
        for topic, field in left_out
    ]
    changed = [
        f"{getattr(budget, field):,} {words} in place of {getattr(asked, field):,}"
        for field, words in SHOWN.items()
        if getattr(asked, field) != getattr(budget, field)
    ]
    if changed:
        text = f"As {many}, there are at most {', '.join(changed)}; Budget(…) sets other numbers."
        # It judges neither posterior nor model.
        found.append(Finding("amount of work", Level.GOOD, text, about_model=True))
    return found


LEFT_OUT = {"annealing": "annealed_data", "gap": "gap_data", "nuts": "nuts_data"}
"""Diagnostics that are left out where there are too many latent numbers: the field of each."""


def _of_one_datum(
    context: DiagnosticContext, model: Program, guide: Program, rows: tuple[Any, ...]
) -> DiagnosticContext:
    """The view of a pair in which its whole data set is one datum."""
    args = place(rows, *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        structure = inspect_pair(model, guide, args)
    return replace(context, model=model, guide=guide, data=rows, rows=rows, structure=structure)


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
    if not context.all_local:  # a posterior that all data share is not that of a few
        some = context.rows
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
