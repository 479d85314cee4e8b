"""Fitting: the same numbers as Pyro's own SVI, reproducible, isolated, on any pair."""

import itertools
import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from latente.guides import DiagonalNormal
from latente.inference import fit, load_data, log_evidence
from latente.inference.data import epoch_batches
from latente.inference.pairs import ScaleData, StoredProgram, modules, private_store
from latente.inference.training import loss_and_grads
from latente.models import VAE, Bernoulli, Normal, StandardNormal, mlp

from .oracles import GlobalMean, LinearGaussian, TutorialVAE

quiet = partial(fit, show_progress=False)


def weights(*programs):
    return {
        (i, name): value.detach().clone()
        for i, program in enumerate(programs)
        for name, value in program.state_dict().items()
    }


def same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a) <= tolerance


@pytest.mark.parametrize("objective", [TraceMeanField_ELBO, Trace_ELBO])
def test_100_steps_are_those_of_pyro_svi(make_pair, binary_images, objective):
    """The same seed and weights give plain SVI's losses and parameters, float64, to 1e-10."""
    x = binary_images.double()
    ours, theirs = make_pair(dtype=torch.float64), make_pair(dtype=torch.float64)
    run = quiet(*ours, x, objective=objective(), epochs=100, batch_size=len(x), seed=7)

    svi = SVI(*theirs, pyro.optim.Adam({"lr": 1e-3}), objective())
    pyro.set_rng_seed(7)
    losses = [svi.step(x) / len(x) for _ in range(100)]

    assert (
        max(abs(row["loss"] - loss) for row, loss in zip(run.history, losses, strict=True)) < 1e-10
    )
    assert same(weights(*ours), weights(*theirs), 1e-10)
    assert losses[-1] < losses[0]


