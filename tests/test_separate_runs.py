"""Separate runs of a program, at once: normal draws are mapped, and what cannot be is run alone."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from latente.inference.pairs.separate_runs import map_runs

NUMBER = 4000
LOC = torch.tensor([2.0, -1.0], dtype=torch.float64)
TRIL = torch.tensor([[3.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
DISTRIBUTIONS = {
    "normal": lambda: dist.Normal(LOC, TRIL.diagonal()).to_event(1),
    "multivariate": lambda: dist.MultivariateNormal(LOC, scale_tril=TRIL),
    "low rank": lambda: dist.LowRankMultivariateNormal(LOC, TRIL[:, :1], TRIL.diagonal()),
    "transformed": lambda: dist.TransformedDistribution(
        dist.Normal(LOC, 1.0).to_event(1), [dist.transforms.AffineTransform(0.0, 2.0)]
    ),
}
COVARIANCE = {
    "normal": TRIL.diagonal().square().diag(),
    "multivariate": TRIL @ TRIL.T,
    "low rank": TRIL[:, :1] @ TRIL[:, :1].T + TRIL.diagonal().diag(),
    "transformed": 4 * torch.eye(2, dtype=torch.float64),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_normal_draws_are_mapped(name):
    """One run gives 4,000 draws, whose moments are within 5 standard errors (6e-7 each)."""
    runs = []

    def program():
        runs.append(1)
        return DISTRIBUTIONS[name]().rsample()

    def draw():
        torch.manual_seed(3)
        return map_runs(program, lambda _: (program(),), [torch.arange(NUMBER)])[0]

    draws, covariance = draw(), COVARIANCE[name]
    assert len(runs) == 1
    assert draws.shape == (NUMBER, 2)
    assert draws.dtype == torch.float64
    sd = covariance.diagonal().sqrt()
    center = 2 * LOC if name == "transformed" else LOC
    assert ((draws.mean(0) - center).abs() < 5 * sd / math.sqrt(NUMBER)).all()
    # The largest variance of an element of a covariance is 2 σ⁴ / n.
    error = math.sqrt(2 / NUMBER) * sd[:, None] * sd
    assert ((draws.T.cov() - covariance).abs() < 5 * error).all()
    # Draw after draw, they are independent: lag-one correlations.
    lagged = torch.stack([torch.corrcoef(column.unfold(0, 2, 1).T)[0, 1] for column in draws.T])
    assert (lagged.abs() < 5 / math.sqrt(NUMBER)).all()
    assert torch.equal(draw(), draws)


def test_what_looks_at_values_is_run_one_by_one_and_remembered():
    runs = []

    def program(x):
        runs.append(1)
        return 2 * x if x.item() > 0 else -x

    inputs = torch.tensor([1.0, -2.0, 3.0])
    for expected in (1 + 3, 3):
        runs.clear()
        (found,) = map_runs(program, lambda x: (program(x),), [inputs])
        assert torch.equal(found, torch.tensor([2.0, 2.0, 6.0]))
        assert len(runs) == expected


def test_an_operation_without_a_rule_is_mapped_without_a_warning():
    runs = []

    def program():
        runs.append(1)
        return dist.Gamma(torch.full((2,), 3.0), 1.0).rsample()

    (found,) = map_runs(program, lambda _: (program(),), [torch.arange(4000)])
    assert len(runs) == 1
    assert (found.mean(0) - 3).abs().max() < 5 * math.sqrt(3 / 4000)


def test_draws_that_are_not_pytorchs_are_run_one_by_one_from_the_same_state():
    """Mapped, all samples would have the same draw of NumPy's."""
    rng = np.random.default_rng(0)

    def program():
        return torch.randn(()), torch.from_numpy(rng.normal(size=2))

    state = torch.get_rng_state()
    first, other = map_runs(program, lambda _: program(), [torch.arange(20)], drawn=[0, 1])
    assert len(other.unique(dim=0)) == 20
    torch.set_rng_state(state)
    again, _ = map_runs(program, lambda _: program(), [torch.arange(20)], drawn=[0, 1])
    assert torch.equal(again, first)


def test_what_a_module_keeps_of_a_mapped_run_is_gone_after_it():
    class Keeper(torch.nn.Module):
        def forward(self):
            self.last = dist.Normal(LOC, 1.0).rsample()
            return self.last

    keeper = Keeper()
    (found,) = map_runs(keeper, lambda _: (keeper(),), [torch.arange(5)], drawn=[0])
    assert len(found.unique(dim=0)) == 5
    assert not hasattr(keeper, "last")
