"""Figures of each datum, written as a CSV file with a line that sums them up."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .messages import say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def free_path(out: Path | None, default: Path, *, overwrite: bool) -> Path:
    """The path of a CSV file to write, which must be free.

    Raises:
        FileExistsError: if there is such a file, and ``overwrite`` is not set.
        ValueError: if its name does not end in ``.csv``.
    """
    path = default if out is None else out
    if path.suffix.lower() != ".csv":
        raise ValueError(f"--out is a CSV file, and {path} does not end in .csv")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: give --overwrite, or another --out")
    return path


def write_figures(path: Path, columns: Mapping[str, Any], found: Any, units: str) -> None:
    """Write columns as a CSV file; print its path, and the mean of log p(x) and the share of bad k̂.

    Args:
        path: of the file.
        columns: one value for each row, by name.
        found: an :class:`Evidence`, or :class:`Codes`.
        units: a remark on the units of log p(x).
    """
    import pandas as pd

    from ..common.files import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        pd.DataFrame(dict(columns)).to_csv(temporary, index=False)
    typer.echo(str(path))
    log_px, error = found.log_px.double(), found.standard_error.double()
    bad = (~(found.khat <= found.khat_threshold)).double().mean().item()
    say(
        f"{len(log_px)} data: mean log p(x) = {log_px.mean().item():.2f} ± "
        f"{error.square().sum().sqrt().item() / len(log_px):.3f} nats{units}; k̂ is above "
        f"{found.khat_threshold:.2f}, and so bad, for {bad:.1%}"
    )


def columns_of_sites(
    mean: "Mapping[str, Tensor]", sd: "Mapping[str, Tensor]"
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Mean and standard deviation of each latent dimension: ``z_1_mean``, ``z_1_sd``, …"""
    for site, value in mean.items():
        for place in product(*map(range, value.shape[1:])):
            name = "_".join([site, *(str(number + 1) for number in place)])
            for figure, values in (("mean", value), ("sd", sd[site])):
                yield f"{name}_{figure}", values[:, *place].numpy()