def test_minibatch_steps_are_those_of_pyro_svi(make_pair, binary_images):
    """Ten epochs of ten batches, against SVI on the same batches with the N/M scale by hand."""
    x = binary_images.double()
    ours, theirs = make_pair(dtype=torch.float64), make_pair(dtype=torch.float64)
    run = quiet(*ours, x, epochs=10, batch_size=20, seed=7)

    svi = SVI(
        poutine.scale(theirs[0], len(x) / 20),
        poutine.scale(theirs[1], len(x) / 20),
        pyro.optim.Adam({"lr": 1e-3}),
        TraceMeanField_ELBO(),
    )
    pyro.set_rng_seed(7)
    losses = [
        sum(svi.step(batch) for (batch,) in epoch_batches((x,), 20, seed=7, epoch=epoch)) / 10
        for epoch in range(10)
    ]
    for row, loss in zip(run.history, losses, strict=True):
        assert row["loss"] == pytest.approx(loss / len(x), abs=1e-10)
    assert same(weights(*ours), weights(*theirs), 1e-10)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(make_pair):
    data = load_data("digits", binarize="dynamic")
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
        guide = DiagonalNormal(mlp(64, 16, out=4), 2)
        torch.manual_seed(torch.seed() % 1000)  # the global random state has no part in it
        run = quiet(vae, guide, data, epochs=3, seed=seed)
        numbers = [row["loss"] for row in run.history] + [r["validation_elbo"] for r in run.history]
        results.append((numbers, weights(vae, guide)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_global_state_is_left_as_it_was(make_pair, binary_images):
    """Parameters in Pyro's store, the random state, and validation."""
    pair = make_pair()
    pyro.param("decoder$$$mine", torch.tensor(3.0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quiet(*pair, binary_images, epochs=1)
    log_evidence(*pair, binary_images[:5], num_samples=30)
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store()) == ["decoder$$$mine"]
    assert pyro.param("decoder$$$mine").item() == 3.0
    assert dist.is_validation_enabled()


def test_two_fits_of_pairs_with_the_same_names_do_not_touch_each_other():
    """Two tutorial VAEs register "decoder" alike; alone or after one another, each trains."""
    x = torch.rand(100, 8, 8).round()

    def make():
        torch.manual_seed(3)
        return TutorialVAE()

    alone, first, second = make(), make(), make()
    expected = quiet(alone.model, alone.guide, x, epochs=3, batch_size=50)
    quiet(first.model, first.guide, 1 - x, epochs=3, batch_size=50)
    run = quiet(second.model, second.guide, x, epochs=3, batch_size=50)
    assert [row["loss"] for row in run.history] == [row["loss"] for row in expected.history]
    assert same(weights(second), weights(alone))
    assert not same(weights(first), weights(alone), 1e-3)
    assert not pyro.get_param_store()


def test_the_tutorial_vae_goes_through_unchanged():
    """Grey values, which its Bernoulli allows by validate_args=False, and flattened images."""
    data = load_data("digits")
    vae = TutorialVAE()
    before = log_evidence(vae.model, vae.guide, data.test, num_samples=200)
    run = quiet(vae.model, vae.guide, data, epochs=30, learning_rate=3e-3)
    after = log_evidence(vae.model, vae.guide, data.test, num_samples=200)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 5
    assert after.mean > before.mean + 5
    assert after.mean > after.elbo
    assert not pyro.get_param_store()


@pytest.mark.parametrize("batch_size", [5, 7, 10])
def test_minibatch_gradients_average_to_the_full_gradient(make_pair, binary_images, batch_size):
    """With a global latent too. Each batch weighs by its share of the data."""
    x = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    pair = GlobalMean()
    # Deterministic draws (each site at its mean) make the comparison exact.
    with private_store():
        pair.guide(x)
        store = pyro.get_param_store()
        names = list(store.keys())

        def gradient(batch, weight):
            values = [store[name].unconstrained() for name in names]
            for value in values:
                value.grad = None
            with ScaleData(len(x)), _AtMean():
                loss_and_grads(Trace_ELBO(), pair.model, pair.guide, (batch,))
            return [weight * value.grad for value in values]

        full = gradient(x, 1.0)
        batches = [b for (b,) in epoch_batches((x,), batch_size, seed=0, epoch=0)]
        parts = [gradient(batch, len(batch) / len(x)) for batch in batches]
    for expected, *found in zip(full, *parts, strict=True):
        assert torch.allclose(sum(found), expected, atol=1e-10)
        assert expected.abs() > 1e-3


class _AtMean(poutine.messenger.Messenger):
    def _pyro_sample(self, msg):
        latent = msg["type"] == "sample" and not msg["is_observed"] and not msg["done"]
        if latent and msg["name"] != "data":
            msg["value"] = msg["fn"].mean
            msg["done"] = True


def test_minibatch_gradients_of_a_vae_average_to_the_full_gradient(make_pair, binary_images):
    x = binary_images.double()
    pair = make_pair(dtype=torch.float64)

    def gradient(batch):
        for module in pair:
            module.zero_grad()
        with private_store(), ScaleData(len(x)), _AtMean():
            loss_and_grads(TraceMeanField_ELBO(), *pair, (batch,))
        return torch.cat([p.grad.flatten() for module in pair for p in module.parameters()])

    full = gradient(x)
    parts = [gradient(b) for (b,) in epoch_batches((x,), 25, seed=0, epoch=0)]
    assert torch.allclose(torch.stack(parts).mean(0), full, atol=1e-9)


def test_a_global_latent_gets_its_posterior():
    """Minibatch SVI finds the stationary point of the whole data's ELBO, known by hand."""
    x = 1.5 + math.sqrt(2) * torch.randn(400).double()
    pair = GlobalMean()
    run = quiet(
        pair.model,
        pair.guide,
        x,
        objective=Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1),
        epochs=300,
        batch_size=100,
        learning_rate=0.1,
        schedule=partial(ExponentialLR, gamma=0.98),
    )
    assert isinstance(run.guide, StoredProgram)
    assert not pyro.get_param_store()
    site = poutine.trace(run.guide).get_trace(x).nodes["w"]["fn"]
    # Stationarity of the ELBO in loc and slope: two linear equations; w's precision is 1 + N.
    total, square = x.sum(), x.square().sum()
    system = torch.stack([torch.stack([x.new_tensor(len(x) + 1.0), total]),
                          torch.stack([total, 2 * square])])  # fmt: skip
    loc = torch.linalg.solve(system, torch.stack([total, square]))[0].item()
    assert site.mean.item() == pytest.approx(loc, abs=0.03)
    assert site.stddev.item() == pytest.approx((1 + len(x)) ** -0.5, rel=0.1)


@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO(), TraceMeanField_ELBO(num_particles=2), TraceGraph_ELBO(),
     RenyiELBO(alpha=0.0, num_particles=3)],
    ids=lambda objective: type(objective).__name__,
)  # fmt: skip
def test_any_pyro_elbo_trains(objective):
    x = torch.rand(200, 8, 8).round() * torch.eye(8)
    vae = TutorialVAE()
    run = quiet(vae.model, vae.guide, x, objective=objective, epochs=5, learning_rate=0.01)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 1


