"""The history of a run, one row of figures an epoch, as ``metrics.csv``."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.files import write_atomically


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write all rows of a history, in place of the former file.

    A figure that not all rows have is NaN in the others: those of an older version, or of a run
    that was resumed with one more callback.
    """
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        if history:
            names = dict.fromkeys(name for row in reversed(history) for name in row)
            writer = csv.DictWriter(file, fieldnames=list(names), restval="nan")
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

    Later rows, such as that of an interrupted epoch, are ignored.

    Raises:
        ValueError: if there are fewer rows, or they are not numbers.
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


def main_metric(row: Mapping[str, float]) -> str:
    """The main figure of a fit: the ELBO, or the reconstruction where there is no ELBO."""
    return "elbo" if "elbo" in row else "reconstruction"


def best_epoch(history: Sequence[Mapping[str, float]], name: str) -> int:
    """The epoch, counted from 1, with the highest figure, the first of equals; 0 without epochs.

    >>> best_epoch([{"elbo": -3.0}, {"elbo": -1.0}, {"elbo": -2.0}], "elbo")
    2
    """
    best, highest = 0, 0.0
    for epoch, row in enumerate(history, 1):
        if epoch == 1 or row[name] > highest:
            best, highest = epoch, row[name]
    return best


def describe_epoch(row: Mapping[str, float]) -> str:
    """The main figure of a row of the history, in words.

    >>> describe_epoch({"elbo": -3.0, "validation_elbo": -3.5})
    'ELBO -3.00 (validation -3.50) nats'
    """
    name = main_metric(row)
    label = {"elbo": "ELBO", "reconstruction": "reconstruction"}[name]
    validation = row.get(f"validation_{name}")
    beside = "" if validation is None else f" (validation {validation:.2f})"
    return f"{label} {row[name]:.2f}{beside} nats"
