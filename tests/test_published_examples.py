"""Pyro's published examples, as their authors wrote them: fitted, with evidence, diagnosed."""

import pyro
import pytest
import torch
from pyro.infer import SVI

from latente.inference import log_evidence

from .published.example import Example
from .published.listing import (
    EXAMPLES,
    cells,
    evidence_cell,
    fit_cell,
    fitted,
    read_table,
)

STEPS = 20
CHEAP = ("SVI, local",)
"""Examples that are diagnosed in each run of the tests; the others by ``pytest -m slow``."""


def loss_of(example: Example, svi: SVI, draws: int = 5) -> float:
    """Mean of the published loss over some draws, the same before and after."""
    torch.manual_seed(1)
    return sum(example.call(svi.evaluate_loss) for _ in range(draws)) / draws


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_fits_in_pyro(name):
    """It is a faithful example only if Pyro's own SVI fits it, with the published objective."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    example = EXAMPLES[name].build()
    optimizer = pyro.optim.Adam({"lr": 2 * example.learning_rate})
    svi = SVI(example.model, example.guide, optimizer, example.objective)
    example.call(svi.evaluate_loss)
    before = loss_of(example, svi)
    for _ in range(STEPS):
        example.call(svi.step)
        example.after_step()
    assert loss_of(example, svi) < before
    pyro.clear_param_store()


def test_the_page_lists_every_example():
    assert list(read_table()) == list(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_fit_and_evidence_are_as_the_page_says(name):
    row = read_table()[name]
    assert [fit_cell(name), evidence_cell(name)] == row[4:6]
    if row[4] == "yes":
        losses = [epoch["loss"] for epoch in fitted(name)[1].history]
        assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES]
)
def test_the_whole_row_of_the_page_is_true(name):
    assert cells(name) == read_table()[name]


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES]
)
def test_the_evidence_is_the_exact_one(name):
    """Within 5 standard errors of log p of all data, and their bias: a false alarm in 10⁶.

    That holds where the weights have a variance. A k̂ beyond its threshold says that they may not:
    then the estimate is a lower bound, which is above the exact value by chance only.
    """
    if read_table()[name][5] not in ("each datum", "all data"):
        pytest.skip("log_evidence refuses this example")
    example, run = fitted(name)
    if example.exact is None:
        pytest.skip("log p(x) of this example is not known")
    evidence = log_evidence(run.model, run.guide, example.data, num_samples=1000,
                            **EXAMPLES[name].arguments)  # fmt: skip
    exact, error = example.exact().sum().item(), evidence.standard_error.square().sum().sqrt()
    assert evidence.log_px.sum().item() - exact < 5 * error
    if evidence.khat_bad_fraction < 0.1:
        bias = evidence.standard_error.square().sum() / 2
        assert evidence.log_px.sum().item() - exact > -5 * error - 2 * bias