def test_a_streamed_file_is_fitted_like_the_same_data_in_memory(tmp_path, make_pair):
    path = tmp_path / "big.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (300, 4, 4), dtype=np.uint8))
    results = []
    for stream in (False, True):
        data = load_data(path, binarize="dynamic", stream=stream)
        pair = make_pair()
        run = quiet(*pair, data, epochs=3, batch_size=50)
        evidence = log_evidence(*pair, data, num_samples=50)
        results.append((weights(*pair), run.history[-1]["validation_elbo"], evidence.mean))
    assert same(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


def test_history_adds_up_and_counts(make_pair, binary_images):
    run = quiet(*make_pair(), binary_images, validation=binary_images[:50], epochs=3, batch_size=64)
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    for row in run.history:
        for prefix in ("", "validation_"):
            difference = row[f"{prefix}reconstruction"] - row[f"{prefix}kl"]
            assert row[f"{prefix}elbo"] == pytest.approx(difference)
        assert row["seconds"] > 0
        assert row["rows_per_second"] == pytest.approx(200 / row["seconds"])


def test_early_stopping_keeps_the_best_weights(make_pair, binary_images):
    """A training set that says nothing of the validation set: the bound there soon falls."""
    noise = torch.rand(40, 4, 4).round()
    pair = make_pair()
    run = quiet(
        *pair, noise, validation=binary_images, epochs=200, batch_size=10,
        learning_rate=0.01, patience=5,
    )  # fmt: skip
    bounds = [row["validation_elbo"] for row in run.history]
    assert len(bounds) < 200
    assert run.epoch == len(bounds) == run.best_epoch + 5
    assert bounds.index(max(bounds)) == run.best_epoch - 1
    again = make_pair()
    quiet(
        *again, noise, validation=binary_images, epochs=run.best_epoch, batch_size=10,
        learning_rate=0.01,
    )  # fmt: skip
    assert same(weights(*pair), weights(*again))


def test_the_schedule_moves_the_rate(make_pair, binary_images):
    run = quiet(*make_pair(), binary_images, epochs=3, schedule=partial(ExponentialLR, gamma=0.5))
    assert [row["learning_rate"] for row in run.history] == [1e-3, 5e-4, 2.5e-4]


def test_clipping_limits_the_gradient_per_datum(make_pair, binary_images):
    """Under plain gradient descent a step is the learning rate times the clipped gradient."""
    pair = make_pair()
    before = weights(*pair)
    quiet(
        *pair, binary_images, epochs=1, batch_size=200, optimizer=torch.optim.SGD,
        learning_rate=1e-3, clip_norm=0.01,
    )  # fmt: skip
    moved = sum((after - before[name]).square().sum() for name, after in weights(*pair).items())
    assert moved.sqrt().item() == pytest.approx(1e-3 * 0.01 * 200, rel=1e-3)


def test_contexts_reach_the_pair():
    seen = []

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(0.0))

        def model(self, x, y):
            seen.append((x.dtype, y.dtype, len(y)))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample("x", dist.Normal(self.slope * y + 0.1 * z, 1.0), obs=x)

        def guide(self, x, y):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    y = torch.arange(100) % 3
    pair = Conditional()
    quiet(pair.model, pair.guide, (2.0 * y, y), epochs=60, batch_size=50, learning_rate=0.1)
    assert pair.slope.item() == pytest.approx(2, abs=0.05)
    assert set(seen) == {(torch.float32, torch.int64, 50), (torch.float32, torch.int64, 100)}


def test_data_follow_the_pairs_dtype(binary_images, make_pair):
    run = quiet(*make_pair(dtype=torch.float64), binary_images.numpy(), epochs=1)
    assert next(run.model.parameters()).dtype == torch.float64


def test_a_linear_vae_reaches_the_exact_evidence():
    """K = 1: the diagonal family holds the posterior, so the ELBO can meet log p(x)."""
    oracle = LinearGaussian(1, num_observed=4)
    x = oracle.sample(1000)
    vae, guide = oracle.pair(widen=2.0, shift=0.5)
    for p in vae.parameters():
        p.requires_grad_(False)
    quiet(
        vae, guide, x, epochs=200, batch_size=200, learning_rate=0.05,
        schedule=partial(ExponentialLR, gamma=0.97),
    )  # fmt: skip
    evidence = log_evidence(vae, guide, x, num_samples=50)
    exact = oracle.marginal.log_prob(x).mean().item()
    assert evidence.elbo == pytest.approx(exact, abs=2e-3)


