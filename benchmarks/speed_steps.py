"""Sections of ``speed.py`` that time single steps: all contestants, and cost against sizes."""

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from peers import BUILDERS, GUIDES, LATENTE, OBJECTIVES, PEERS, Case, Contestant, suits
from torch import Tensor

from latente.inference import load_data

SIZES = ((20, 200), (128, 400), (512, 400))
BLOCK_SECONDS = 0.03
"""Steps are timed in blocks of about so long, waited for at the end of each."""
SAME = 0.03
"""Relative difference of losses up to which contestants do the same work."""


def step_batches(batch: int, device: str, *, most: int = 54_000) -> list[Tensor]:
    """Up to 50 batches of binarized MNIST, (batch, 28, 28), already where they are needed."""
    rows = load_data("mnist", binarize="static").train[:most]
    count = max(1, min(50, len(rows) // batch))
    return [part.to(device) for part in torch.as_tensor(rows)[: count * batch].split(batch)]


def approach(contestant: Contestant, num_steps: int) -> tuple[float, float]:
    """Take the first steps: mean loss of their last fifth, nats per datum, and seconds of a step.

    What is compiled is compiled here, and the first steps are not timed. All draws of PyTorch are
    the same, so that its contestants have the same losses but for rounding.
    """
    torch.manual_seed(0)
    last, losses = num_steps // 5, []
    with contestant.around():
        for i in range(num_steps):
            if i == num_steps - last:
                began = time.perf_counter()
            loss = contestant.step(i)
            if i >= num_steps - last:
                losses.append(float(loss) / contestant.per)
        seconds = (time.perf_counter() - began) / last
    return statistics.mean(losses), seconds


def take_turn(contestant: Contestant, seconds: float, blocks: int) -> float:
    """Median seconds of a step, over blocks of steps; the first block is not counted."""
    steps = max(1, round(BLOCK_SECONDS / seconds))
    times = []
    with contestant.around():
        for _ in range(1 + blocks):
            began = time.perf_counter()
            for i in range(steps):
                loss = contestant.step(i)
            float(loss)  # waits for the device, and for what computes behind Python's back
            times.append((time.perf_counter() - began) / steps)
    return statistics.median(times[1:])


def contest(case: Case, names: Sequence[str], options: Any) -> dict[str, Any]:
    """All contestants of a case in turns: seconds by round, losses, notes."""
    batches = step_batches(case.batch, case.device)
    rounds, blocks, first = (3, 3, 30) if options.quick else (7, 6, 100)
    contestants, losses, expected, times, notes = {}, {}, {}, {}, {}
    for name in names:
        if suits(name, case):
            contestants[name] = BUILDERS[name](case, batches)
            losses[name], expected[name] = approach(contestants[name], first)
            times[name] = []
            if note := contestants[name].note():
                notes[name] = note
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(take_turn(contestant, expected[name], blocks))
    torch.compiler.reset()  # what was compiled for these sizes fills the memory
    return {"seconds": times, "losses": losses, "notes": notes}


def ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    """Median over rounds of the time of one to that of another."""
    both = zip(times[name], times[other], strict=True)
    return statistics.median(mine / theirs for mine, theirs in both)


def label(case: Case) -> str:
    """A case in a table's first column."""
    return f"{case.batch}, {case.hidden}, {case.guide}, {case.objective}"


def step(options: Any, report: Any) -> dict[str, Any]:
    """Time of one step, of all contestants in all cases."""
    names = [name for name in BUILDERS if name in options.among]
    found = {}
    sizes = SIZES[1:2] if options.quick else SIZES
    cases = [
        Case(*size, guide, objective, options.device)
        for size in sizes
        for guide in GUIDES
        for objective in OBJECTIVES
    ]
    for case in cases:
        found[label(case)] = contest(case, names, options)
        times = found[label(case)]["seconds"]
        line = ", ".join(f"{name} {_ms(times[name])}" for name in times)
        report.progress(f"{label(case)}: {line}")
    heads = ("batch, H, guide, objective", *names)
    rows = [
        (title, *(_ms(result["seconds"].get(name)) for name in names))
        for title, result in found.items()
    ]
    report.table("One step: median milliseconds", heads, rows)
    _report_ratios(found, names, report)
    _report_losses(found, names, report)
    return found


def _ms(seconds: list[float] | None) -> str:
    return f"{1000 * statistics.median(seconds):.2f}" if seconds else ""


def _report_ratios(found: dict[str, Any], names: Sequence[str], report: Any) -> None:
    """Latente's time to each peer's: below 1, latente is the faster."""
    ours = [name for name in names if name in LATENTE]
    peers = [name for name in names if name in PEERS]
    if not ours or not peers:
        return
    rows = []
    for title, result in found.items():
        times = result["seconds"]
        cells = [
            " · ".join(f"{ratio(times, name, peer):.2f}" for name in ours) if peer in times else ""
            for peer in peers
        ]
        rows.append((title, *cells))
    heads = ("batch, H, guide, objective", *(f"÷ {peer}" for peer in peers))
    report.table(f"One step: time of {' · '.join(ours)}", heads, rows)


def _report_losses(found: dict[str, Any], names: Sequence[str], report: Any) -> None:
    """Losses after the same steps, and who is away from the others' median."""
    rows = [
        (
            title,
            *(
                f"{result['losses'][name]:.1f}" if name in result["losses"] else ""
                for name in names
            ),
        )
        for title, result in found.items()
    ]
    report.table(
        "Loss after the first steps, nats per datum",
        ("batch, H, guide, objective", *names),
        rows,
    )
    for title, result in found.items():
        middle = statistics.median(result["losses"].values())
        for name, loss in result["losses"].items():
            if not abs(loss / middle - 1) < SAME:
                report.say(f"{title}: {name} is {loss / middle - 1:+.1%} from the median loss")
        for name, note in result["notes"].items():
            report.say(f"{title}: {name}: {note}")


def straight_line(sizes: Sequence[float], times: Sequence[float]) -> dict[str, float]:
    """Fixed cost a and rate b of times a + b · size, and how straight that is.

    ``slope`` is that of log(time − a) against log size; as a comes from the line, it says little
    without ``off``, the largest distance from the line relative to a time. Residuals are relative
    too, so that the small sizes count, and a is not negative.
    """
    x, y = np.asarray(sizes, float), np.asarray(times, float)
    rate, fixed = np.polyfit(x, y, 1, w=1 / y)
    if fixed < 0:
        fixed, rate = 0.0, (x / y).sum() / (x / y).dot(x / y)
    beyond = y > fixed
    fitted = np.polyfit(np.log(x[beyond]), np.log(y[beyond] - fixed), 1)
    raw = np.polyfit(np.log(x), np.log(y), 1)
    off = abs((fixed + rate * x) / y - 1).max()
    figures = {"fixed": fixed, "rate": rate, "off": off, "slope": fitted[0], "raw_slope": raw[0]}
    return {name: float(value) for name, value in figures.items()}


def against_size(
    cases: Iterable[Case], names: Sequence[str], options: Any
) -> dict[str, list[float]]:
    """Seconds of a step of some contestants, case by case."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for case in cases:
        times = contest(case, names, options)["seconds"]
        for name in names:
            found[name].append(statistics.median(times[name]))
    return found
