"""``Run``: a fitted pair with its history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pairs.programs import Program


@dataclass(frozen=True)
class Run:
    """A fitted pair, and how its fit went.

    ``model`` and ``guide`` are the objects that were fitted, in place (a plain callable
    comes back bound to the Pyro parameters it was fitted with).
    """

    model: Program
    guide: Program
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """One row an epoch, as in ``metrics.csv``; figures in nats per datum."""
    epoch: int = 0
    """How many epochs were done."""
    best_epoch: int | None = None
    """The epoch whose weights are kept, where early stopping was asked for."""
    out: Path | None = None
    """The run's folder."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The settings, as in ``config.json``."""
    note: str = ""
    """Why steps ran plainly, where they were to be recorded and could not be."""
    profile: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Milliseconds of the parts of a step, where they were asked for."""
    stopped: str = ""
    """Why a callback, or early stopping, ended the fit before its epochs were done."""