def pair_of(model, guide):
    return lambda: (model, guide)


def _plate_of_another_name(x):
    with pyro.plate("batch", len(x)):
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
    "plate": ((_plate_of_another_name, _guide, X), {}, "no observed site inside a plate named"),
    "model site": ((_two_latents, _guide, X), {}, "the model samples 'u', which the guide does"),
    "guide site": ((_model, _guide_of_two, X), {}, "the guide samples 'u', which the model does"),
    "support": ((_positive, _guide, X), {}, r"outside the support of Exponential at site 'x', -1"),
    "nan": ((_model, _guide, X / X.abs().floor()), {}, "data holds NaN or infinity in rows 1, 2"),
    "empty": ((_model, _guide, X[:0]), {}, "data holds no rows"),
    "few": ((_model, _guide, X[:50]), {}, "50 training rows are fewer than a batch of 128: set"),
    "batch": ((_model, _guide, X), {"batch_size": 0}, "batch_size must be positive"),
    "epochs": ((_model, _guide, X), {"epochs": -1}, "epochs must be positive"),
    "rate": ((_model, _guide, X), {"learning_rate": math.nan}, "learning_rate must be positive"),
    "seed": ((_model, _guide, X), {"seed": -1}, "seed must not be negative"),
    "patience": ((_model, _guide, X), {"patience": 3}, "patience needs data to validate on"),
    "device": ((_model, _guide, X), {"device": "cuda:99"}, "no device 'cuda:99' to be used here"),
    "no device": ((_model, _guide, X), {"device": "abacus"}, "no device 'abacus'"),
    "resume": ((_model, _guide, X), {"resume": True}, "needs the folder of the run"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(arguments, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert not pyro.get_param_store()


def test_a_pair_without_parameters_is_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match="no parameters to fit"):
        quiet(_model, guide, X)


def test_grey_values_under_a_bernoulli_are_refused_with_advice(make_pair, binary_images):
    pair = make_pair()
    before = weights(*pair)
    x = binary_images.clone()
    x[150, 2, 1] = 0.25
    with pytest.raises(ValueError, match=r"Bernoulli at site 'x', 0.25 .* row 150, .*binarize="):
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
        FloatingPointError, match=r"the loss became .* in epoch \d+: lower the lear"
    ):
        quiet(vae, guide, binary_images, epochs=100, learning_rate=1e4, out=tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_modules_behind_a_pair():
    vae = TutorialVAE()
    assert modules(vae.model, vae.guide) == {"model": vae}
    plain = itertools.count
    assert modules(plain, plain) == {}


class PyroModulePair(PyroModule):
    """A user's PyroModule with a constrained parameter of its own."""

    def __init__(self, scale):
        super().__init__()
        self.scale = PyroParam(torch.tensor(scale), constraint=dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _posterior_of_unit_scale(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.9))


def test_pyro_modules_keep_their_values_beside_stale_ones_of_the_same_name():
    """Another module's value in the global store, under the same name, must not win."""
    x = torch.randn(200)
    other = PyroModulePair(50.0)
    SVI(
        other, _posterior_of_unit_scale, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()
    ).step(x)  # fmt: skip
    assert "scale" in pyro.get_param_store()
    pair = PyroModulePair(2.0)
    evidence = log_evidence(pair, _posterior_of_unit_scale, x, num_samples=500)
    exact = dist.Normal(0.0, 5**0.5).log_prob(x).mean().item()
    assert evidence.mean == pytest.approx(exact, abs=0.05)
    assert pair.scale.item() == pytest.approx(2.0)
    quiet(pair, _posterior_of_unit_scale, x, epochs=3, learning_rate=0.05)
    assert 1.0 < pair.scale.item() != 2.0
    assert other.scale.item() == pytest.approx(50.0, abs=1)


def test_a_pair_trained_by_hand_is_evaluated_with_its_values():
    """Values that SVI left in the global store are found, and left there."""
    pyro.param("loc", torch.tensor(3.0))
    x = torch.full((5,), 3.0)

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + 3) / 2, 0.9))

    evidence = log_evidence(model, guide, x, num_samples=1000)
    assert evidence.mean == pytest.approx(-0.5 * math.log(4 * math.pi), abs=0.01)
    assert pyro.param("loc").item() == 3.0
