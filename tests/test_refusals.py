"""Bad input to fit is refused in one clear line, and nothing is lost."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

from latente.inference import Budget, diagnose, evaluate, fit, log_evidence
from latente.models import Normal

from .test_fit import quiet, same, weights


def _without_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc.expand(len(x)), 1.0))


def _model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _two_latents(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("u", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _guide_of_two(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("u", dist.Normal(torch.zeros(len(x)), 1.0))


def _positive(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Exponential(z.exp()), obs=x)


X = torch.linspace(-1, 1, 200)
BAD = {
    "plate": (
        (_without_plate, _guide, X),
        {},
        "log densities at dimension -1, where there is no",
    ),
    "model site": ((_two_latents, _guide, X), {}, "the model samples 'u', which the guide does"),
    "guide site": ((_model, _guide_of_two, X), {}, "the guide samples 'u', which the model does"),
    "support": (
        (_positive, _guide, X),
        {},
        r"outside the support of Exponential at site 'x', such as -1",
    ),
    "nan": ((_model, _guide, X / X.abs().floor()), {}, "data holds NaN or infinity in rows 1, 2"),
    "empty": ((_model, _guide, X[:0]), {}, "data holds no rows"),
    "few": (
        (_model, _guide, X[:50]),
        {"batch_size": 128},
        "50 training rows are fewer than a batch of 128: set",
    ),
    "batch": ((_model, _guide, X), {"batch_size": 0}, "batch_size must be positive"),
    "epochs": ((_model, _guide, X), {"epochs": -1}, "epochs must be positive"),
    "part of an epoch": (
        (_model, _guide, X),
        {"epochs": 2.5},
        "epochs must be a whole number, got 2.5",
    ),
    "rate": ((_model, _guide, X), {"learning_rate": math.nan}, "learning_rate must be positive"),
    "seed": ((_model, _guide, X), {"seed": -1}, "seed must not be negative"),
    "patience": ((_model, _guide, X), {"patience": 3}, "patience needs data to validate on"),
    "device": ((_model, _guide, X), {"device": "cuda:99"}, "no device 'cuda:99' here"),
    "no device": ((_model, _guide, X), {"device": "abacus"}, "no device 'abacus'"),
    "resume": ((_model, _guide, X), {"resume": True}, "needs the folder of the run"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(arguments, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert not pyro.get_param_store()


def test_an_autoguide_of_local_sites_is_refused_and_one_of_global_sites_is_not():
    def bayesian_mean(x):
        w = pyro.sample("w", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    x = torch.randn(300) + 3
    guide = AutoNormal(bayesian_mean)
    quiet(bayesian_mean, guide, x, epochs=100, batch_size=100, learning_rate=0.05)
    assert guide.locs.w.item() == pytest.approx(x.mean().item(), abs=0.1)
    with pytest.raises(ValueError, match=r"keeps a posterior for each datum, .*batch_size=200, or"):
        quiet(_model, AutoNormal(_model), X)


def test_a_pair_without_parameters_is_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match=r"no parameters to fit"):
        quiet(_model, guide, X)


def test_grey_values_under_a_bernoulli_are_refused_with_advice(make_pair, binary_images):
    pair = make_pair()
    before = weights(*pair)
    x = binary_images.clone()
    x[150, 2, 1] = 0.25
    with pytest.raises(
        ValueError, match=r"Bernoulli at site 'x', such as 0.25, .* row 150, .*binarize="
    ):
        quiet(*pair, x, epochs=1)
    assert same(weights(*pair), before)


def test_images_of_another_size_are_refused_by_the_network(make_pair):
    with pytest.raises(
        ValueError, match=r"network of 16 inputs got a tensor of shape \(75, 5, 5\).*values$"
    ):
        quiet(*make_pair(), torch.zeros(150, 5, 5))


def test_a_loss_that_is_not_finite_stops_the_run(make_pair, binary_images, tmp_path):
    vae, guide = make_pair()
    vae.likelihood = Normal((4, 4), scale=nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(
        FloatingPointError, match=r"the (loss|weights) became .* in epoch \d+: lower the lear"
    ):
        quiet(vae, guide, binary_images, epochs=100, learning_rate=1e4, out=tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((_model, None), r"the guide is None: give a Pyro program, .*AutoNormal\(model\)$"),
        ((None, _guide), r"the model is None: give a Pyro program, a function or a module$"),
        ((_model, AutoNormal), r"the guide is the class AutoNormal: give an object of it, AutoN"),
        ((nn.Linear, _guide), r"the model is the class Linear: give an object of it"),
        ((_model, 3), r"the guide is of type int: give a Pyro program"),
    ],
)
@pytest.mark.parametrize("call", [quiet, log_evidence, evaluate, diagnose])
def test_what_is_no_program_is_refused_by_its_role(call, pair, message):
    with pytest.raises(ValueError, match=message):
        call(*pair, X)


@pytest.mark.parametrize("call", [fit, log_evidence, evaluate, diagnose])
def test_data_by_position_beyond_the_data_are_refused_with_the_form(call):
    with pytest.raises(ValueError, match=rf"^{call.__name__} takes all data as one argument, such"):
        call(_model, _guide, X, X)


@pytest.mark.parametrize("budget", [{}, {"nuts_data": 0}, None, 100])
def test_a_budget_that_is_none_is_refused(budget):
    kind = type(budget).__name__
    with pytest.raises(ValueError, match=rf"^budget is of type {kind}: give Budget\(…\), or leave"):
        diagnose(_model, _guide, X, budget=budget)


def test_a_budget_takes_whole_numbers():
    with pytest.raises(ValueError, match=r"num_data must be a whole number, got 10\.5"):
        Budget(num_data=10.5)  # pyright: ignore[reportArgumentType]
