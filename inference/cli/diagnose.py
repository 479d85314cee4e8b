"""The command ``latente diagnose``."""

from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from ..common.lookup import find_named
from .options import Device, DrawSeed, MovedTo, RunFolder
from .outputs import say_written


def diagnose(
    folder: RunFolder,
    num_data: Annotated[int, typer.Option(help="Largest number of test data.")] = 1000,
    num_samples: Annotated[int, typer.Option(help="Importance samples per datum.")] = 1000,
    simulations: Annotated[int, typer.Option(help="Data simulated for calibration.")] = 1000,
    without: Annotated[
        str | None,
        typer.Option(
            help="Diagnostics to leave out, as in annealing,gap: where they take too long.",
            show_default="none",
        ),
    ] = None,
    seed: DrawSeed = 0,
    device: Device = "auto",
    moved_to: MovedTo = None,
) -> None:
    """Can the posterior be trusted? Writes a page, DIR/diagnosis/report.html, and its figures."""
    from ..diagnostics.budget import Budget
    from ..diagnostics.diagnose import diagnose as diagnose_pair
    from ..diagnostics.finding import Finding, Level
    from ..diagnostics.registry import DIAGNOSTICS
    from ..recipes.load_run import load_run
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data
    from ..reporting.diagnosis_folder import save_report

    by_name = {diagnostic.name: diagnostic for diagnostic in DIAGNOSTICS}
    left_out = [name.strip() for name in without.split(",")] if without else []
    for name in left_out:
        find_named(name, by_name, "diagnostic")  # raises an error with the nearest name
        del by_name[name]
    run = load_run(folder, device=device)
    data = load_plan_data(read_plan(folder), folder, moved_to)
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data to diagnose")
    budget = Budget(num_data=num_data, num_samples=num_samples, simulations=simulations)
    diagnosis = diagnose_pair(
        run.model, run.guide, data, diagnostics=tuple(by_name.values()), budget=budget, seed=seed,
        show_progress=True,
    )  # fmt: skip
    untold = tuple(Finding(name, Level.NOTE, "Left out, as was asked.") for name in left_out)
    diagnosis = replace(diagnosis, findings=(*diagnosis.findings, *untold))
    Console(highlight=False).print(diagnosis.verdict, markup=False)
    say_written(save_report(diagnosis, folder / "diagnosis")[:1], folder, "plot")
