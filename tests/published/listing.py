"""All published examples by name, with what one writes for each, and the table that says so.

``python -m tests.published.listing`` runs all of them and writes the table of
``docs/pyro_examples.md`` anew.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch

from latente.inference import Budget, Run, diagnose, fit, log_evidence

from . import (
    air,
    baseball,
    cvae,
    dmm,
    eight_schools,
    gaussian_process,
    hmm,
    lda,
    regression,
    scanvi,
    sparse_gamma_def,
    ss_vae,
    subsampling,
    vae,
)
from .example import Example

PAGE = Path(__file__).parents[2] / "docs" / "pyro_examples.md"
HEAD = "| example | what it has | data | further arguments | `fit` | log p of | `diagnose` |"
BUDGET = Budget(
    num_data=30, num_samples=100, annealed_data=2, temperatures=8, chains=2, gap_data=2,
    gap_steps=5, simulations=20, draws=20, nuts_data=0, replications=250, tree_data=5,
    tree_samples=10,
)  # fmt: skip
"""Enough to run each diagnostic but NUTS, and not to judge by."""


@dataclass(frozen=True)
class Listed:
    """An example in the table."""

    build: Callable[[], Example]
    has: str
    """What is particular about it."""
    data: str
    """Its data, as its author gives them to ``svi.step``."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The further arguments of fit, log_evidence and diagnose that it needs."""
    batch_size: int | None = None
    epochs: int = 15


_GLOBAL = 300
"""Epochs of a pair whose data are one minibatch."""

EXAMPLES = {
    "VAE": Listed(vae.build, "plate `data`, networks by `pyro.module`", "x"),
    "CVAE": Listed(cvae.build, "plate without a size, covariates first", "(xs, ys)"),
    "M2": Listed(ss_vae.build, "labels unknown: `y` enumerated in the guide", "xs"),
    "M2, labelled": Listed(
        functools.partial(ss_vae.build, supervised=True), "two observed sites", "(xs, ys)"
    ),
    "DMM, packed": Listed(dmm.build, "sequences packed outside of the guide", "(x, packed, …)"),
    "DMM": Listed(
        functools.partial(dmm.build, packed=False),
        "plate `z_minibatch`, masks, lengths, annealing by `poutine.scale`",
        "(x, reversed, mask, lengths)",
    ),
    "AIR": Listed(
        air.build, "presence of objects latent, own subsampling in the guide", "(x, 20)", epochs=8
    ),
    "scANVI": Listed(
        functools.partial(scanvi.build, supervised=False),
        "plate `batch`, all scaled by hand, batch normalization, `y` enumerated in the guide",
        "x",
    ),
    "scANVI, labelled": Listed(scanvi.build, "a factor in the guide", "(x, y)"),
    "sparse gamma DEF": Listed(
        sparse_gamma_def.build, "parameters of each datum, global weights", "x"
    ),
    "sparse gamma DEF, autoguide": Listed(
        functools.partial(sparse_gamma_def.build, auto=True),
        "`AutoDiagonalNormal` over global and local sites",
        "x",
    ),
    "LDA": Listed(
        lda.build,
        "documents are columns, settings among the arguments, topics summed out; "
        "a document is one point",
        "{data, args, batch_size}",
        {"data_plate": "documents"},
        batch_size=30,
        epochs=60,
    ),
    "LDA, Dirichlet": Listed(
        functools.partial(lda.build, density=True),
        "the same, where a document has a density",
        "{data, args, batch_size}",
        {"data_plate": "documents"},
        batch_size=30,
        epochs=60,
    ),
    "HMM": Listed(
        hmm.build,
        "plate `sequences` at −2, `tones` at −1, states summed out, `AutoDelta` of the rest",
        "(x, lengths, args, None)",
    ),
    "SVI, own subsampling": Listed(
        subsampling.build_mean, "`subsample_size=20`, a global mean", "x", epochs=60
    ),
    "SVI, minibatches": Listed(
        subsampling.build_minibatch, "`subsample=batch` of N, a global mean", "x", epochs=_GLOBAL
    ),
    "SVI, local": Listed(
        subsampling.build_local, "own subsampling in the guide, local sites", "x", epochs=60
    ),
    "eight schools": Listed(
        eight_schools.build,
        "`AutoNormal` over global and local sites",
        "(J, sigma, y)",
        epochs=_GLOBAL,
    ),
    "eight schools, one table": Listed(
        functools.partial(eight_schools.build, stacked=True), "no plate", "data", epochs=_GLOBAL
    ),
    "baseball": Listed(
        functools.partial(baseball.build, full_rank=True),
        "plate `num_players`, `AutoMultivariateNormal`",
        "(at_bats, hits)",
        epochs=_GLOBAL,
    ),
    "regression": Listed(
        functools.partial(regression.build, full_rank=True),
        "`PyroSample`, `AutoMultivariateNormal`",
        "(x, y)",
        epochs=_GLOBAL,
    ),
    "Bayesian network": Listed(
        regression.build_network, "`PyroSample`, `AutoDiagonalNormal`", "(x, y)"
    ),
    "Gaussian process": Listed(
        gaussian_process.build, "y observed jointly, no plate", "(X, y)", epochs=_GLOBAL
    ),
}


