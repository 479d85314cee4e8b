"""Loading runs of pairs whose parameters exist only when they are called, and pairs of few."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal, AutoStructured
from torch import nn
from torch.distributions import constraints

from latente.inference import Budget, Level, diagnose, evaluate, fit, load_run, log_evidence
from latente.inference.training import checkpoints

from .oracles import LinearGaussian

quiet = partial(fit, show_progress=False, compile="plain")
X = torch.randn(50, 3, generator=torch.Generator().manual_seed(3)) + 2


def factor(x, labels):
    loc = pyro.param("loc", torch.zeros(3))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        shift = torch.eye(3)[labels]
        pyro.sample("x", dist.Normal(z + loc + shift, scale).to_event(1), obs=x)


def slope(x, labels):
    slope = pyro.param("slope", torch.tensor(0.1), constraint=constraints.unit_interval)
    scale = pyro.param("spread", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, scale).to_event(1))


def bayesian_mean(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, scale + 0.1), obs=x)


def evidence(model, guide, *data):
    return log_evidence(model, guide, data if len(data) > 1 else data[0], num_samples=30, seed=0)


def draws(guide, x):
    pyro.set_rng_seed(0)
    return {name: value.item() for name, value in guide(x).items()}


def test_a_run_of_pyro_params_in_plain_functions_is_loaded(tmp_path):
    """Constrained parameters too, beside values in Pyro's store that are not the run's."""
    labels = torch.arange(50) % 3
    adam = pyro.optim.Adam({"lr": 0.05})
    run = quiet(factor, slope, (X, labels), epochs=5, optimizer=adam, out=tmp_path)
    expected = evidence(run.model, run.guide, X, labels)
    pyro.param("loc", torch.full((3,), 100.0))
    state = torch.get_rng_state()
    loaded = load_run(tmp_path, model=factor, guide=slope)
    assert torch.equal(evidence(loaded.model, loaded.guide, X, labels).log_px, expected.log_px)
    assert loaded.epoch == 5
    assert set(pyro.get_param_store()) == {"loc"}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [AutoNormal, AutoLowRankMultivariateNormal, AutoStructured])
def test_a_run_of_an_autoguide_is_loaded_into_one_not_yet_called(make, tmp_path):
    x = X[:, 0]
    guide = make(bayesian_mean)
    adam = pyro.optim.Adam({"lr": 0.05})
    quiet(bayesian_mean, guide, x, epochs=5, optimizer=adam, out=tmp_path)
    other = make(bayesian_mean)
    loaded = load_run(tmp_path, model=bayesian_mean, guide=other)
    assert loaded.guide is other
    assert draws(other, x) == draws(guide, x)


def test_a_pair_that_cannot_be_called_on_ones_is_loaded_with_its_data(tmp_path):
    def choosy(x):
        if (x == x[0]).all():
            raise RuntimeError("all rows are alike")
        bayesian_mean(x)

    x = X[:, 0]
    guide = AutoNormal(choosy)
    quiet(choosy, guide, x, epochs=2, out=tmp_path)
    with pytest.raises(ValueError, match=r"cannot be called on ones \(all rows are alike\): give"):
        load_run(tmp_path, model=choosy, guide=AutoNormal(choosy))
    loaded = load_run(tmp_path, model=choosy, guide=AutoNormal(choosy), data=x)
    assert draws(loaded.guide, x) == draws(guide, x)


def test_a_run_without_the_shapes_of_its_data_needs_data(tmp_path):
    """As version 0.1 wrote them."""
    run = quiet(factor, slope, (X, torch.zeros(50).long()), epochs=1, out=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, facts = checkpoints.load(path)
    facts = {name: fact for name, fact in facts.items() if name not in ("arguments", "format")}
    checkpoints.save(path, tensors, facts)
    with pytest.raises(ValueError, match="give load_run rows of the data of the fit, as data=x"):
        load_run(tmp_path, model=factor, guide=slope)
    data = X, torch.zeros(50).long()
    loaded = load_run(tmp_path, model=factor, guide=slope, data=data)
    found = evidence(loaded.model, loaded.guide, *data).mean
    assert found == evidence(run.model, run.guide, *data).mean


def test_a_pair_that_takes_keywords_is_loaded_with_its_data(tmp_path):
    def by_name(*, y, labels):
        return factor(y, labels)

    def guide(*, y, labels):
        return slope(y, labels)

    data = {"y": X, "labels": torch.zeros(50).long()}
    run = quiet(by_name, guide, data, epochs=2, out=tmp_path)
    loaded = load_run(tmp_path, model=by_name, guide=guide, data=data)
    found = [
        log_evidence(each.model, each.guide, data, num_samples=10, seed=0).mean
        for each in (run, loaded)
    ]
    assert found[0] == found[1]


def test_a_pair_of_other_parameters_is_refused(tmp_path):
    def other(x, labels):
        pyro.param("gain", torch.tensor(1.0))
        return slope(x, labels)

    quiet(factor, slope, (X, torch.zeros(50).long()), epochs=1, out=tmp_path)
    with pytest.raises(ValueError, match=r"of another model: param.gain is missing in the file"):
        load_run(tmp_path, model=factor, guide=other)


class Conjugate(nn.Module):
    """z ~ N(0, 1), x ~ N(z, 1): a model without parameters, whose posterior is N(x/2, 1/2)."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Line(nn.Module):
    """A guide of three parameters."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Linear(1, 1)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            loc = self.slope(x[:, None])[:, 0]
            pyro.sample("z", dist.Normal(loc, self.log_scale.exp()))


def test_a_model_without_parameters_is_fitted_saved_and_judged(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = 2**0.5 * torch.randn(300, generator=generator)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).mean().item()
    pair = Conjugate(), Line()
    options = {"validation": x[:50], "patience": 30, "learning_rate": 0.05, "out": tmp_path}
    quiet(*pair, x, epochs=10, device="cpu", **options)
    run = quiet(*pair, x, epochs=30, resume=True, device="cpu", **options)
    assert run.history[-1]["elbo"] == pytest.approx(exact, abs=0.05)
    loaded = load_run(tmp_path, model=Conjugate(), guide=Line())
    for each in (run, loaded):
        found = evaluate(each.model, each.guide, x, num_samples=1000, seed=0)
        assert found["log_evidence"] == pytest.approx(exact, abs=0.01)


def test_an_exact_pair_without_parameters_is_judged_without_a_fit():
    """Its evidence is exact at each draw, and nothing is said against the guide."""
    linear = LinearGaussian(2, 4)
    weight, bias = linear.weight, linear.bias

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            likelihood = dist.Normal(z @ weight.T + bias, linear.scale).to_event(1)
            pyro.sample("x", likelihood, obs=x)

    x = linear.sample(60)
    found = evaluate(model, linear.exact_guide, x, num_samples=10)
    exact = linear.marginal.log_prob(x).mean().item()
    assert found["log_evidence"] == pytest.approx(exact, abs=1e-9)
    assert found["elbo"] == pytest.approx(exact, abs=0.5)
    budget = Budget(
        num_data=60, num_samples=100, annealed_data=0, gap_data=4, gap_steps=50, simulations=200,
        nuts_data=0, replications=50, tree_data=5, tree_samples=10,
    )  # fmt: skip
    diagnosis = diagnose(model, linear.exact_guide, x, budget=budget)
    about_guide = [finding for finding in diagnosis.findings if not finding.about_model]
    assert len(about_guide) > 3
    assert max(finding.level for finding in about_guide) < Level.WARNING, about_guide
    assert diagnosis["gap"].total.abs().max() < 1e-6
