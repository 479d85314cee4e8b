"""The commands that write figures of each datum as a CSV file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .messages import say
from .options import (
    Device,
    DrawSeed,
    MovedTo,
    NewData,
    NewLabels,
    NumSamples,
    Overwrite,
    RunFolder,
)
from .outputs import check_free, say_written
from .run_data import rows_of, units_of

if TYPE_CHECKING:
    import numpy as np

    from ..evaluation.encoding import Codes
    from ..evidence.importance_sampling import Evidence

Found = tuple["Codes | Evidence", "dict[str, np.ndarray]"]
"""What was found of rows, and its columns by name."""


def command_of_rows(
    find: Callable[..., Found], *, name: str, file: str, following: str
) -> Callable[..., None]:
    """Make a command that writes, for each datum, its number, what stands beside it, and figures.

    Args:
        find: finds the figures of ``(model, guide, rows)``; its docstring is the help.
        name: the command's name.
        file: the name of its file in the run's folder.
        following: the command that comes next.
    """
    default = f"DIR/{file}"

    def command(
        folder: RunFolder,
        data: NewData = None,
        labels: NewLabels = None,
        out: Annotated[
            Path | None,
            typer.Option(metavar="CSV", help="File to write.", show_default=default),
        ] = None,
        overwrite: Overwrite = False,
        num_samples: NumSamples = 1000,
        seed: DrawSeed = 0,
        device: Device = "auto",
        moved_to: MovedTo = None,
    ) -> None:
        from ..common.files import write_atomically
        from ..evaluation.rows_beside import frame_of
        from ..recipes.load_run import load_run

        path = folder / file if out is None else out
        if path.suffix.lower() != ".csv":
            raise ValueError(f"--out is a CSV file, and {path} does not end in .csv")
        check_free(path, overwrite=overwrite)
        run = load_run(folder, device=device)
        rows, numbers, beside = rows_of(run, folder, data, labels, moved_to)
        options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
        found, figures = find(run.model, run.guide, rows, show_progress=True, **options)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            frame_of(numbers, beside, figures).to_csv(temporary)
        say(_summary(found, units_of(folder)))
        say_written([path], folder, following)

    command.__name__, command.__doc__ = name, find.__doc__
    return command


def _summary(found: "Codes | Evidence", units: str) -> str:
    """The mean of log p(x), and the share of bad k̂."""
    log_px, error = found.log_px.double(), found.standard_error.double()
    if bool(error.isinf().all()):  # of a guide that puts a mass of 1 on one value: see Evidence
        return (
            f"{len(log_px)} data: mean log p(x) ≥ {log_px.mean().item():.2f} nats{units}, a lower "
            "bound, as the guide puts each datum on one value: it has no error, and k̂ is ∞"
        )
    bad = (~(found.khat <= found.khat_threshold)).double().mean().item()
    return (
        f"{len(log_px)} data: mean log p(x) = {log_px.mean().item():.2f} ± "
        f"{error.square().sum().sqrt().item() / len(log_px):.3f} nats{units}; k̂ is above "
        f"{found.khat_threshold:.2f}, and so bad, for {bad:.1%}"
    )
