"""The command ``latente encode``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, DrawSeed, MovedTo, NewData, NumSamples, Overwrite, RunFolder
from .row_figures import columns_of_sites, free_path, write_figures
from .run_data import rows_of, units_of


def encode(
    folder: RunFolder,
    data: NewData = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="File to write.", show_default="DIR/codes.csv"),
    ] = None,
    overwrite: Overwrite = False,
    num_samples: NumSamples = 1000,
    seed: DrawSeed = 0,
    device: Device = "auto",
    moved_to: MovedTo = None,
) -> None:
    """The posterior of each datum: mean and sd of each latent dimension, and k̂; a CSV file."""
    from ..evaluation.encoding import encode as encode_rows
    from ..recipes.load_run import load_run

    path = free_path(out, folder / "codes.csv", overwrite=overwrite)
    run = load_run(folder, device=device)
    rows, numbers = rows_of(run, folder, data, moved_to)
    codes = encode_rows(
        run.model, run.guide, rows, num_samples=num_samples, seed=seed, show_progress=True
    )
    columns = {"row": numbers, **dict(columns_of_sites(codes.mean, codes.sd))}
    write_figures(path, {**columns, "khat": codes.khat.numpy()}, codes, units_of(folder))
