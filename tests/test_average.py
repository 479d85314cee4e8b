"""The exponential moving average of the weights: its values, columns, resumption and use."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from latente.inference import Callback, ExponentialMovingAverage, load_run, log_evidence

from .test_checkpoints import interrupted, quiet
from .test_fit import same, weights

EMA = ExponentialMovingAverage(0.9)


class KeepSteps(Callback):
    """The weights after each step."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, view, step, loss):

        self.weights.append(weights(view.model, view.guide))


def test_the_average_is_that_of_its_formula(make_pair, binary_images):
    pair, kept = make_pair(), KeepSteps()
    average = weights(*pair)
    run = quiet(*pair, binary_images, epochs=3, callbacks=[EMA, kept])
    plain = weights(*pair)
    for each in kept.weights:
        average = {name: 0.9 * average[name] + 0.1 * value for name, value in each.items()}
    with run.averaged() as same_run:
        assert same_run is run
        assert same(weights(*pair), average, 1e-6)
        elbo = log_evidence(*pair, binary_images, num_samples=500).elbo
    assert same(weights(*pair), plain)
    assert not same(plain, average, 1e-3)
    # One draw of 200 data, of up to 2 nats each, beside 500: 5 standard errors.
    assert run.history[-1]["ema_elbo"] == pytest.approx(elbo, abs=5 * 2 / 200**0.5)


def test_a_fit_with_an_average_has_the_numbers_of_one_without(make_pair, binary_images):
    x, held_out = binary_images[:150], binary_images[150:]
    with_it, without = make_pair(), make_pair()
    ours = quiet(*with_it, x, validation=held_out, epochs=3, callbacks=[EMA]).history
    theirs = quiet(*without, x, validation=held_out, epochs=3).history
    assert same(weights(*with_it), weights(*without))
    added = {name for name in ours[0] if name not in theirs[0]}
    figures = {"elbo", "reconstruction", "kl"}
    expected = {f"ema_{part}{name}" for part in ("", "validation_") for name in figures}
    assert added == expected
    for ours_row, theirs_row in zip(ours, theirs, strict=True):
        assert all(ours_row[name] == theirs_row[name] for name in ("loss", *figures))


def test_a_resumed_run_goes_on_with_its_average(make_pair, binary_images, tmp_path, monkeypatch):
    options = {"epochs": 6, "callbacks": [EMA]}
    whole, pair, folder = make_pair(), make_pair(), tmp_path / "run"
    expected = quiet(*whole, binary_images, **options)
    interrupted(monkeypatch, pair, binary_images, folder, at=37, **options)
    again = make_pair()
    run = quiet(*again, binary_images, out=folder, resume=True, **options)
    assert same(run.average, expected.average)
    assert run.history[-1]["ema_elbo"] == expected.history[-1]["ema_elbo"]
    other = make_pair()
    loaded = load_run(folder, model=other[0], guide=other[1])
    assert same(weights(*other), weights(*whole))
    with loaded.averaged(), expected.averaged():
        assert same(weights(*other), weights(*whole))
    for callbacks, message in (([], "give it to resume"), ([ExponentialMovingAverage(0.5)], "not")):
        with pytest.raises(ValueError, match=message):
            quiet(*again, binary_images, out=folder, resume=True, epochs=7, callbacks=callbacks)


def mean(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def slope(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(x):
    gain = pyro.param("gain", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * x, 0.7))


@pytest.mark.parametrize("pair", [(mean, AutoNormal(mean)), (slope, posterior)])
def test_parameters_of_the_store_are_averaged(pair):
    run = quiet(*pair, torch.randn(100) + 3, epochs=2, batch_size=50, callbacks=[EMA])
    tensors = [value for name, value in run.average.items() if "loc" in name or "gain" in name]
    assert tensors
    if pair[0] is slope:
        before = run.guide.store["params"]["gain"].item()
        with run.averaged():
            assert run.guide.store["params"]["gain"].item() == run.average["param.gain"].item()
        assert run.guide.store["params"]["gain"].item() == before != run.average["param.gain"]


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be between 0 and 1"):
        ExponentialMovingAverage(decay)


def test_no_average_and_two_are_refused(make_pair, binary_images):
    run = quiet(*make_pair(), binary_images, epochs=1)
    with pytest.raises(ValueError, match="kept no average"), run.averaged():
        pass
    with pytest.raises(ValueError, match="keeps one average"):
        quiet(*make_pair(), binary_images, epochs=1, callbacks=[EMA, ExponentialMovingAverage()])