@functools.cache
def fitted(name: str) -> tuple[Example, Run]:
    """An example after some epochs of ``fit``."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    listed = EXAMPLES[name]
    example = listed.build()
    run = fit(
        example.model, example.guide, example.data, epochs=listed.epochs,
        batch_size=listed.batch_size, learning_rate=example.learning_rate, show_progress=False,
        **listed.arguments,
    )  # fmt: skip
    return example, run


def fit_cell(name: str) -> str:
    """Whether ``fit`` takes an example."""
    try:
        fitted(name)
    except ValueError as error:
        return _short(error)
    return "yes"


def evidence_cell(name: str) -> str:
    """What ``log_evidence`` gives for an example."""
    try:
        example, run = fitted(name)
        evidence = log_evidence(run.model, run.guide, example.data, num_samples=100,
                                **EXAMPLES[name].arguments)  # fmt: skip
    except ValueError as error:
        return _short(error)
    return "all data" if len(evidence.log_px) == 1 else "each datum"


def diagnosis_cell(name: str) -> str:
    """What ``diagnose`` leaves out of a diagnosis."""
    try:
        example, run = fitted(name)
        diagnosis = diagnose(run.model, run.guide, example.data, budget=BUDGET,
                             **EXAMPLES[name].arguments)  # fmt: skip
    except ValueError as error:
        return _short(error)
    left_out = [
        finding.topic
        for finding in diagnosis.findings
        if finding.sentence.startswith(("Not looked at", "Not run"))
    ]
    return f"without {', '.join(left_out)}" if left_out else "complete"


def cells(name: str) -> list[str]:
    """The cells of an example in the table."""
    listed = EXAMPLES[name]
    further = [f"{key}={value!r}" for key, value in listed.arguments.items()]
    further += [f"batch_size={listed.batch_size}"] * (listed.batch_size is not None)
    return [
        name, listed.has, f"`{listed.data}`", f"`{', '.join(further)}`" if further else "",
        fit_cell(name), evidence_cell(name), diagnosis_cell(name),
    ]  # fmt: skip


def read_table() -> dict[str, list[str]]:
    """The cells of each example on the page."""
    lines = PAGE.read_text(encoding="utf-8").split(f"{HEAD}\n")[1].splitlines()[1:]
    rows = [line.strip("| ") for line in lines[: lines.index("")]]
    split = [[cell.strip() for cell in re.split(r" *\| *", row)] for row in rows]
    return {row[0]: row for row in split}


def _short(error: ValueError) -> str:
    """A refusal in the table: its sentence up to the advice."""
    return f"refused: {str(error).split(':')[0]}"


def write_table() -> None:
    """Run all examples, and write the table into the page."""
    rows = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    rows += [f"| {' | '.join(cells(name))} |".replace("|  |", "| |") for name in EXAMPLES]
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(HEAD)
    end = text.index("\n\n", start)
    PAGE.write_text(text[:start] + "\n".join(rows) + text[end:], encoding="utf-8")


if __name__ == "__main__":
    write_table()
