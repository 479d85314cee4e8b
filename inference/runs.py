"""Runs: a fitted pair with its history, and the folder that keeps it."""

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints import written_whole
from .pairs import Program

CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.safetensors", "metrics.csv"
EVALUATION, FIGURES = "evaluation.json", "figures"


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


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds the one to resume.

    Raises:
        FileExistsError: if it already holds a run and ``resume`` is not set.
        FileNotFoundError: if ``resume`` is set and there is none.
    """
    if resume and not (out / CHECKPOINT).is_file():
        raise FileNotFoundError(f"{out} holds no run to resume: leave resume out to begin one")
    if not resume and (out / CHECKPOINT).exists():
        raise FileExistsError(
            f"{out} already holds a run: go on with it (resume=True, --resume), or name another "
            "folder for a new one (out=, --out)"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a temporary file and move it into place."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's JSON.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is truncated or not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no run: there is no {path.name} in it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a run's: it holds no facts by name")
    return content


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write all rows of a history, replacing the file."""
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        if history:
            writer = csv.DictWriter(file, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)


def append_history(path: Path, row: Mapping[str, float]) -> None:
    """Add one epoch's row."""
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def read_history(path: Path, epochs: int) -> list[dict[str, float]]:
    """Read the first rows of a history, one an epoch.

    What follows them, an interrupted epoch's row or half of it, is not looked at.

    Raises:
        ValueError: if those rows are not there, or not numbers.
    """
    if epochs == 0:
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(itertools.islice(csv.DictReader(file), epochs))
        numbers = [{name: float(value) for name, value in row.items()} for row in rows]
        if len(numbers) < epochs:
            raise ValueError(f"it has {len(numbers)} of {epochs} epochs")
        return [{**row, "epoch": int(row["epoch"])} for row in numbers]
    except (OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not the history of this run ({error})") from error


def main_figure(row: Mapping[str, float]) -> str:
    """The figure that says how a fit goes: the ELBO, or the reconstruction where there is none."""
    return "elbo" if "elbo" in row else "reconstruction"


def describe(row: Mapping[str, float]) -> str:
    """The main figure of a row of the history, in words.

    >>> describe({"elbo": -3.0, "validation_elbo": -3.5})
    'ELBO -3.00 (validation -3.50) nats'
    """
    name = main_figure(row)
    label = {"elbo": "ELBO", "reconstruction": "reconstruction"}[name]
    held_out = row.get(f"validation_{name}")
    validation = "" if held_out is None else f" (validation {held_out:.2f})"
    return f"{label} {row[name]:.2f}{validation} nats"
