"""Pyro's published examples, as their authors wrote them: fitted, with evidence, diagnosed."""

import functools
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.infer import SVI

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
