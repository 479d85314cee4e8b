"""What is kept of a diagnosis: its numbers, its figures, and a page to read."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import write_json, written_whole
from ..common.plotting import save_figures
from ..training.run_folder import FIGURES
from .html_page import page

if TYPE_CHECKING:
    from xarray import DataTree

    from ..diagnostics.diagnosis import Diagnosis


def numbers(found: "Diagnosis") -> dict[str, Any]:
    """The main figures of a diagnosis and its findings, fit for JSON."""
    figures: dict[str, Any] = {}
    if found.evidence is not None:
        figures |= {
            "log_evidence": found.evidence.mean,
            "log_evidence_se": found.evidence.mean_standard_error,
            "elbo": found.evidence.elbo,
            "khat_bad_fraction": found.evidence.khat_bad_fraction,
            "num_data": len(found.evidence.log_px),
            "num_samples": found.evidence.num_samples,
        }
    if found.annealed is not None and found.sandwich is not None:
        figures |= {
            "annealed_evidence": found.annealed.mean,
            "annealed_evidence_se": found.annealed.mean_standard_error,
            "sandwich_gap": found.sandwich.gap,
        }
    if found.gap is not None:
        figures |= {
            "inference_gap": found.gap.total.mean().item(),
            "approximation_gap": found.gap.approximation.mean().item(),
            "amortization_gap": found.gap.amortization.mean().item(),
        }
    if found.information is not None:
        figures |= {
            "kl": found.information.kl.sum(1).mean().item(),
            "mutual_information": found.information.mutual_information,
            "marginal_kl": found.information.marginal_kl,
            "active_units": found.information.active_units,
            "idle": list(found.information.idle),
            "collapsed": found.information.collapsed,
        }
    if found.calibration is not None:
        figures |= {
            "miscalibrated": found.calibration.miscalibrated,
            "weighted_miscalibrated": found.calibration.weighted_miscalibrated,
            "biased": found.calibration.biased,
        }
    if found.nuts is not None:
        settled = found.nuts.ratio[found.nuts.converged]
        figures["nuts_sd_ratio"] = settled.median().item()  # NaN of none
        figures["nuts_rhat"] = found.nuts.rhat.max().item()
    if found.loo is not None:
        figures |= {"elpd_loo": float(found.loo.elpd), "elpd_loo_se": float(found.loo.se)}
    known = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
    findings = [
        {"topic": one.topic, "level": one.level.name.lower(), "sentence": one.sentence}
        for one in found.findings
    ]
    return {"verdict": found.verdict, **known, "findings": findings}


def write_report(diagnosis: "Diagnosis", folder: Path) -> list[Path]:
    """Write all that is kept of a diagnosis; what is there by the same names is replaced.

    ``report.html`` holds the verdict, the findings, the main numbers and the figures, and needs no
    other file; ``diagnosis.json`` is :func:`numbers`; ``diagnosis.nc`` the tree, for
    ``xarray.open_datatree``; ``figures/`` has the figures as PNG.

    Returns:
        The paths of what was written, the report first.

    Raises:
        OSError: if the folder cannot be written.
    """
    pictures = save_figures(diagnosis.figures, folder / FIGURES)
    report, facts, tree = (
        folder / name for name in ("report.html", "diagnosis.json", "diagnosis.nc")
    )
    write_json(facts, diagnosis.numbers)
    _write_tree(diagnosis.tree, tree)
    html = page(diagnosis, dict(zip(diagnosis.figures, pictures, strict=True)))
    with written_whole(report) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return [report, facts, tree, *pictures]


def _write_tree(tree: "DataTree", path: Path) -> None:
    """Write a tree as netCDF, compressed, to a temporary file and move it into place."""
    packed = {
        group.path: {name: {"zlib": True, "complevel": 1} for name in group.data_vars}
        for group in tree.subtree
    }
    with written_whole(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
