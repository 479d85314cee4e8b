"""What is known of a pair after it was diagnosed: results, findings, numbers, figures, a tree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..common.plotting import text_figure
from .diagnostic import Diagnostic, DiagnosticFigure, Number
from .finding import Finding, summarize_findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataTree


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found. ``diagnosis["gap"]`` is the result of the diagnostic "gap"."""

    findings: tuple[Finding, ...]
    """What each diagnostic says, in the order in which they ran."""
    results: Mapping[str, Any] = field(repr=False)
    """The result of each diagnostic that could be run, by its name."""
    table: tuple[Number, ...] = field(repr=False)
    """The main numbers of all results."""
    tree: "DataTree" = field(repr=False)
    """Draws and densities for ArviZ, and the numbers of each datum; see :func:`to_datatree`."""
    diagnostics: tuple[Diagnostic[Any], ...] = field(repr=False)
    """Those of :attr:`results`, in the order in which they ran."""
    num_data: int
    """How many data were looked at, at most."""
    set_rows: int = 0
    """How many rows the data set has, where latent variables are global and the whole data set is
    judged as one datum; else 0."""

    def __getitem__(self, name: str) -> Any:
        """The result of a diagnostic.

        Raises:
            KeyError: if it was not run, or could not be: :attr:`findings` has the reason.
        """
        if name not in self.results:
            raise KeyError(f"no result is named {name!r}: there are {', '.join(self.results)}")
        return self.results[name]

    @property
    def verdict(self) -> str:
        """Whether the posterior can be trusted, in plain words."""
        return summarize_findings(self.findings)

    @cached_property
    def figures(self) -> "dict[str, Figure]":
        """The figures of all results, by name, in the order of the diagnostics."""
        drawn = {
            figure.name: _draw(figure, self.results[diagnostic.name])
            for diagnostic in self.diagnostics
            for figure in diagnostic.figures
        }
        return {name: figure for name, figure in drawn.items() if figure is not None}

    @property
    def numbers(self) -> dict[str, Any]:
        """The verdict, the main numbers and all findings, fit for JSON."""
        known = {name: value for one in self.table for name, value in one.entries().items()}
        findings = [
            {"topic": one.topic, "level": one.level.name.lower(), "sentence": one.sentence}
            for one in self.findings
        ]
        return {"verdict": self.verdict, **known, "findings": findings}

    def __str__(self) -> str:
        return self.verdict


def _draw(figure: DiagnosticFigure[Any], result: Any) -> "Figure | None":
    """A figure of a result; the reason in its place, where it cannot be drawn."""
    try:
        return figure.draw(result)
    except Exception as error:  # a user's code may fail in any way; the report goes on
        return text_figure(f"{figure.name} could not be drawn: {error}")
