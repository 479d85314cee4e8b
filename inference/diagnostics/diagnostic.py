"""What a diagnostic is: a question to a fitted pair, with all that its answer needs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import Tensor

from ..pairs.kept_rows import rows_kept
from ..pairs.programs import Program
from ..pairs.structure import Structure
from .budget import Budget
from .finding import Finding
from .refitting import Refit

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

R = TypeVar("R")
"""The result of a diagnostic."""


@dataclass(frozen=True)
class DiagnosticContext:
    """The pair that is diagnosed, its data, and what was found before."""

    model: Program
    guide: Program
    data: Any
    """What :func:`diagnose` was given."""
    rows: tuple[Tensor, ...]
    """Of these the first ``budget.num_data``, as (x, *context); the test part of a ``Data``. All
    of them (the training part), where latent variables are global."""
    structure: Structure
    """The plates and sites of the pair."""
    quantities: Mapping[str, Callable[[Tensor], Any]]
    """Functions of a data set by name, for predictive checks."""
    budget: Budget
    seed: int
    show_progress: bool
    refit: Refit | None = None
    """How the guide is fitted to other data, where :func:`calibrate` needs that."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """The results of the diagnostics that ran before, by name."""

    @property
    def pair(self) -> tuple[Program, Program]:
        """Model and guide."""
        return self.model, self.guide

    @property
    def all_local(self) -> bool:
        """Whether no latent variable is shared by the data, so that p(z|x) is of one datum."""
        return not self.structure.global_latents

    @property
    def all_summed_out(self) -> bool:
        """Whether all latent sites are summed out, so that nothing is drawn from the guide."""
        structure = self.structure
        drawn = structure.local_latents + structure.global_latents
        return bool(structure.enumerated) and not drawn

    def first(self, count: int) -> tuple[Tensor, ...]:
        """The first rows of the data; all of them, if the guide keeps a posterior for each."""
        count = rows_kept(self.guide) or count
        return tuple(part[:count] for part in self.rows)

    def result(self, name: str) -> Any:
        """The result of a diagnostic that ran before.

        Raises:
            ValueError: if there is none.
        """
        if name not in self.results:
            raise ValueError(f"this needs the result of {name!r}, and there is none before it")
        return self.results[name]


@dataclass(frozen=True)
class Number:
    """A number of a result, for JSON and for the report's table."""

    key: str
    """Its name in the JSON."""
    value: Any
    """Anything that JSON holds, or a float that is not finite."""
    label: str = ""
    """What it is, in the table; without a label it is in the JSON only."""
    unit: str = ""
    error: float | None = None
    """Its standard error, in the JSON as ``<key>_se``."""
    text: str = ""
    """How the table writes it; with two decimals if not given."""
    is_part: bool = False
    """Whether it is a part of a number above, and indented."""

    def entries(self) -> dict[str, Any]:
        """What the JSON holds of it; a float that is not finite is null.

        >>> Number("elpd", -1.5, error=math.nan).entries()
        {'elpd': -1.5, 'elpd_se': None}
        """
        entries = {self.key: self.value}
        if self.error is not None:
            entries[f"{self.key}_se"] = self.error
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in entries.items()
        }


@dataclass(frozen=True)
class DiagnosticFigure(Generic[R]):
    """A figure of a result, with the words beside it."""

    name: str
    """The name of its file."""
    caption: str
    """How to read it: what is drawn, and what a good posterior looks like."""
    draw: Callable[[R], "Figure | None"]
    """``None`` where there is nothing to draw."""
    title: str = ""
    """The diagnostic's question, if not given."""
    topics: tuple[str, ...] = ()
    """The topics of the findings that it shows; all of the diagnostic, if not given."""


def _always(_: DiagnosticContext) -> bool:
    return True


def _nothing(_: Any) -> tuple[Number, ...]:
    return ()


def _no_groups(_: Any) -> Mapping[str, "Dataset"]:
    return {}


@dataclass(frozen=True, repr=False)
class Diagnostic(Generic[R]):
    """One question about a fitted pair, and all that becomes of the answer.

    :func:`diagnose` runs each in turn, and gives the result to the other functions. An error of
    ``run``, ``judge``, ``numbers`` or ``groups`` becomes a finding that says why the question was
    not answered. See ``docs/own_diagnostic.md`` for one of your own.

    >>> from latente.inference import Level
    >>> def judge(share):
    ...     return [Finding("zeros", Level.NOTE, f"{share:.0%} of the data are zero.")]
    >>> zeros = Diagnostic(
    ...     name="zeros",
    ...     question="How many data are zero?",
    ...     topics=("zeros",),
    ...     run=lambda context: (context.rows[0] == 0).double().mean().item(),
    ...     judge=judge,
    ... )
    >>> zeros.judge(0.25)[0].sentence
    '25% of the data are zero.'
    """

    name: str
    """By which its result is found: ``diagnosis["<name>"]``."""
    question: str
    """In plain words; the title of its figure."""
    topics: tuple[str, ...]
    """Of its findings; the first one is also that of the finding that it could not run."""
    run: Callable[[DiagnosticContext], R]
    """The result."""
    judge: Callable[[R], Sequence[Finding]]
    """What the result says."""
    figures: tuple[DiagnosticFigure[R], ...] = ()
    numbers: Callable[[R], Sequence[Number]] = _nothing
    """The main numbers of a result."""
    groups: Callable[[R], Mapping[str, "Dataset"]] = _no_groups
    """What the ArviZ tree holds of a result: data sets by the name of their group."""
    applies: Callable[[DiagnosticContext], bool] = _always
    """Whether the question makes sense for the pair, and has a budget; else nothing is said."""
    per_datum: bool = False
    """Whether it judges the posterior of one datum. Where latent variables are global, the pair and
    the rows that it is given are such that the whole data set is one datum, and all latent
    variables are its own; see :func:`log_evidence`."""
    judges_draws: bool = False
    """Whether it judges draws of the guide. Where all latent sites are summed out there are none,
    such a diagnostic is not run, and a finding says so."""
    required: bool = False
    """Whether an error of ``run`` ends the whole diagnosis, and is not just noted."""

    def __repr__(self) -> str:
        return f"Diagnostic({self.name!r})"


def per_datum(values: Mapping[str, Tensor]) -> "Dataset":
    """A data set of ArviZ's form with numbers of each datum, each (N,)."""
    import xarray

    count = len(next(iter(values.values())))
    return xarray.Dataset(
        {name: ("datum", value.numpy()) for name, value in values.items()},
        coords={"datum": range(count)},
    )
