"""The report of a diagnosis in a folder: its numbers, its figures, its tree, and a page to read."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..common.files import write_atomically, write_json
from ..common.plotting import save_figures
from ..diagnostics.diagnosis import Diagnosis
from ..training.run_folder import FIGURES
from .html_page import page

if TYPE_CHECKING:
    from xarray import DataTree


def save_report(diagnosis: Diagnosis, folder: Path | str) -> list[Path]:
    """Write all that is known of a diagnosis; files of the same names are replaced.

    ``report.html`` holds the verdict, the findings, the main numbers and the figures, and needs no
    other file; ``diagnosis.json`` is :attr:`Diagnosis.numbers`; ``diagnosis.nc`` the tree, for
    ``xarray.open_datatree``; ``figures/`` has the figures as PNG.

    Returns:
        The paths of what was written, the report first.

    Raises:
        OSError: if the folder cannot be written.

    >>> import tempfile, torch
    >>> from latente.guides import ExactPosterior
    >>> from latente.inference import diagnose
    >>> from latente.inference.diagnostics.latent_information import LATENT_INFORMATION
    >>> from latente.models import PPCA
    >>> model = PPCA(4, 1)
    >>> diagnosis = diagnose(
    ...     model, ExactPosterior(model), torch.randn(20, 4), diagnostics=(LATENT_INFORMATION,)
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_report(diagnosis, folder)]
    ['report.html', 'diagnosis.json', 'diagnosis.nc', 'information.png']
    """
    folder = Path(folder)
    pictures = save_figures(diagnosis.figures, folder / FIGURES)
    report, facts, tree = (
        folder / name for name in ("report.html", "diagnosis.json", "diagnosis.nc")
    )
    write_json(facts, diagnosis.numbers)
    _write_tree(diagnosis.tree, tree)
    html = page(diagnosis, dict(zip(diagnosis.figures, pictures, strict=True)))
    with write_atomically(report) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return [report, facts, tree, *pictures]


def _write_tree(tree: "DataTree", path: Path) -> None:
    """Write a tree as netCDF, compressed, to a temporary file and move it into place."""
    packed = {
        group.path: {name: {"zlib": True, "complevel": 1} for name in group.data_vars}
        for group in tree.subtree
    }
    with write_atomically(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
