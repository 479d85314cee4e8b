"""The command ``latente score``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, DrawSeed, MovedTo, NewData, NumSamples, Overwrite, RunFolder
from .row_figures import free_path, write_figures
from .run_data import rows_of, units_of


def score(
    folder: RunFolder,
    data: NewData = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="File to write.", show_default="DIR/scores.csv"),
    ] = None,
    overwrite: Overwrite = False,
    num_samples: NumSamples = 1000,
    seed: DrawSeed = 0,
    device: Device = "auto",
    moved_to: MovedTo = None,
) -> None:
    """The evidence of each datum: log p(x) in nats, its Monte Carlo error, and k̂; a CSV file."""
    from ..evidence.importance_sampling import log_evidence
    from ..recipes.load_run import load_run

    path = free_path(out, folder / "scores.csv", overwrite=overwrite)
    run = load_run(folder, device=device)
    rows, numbers = rows_of(run, folder, data, moved_to)
    evidence = log_evidence(
        run.model, run.guide, rows, num_samples=num_samples, seed=seed, show_progress=True
    )
    columns = {
        "row": numbers,
        "log_px": evidence.log_px.numpy(),
        "standard_error": evidence.standard_error.numpy(),
        "khat": evidence.khat.numpy(),
    }
    write_figures(path, columns, evidence, units_of(folder))
