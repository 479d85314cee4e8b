"""Pyro's published examples, as their authors wrote them: fitted, with evidence, diagnosed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI

from latente.inference import Budget, Run, diagnose, fit, log_evidence

from .published import (
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
from .published.example import Example

EXAMPLES: dict[str, Callable[[], Example]] = {
    "VAE": vae.build,
    "CVAE": cvae.build,
    "M2, labels unknown": ss_vae.build,
    "M2, labels known": functools.partial(ss_vae.build, supervised=True),
    "DMM": dmm.build,
    "DMM, packed in the guide": functools.partial(dmm.build, packed=False),
    "AIR": air.build,
    "scANVI, labels known": scanvi.build,
    "scANVI, labels unknown": functools.partial(scanvi.build, supervised=False),
    "sparse gamma DEF": sparse_gamma_def.build,
    "sparse gamma DEF, autoguide": functools.partial(sparse_gamma_def.build, auto=True),
    "LDA": lda.build,
    "LDA, documents with a density": functools.partial(lda.build, density=True),
    "HMM": hmm.build,
    "own subsampling, global": subsampling.build_mean,
    "own subsampling, minibatch": subsampling.build_minibatch,
    "own subsampling, local": subsampling.build_local,
    "eight schools": eight_schools.build,
    "eight schools, one table": functools.partial(eight_schools.build, stacked=True),
    "baseball": baseball.build,
    "baseball, full rank": functools.partial(baseball.build, full_rank=True),
    "regression": regression.build,
    "regression, full rank": functools.partial(regression.build, full_rank=True),
    "Bayesian network": regression.build_network,
    "Gaussian process": gaussian_process.build,
}
STEPS = 20


def loss_of(example: Example, svi: SVI, draws: int = 5) -> float:
    """Mean of the published loss over some draws, the same before and after."""
    torch.manual_seed(1)
    return sum(example.call(svi.evaluate_loss) for _ in range(draws)) / draws


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_fits_in_pyro(name):
    """It is a faithful example only if Pyro's own SVI fits it, with the published objective."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    example = EXAMPLES[name]()
    optimizer = pyro.optim.Adam({"lr": 2 * example.learning_rate})
    svi = SVI(example.model, example.guide, optimizer, example.objective)
    example.call(svi.evaluate_loss)
    before = loss_of(example, svi)
    for _ in range(STEPS):
        example.call(svi.step)
        example.after_step()
    assert loss_of(example, svi) < before
    pyro.clear_param_store()


ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"data_plate": "documents"} for name in EXAMPLES if name.startswith("LDA")
}
"""The further arguments of fit, log_evidence and diagnose, where there are any."""
BATCH_SIZES = {"LDA": 30, "LDA, documents with a density": 30}
BUDGET = Budget(
    num_data=30, num_samples=100, annealed_data=2, temperatures=8, chains=2, gap_data=2,
    gap_steps=5, simulations=10, draws=20, nuts_data=0, replications=250, tree_data=5,
    tree_samples=10,
)  # fmt: skip


@functools.cache
def fitted(name: str) -> tuple[Example, Run]:
    """An example after some epochs of ``fit``."""
    torch.manual_seed(0)
    example = EXAMPLES[name]()
    run = fit(
        example.model, example.guide, example.data, epochs=15, batch_size=BATCH_SIZES.get(name),
        learning_rate=example.learning_rate, show_progress=False, **ARGUMENTS.get(name, {}),
    )  # fmt: skip
    return example, run


def outcomes(name: str) -> tuple[str, str, str]:
    """What fit, log_evidence and diagnose do with an example, in the words of the page's table."""
    example, arguments = EXAMPLES[name](), ARGUMENTS.get(name, {})
    said = []
    try:
        example, run = fitted(name)
        losses = [row["loss"] for row in run.history]
        said.append("fits" if sum(losses[-3:]) < sum(losses[:3]) else "does not fit")
        pair = run.model, run.guide
    except ValueError as error:
        said.append(str(error))
        pair = example.model, example.guide
    try:
        evidence = log_evidence(*pair, example.data, num_samples=500, **arguments)
        said.append("data set" if len(evidence.log_px) == 1 else "each datum")
    except ValueError as error:
        said.append(str(error))
    return tuple(said)
