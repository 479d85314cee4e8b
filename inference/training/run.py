"""``Run``: a fitted pair with its history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pairs.programs import Program


@dataclass(frozen=True)
class Run:
    """A fitted pair, with the history of its fit.

    ``model`` and ``guide`` are the objects that were given, fitted in place; a plain callable is
    wrapped with the Pyro parameters that it was fitted with.
    """

    model: Program
    guide: Program
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """One row for each epoch, as in ``metrics.csv``; figures in nats per datum."""
    epoch: int = 0
    """Number of epochs done."""
    best_epoch: int | None = None
    """The epoch whose weights are kept, if ``patience`` was given."""
    out: Path | None = None
    """The run's folder."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The settings, as in ``config.json``."""
    note: str = ""
    """Why steps could not be recorded; empty if they could."""
    profile: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Milliseconds of the parts of a step, if ``profile`` was set."""
    stopped: str = ""
    """Why a callback, or early stopping, ended the fit before its last epoch; else empty."""
