"""Auxiliary terms beside an objective: their value, gradient and weight, by hand."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from latente.inference import (
    AuxiliaryLoss,
    Beta_ELBO,
    ImportanceWeighted_ELBO,
    Warmup,
    evaluate,
    fit,
)

quiet = partial(fit, show_progress=False, seed=0)
X = torch.tensor([[1.0], [2.0], [4.0], [5.0]], dtype=torch.float64)


class Model(nn.Module):
    """z ~ N(0, 1), x ~ N(z, 1): the bound does not know the weight ``a``."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    """The exact posterior, and a term (a − x)² of each datum."""

    def __init__(self, event_dim=0):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.event_dim = event_dim

    def forward(self, x):
        with pyro.plate("data", len(x)):
            loss = (self.a - x).square()
            loss = loss.squeeze(-1) if not self.event_dim else loss
            pyro.deterministic("distance", loss, event_dim=self.event_dim)
            pyro.sample("z", dist.Normal(x / 2, torch.ones_like(x) * 0.5**0.5).to_event(1))


@pytest.mark.parametrize("num_particles", [1, 3])
def test_the_gradient_is_that_of_the_term_and_the_loss_that_of_the_bound(num_particles):
    """d/da Σ (a − x)² at a = 0 is −2 Σ x = −24; the bound of the exact posterior is log p(x)."""
    guide = Guide()
    objective = AuxiliaryLoss(Beta_ELBO(num_particles=num_particles), {"distance": 0.25})
    loss = objective.differentiable_loss(Model(), guide, X)
    loss.backward()
    assert guide.a.grad.item() == pytest.approx(-24 * 0.25, rel=1e-12)
    pyro.set_rng_seed(0)
    alone = Beta_ELBO(num_particles=num_particles).loss(Model(), guide, X)
    pyro.set_rng_seed(0)
    assert objective.loss(Model(), guide, X) == alone
    pyro.set_rng_seed(0)
    assert objective.differentiable_loss(Model(), guide, X).item() == pytest.approx(alone)


@pytest.mark.parametrize("make", [ImportanceWeighted_ELBO, partial(Beta_ELBO, free_bits=9.0)])
def test_it_goes_with_any_objective(make):
    """With free bits the bound is a mean over the batch, and the term's weight is the same."""
    guide = Guide()
    AuxiliaryLoss(make(), {"distance": 1.0}).differentiable_loss(Model(), guide, X).backward()
    assert guide.a.grad.item() == pytest.approx(-24, rel=1e-12)


def test_a_datum_of_a_minibatch_stands_for_n_over_m():
    """Two of four data: their term, doubled."""

    def model(x):
        with pyro.plate("data", 4, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def guide(x):
        with pyro.plate("data", 4, subsample=x):
            pyro.deterministic("distance", (parameter - x).square().squeeze(-1), event_dim=0)
            pyro.sample("z", dist.Normal(x / 2, 0.7 * torch.ones_like(x)).to_event(1))

    AuxiliaryLoss(Beta_ELBO(), {"distance": 1.0}).differentiable_loss(
        model, guide, X[:2]
    ).backward()
    assert parameter.grad is not None
    assert parameter.grad.item() == pytest.approx(2 * -2 * 3, rel=1e-12)


def test_it_is_fitted_and_reported_without_its_terms():
    """a goes to the mean of x; the figures are the bound's, recorded or not."""
    x = X.repeat(16, 1).float()
    objective = AuxiliaryLoss(Beta_ELBO(), {"distance": Warmup(2)})
    fitted = {}
    for compile in ("plain", "recorded"):
        guide = Guide().float()
        run = quiet(
            Model(), guide, x, objective=objective, epochs=60, batch_size=16, learning_rate=0.1,
            compile=compile,
        )  # fmt: skip
        assert guide.a.item() == pytest.approx(3.0, abs=0.2)
        expected = dist.Normal(0.0, 2**0.5).log_prob(x).mean().item()
        assert evaluate(Model(), guide, x)["elbo"] == pytest.approx(expected, abs=1e-5)
        assert run.history[-1]["elbo"] == pytest.approx(expected, abs=1e-5)
        assert run.history[0]["distance"] < run.history[-1]["distance"] == 1.0
        fitted[compile] = guide.a.detach()
    assert torch.allclose(*fitted.values(), atol=1e-5)


def test_it_runs_in_plain_pyro_svi():
    """One step of plain SGD at 0.01 on −24 a."""
    guide = Guide()
    optimizer = pyro.optim.SGD({"lr": 0.01})
    SVI(Model(), guide, optimizer, AuxiliaryLoss(Beta_ELBO(), {"distance": 1.0})).step(X)
    assert guide.a.item() == pytest.approx(0.24, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AuxiliaryLoss(Trace_ELBO(), {"distance": 1.0}), "such as Beta_ELBO.*Trace_ELBO"),
        (lambda: AuxiliaryLoss(Beta_ELBO(), {}), "name and weight of a term"),
        (lambda: AuxiliaryLoss(Beta_ELBO(), {"distance": -1.0}), "distance must be .* at least 0"),
    ],
)
def test_refused_when_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "event_dim", "message"),
    [("distanc", 0, "did you mean 'distance'"), ("distance", 1, "one number for each datum")],
)
def test_refused_when_first_run(name, event_dim, message):
    objective = AuxiliaryLoss(Beta_ELBO(), {name: 1.0})
    with pytest.raises(ValueError, match=message):
        quiet(Model(), Guide(event_dim), X, objective=objective, epochs=1, batch_size=4)
