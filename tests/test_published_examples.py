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


@dataclass(frozen=True)
class Use:
    """What one writes for an example, and what is to be said of it."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """The further arguments of fit, log_evidence and diagnose."""
    batch_size: int | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """The error of a function that cannot take the example, by its name."""


USES: dict[str, Use] = {name: Use() for name in EXAMPLES}
BUDGET = Budget(
    num_data=20, num_samples=200, annealed_data=4, temperatures=20, chains=4, gap_data=4,
    gap_steps=10, simulations=20, draws=20, nuts_data=1, nuts_samples=10, replications=20,
    tree_data=5, tree_samples=10,
)  # fmt: skip


@functools.cache
def fitted(name: str) -> tuple[Example, Run]:
    """An example after some epochs of ``fit``, with the arguments of its ``Use``."""
    torch.manual_seed(0)
    example, use = EXAMPLES[name](), USES[name]
    run = fit(
        example.model, example.guide, example.data, epochs=10, batch_size=use.batch_size,
        learning_rate=example.learning_rate, show_progress=False, **use.arguments,
    )  # fmt: skip
    return example, run


@pytest.mark.parametrize("name", EXAMPLES)
def test_fit_takes_the_example(name):
    _, run = fitted(name)
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_evidence_of_the_example(name):
    example, run = fitted(name)
    evidence = log_evidence(run.model, run.guide, example.data, num_samples=500,
                            **USES[name].arguments)  # fmt: skip
    if example.exact is not None:
        exact = example.exact()
        # Five standard errors of a mean, which is biased by half its variance at most: a false
        # alarm in 10⁶ runs if the weights have a variance; the seed is fixed.
        error = evidence.mean_standard_error
        assert abs(evidence.mean - exact.mean().item()) < 5 * error + 0.01


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_diagnosis_of_the_example(name):
    example, run = fitted(name)
    diagnosis = diagnose(run.model, run.guide, example.data, budget=BUDGET,
                         **USES[name].arguments)  # fmt: skip
    assert diagnosis.verdict
    not_looked_at = [f.sentence for f in diagnosis.findings if "Not looked at" in f.sentence]
    assert not not_looked_at
