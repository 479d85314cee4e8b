"""Fitting: the same numbers as Pyro's own SVI, reproducible, isolated, on any pair."""

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
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from latente.guides import DiagonalNormal
from latente.inference import fit, load_data, log_evidence
from latente.inference.data.batches import epoch_batches
from latente.inference.pairs.minibatch_scaling import ScaleData
from latente.inference.pairs.programs import StoredProgram, private_store
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from .oracles import GlobalMean, LinearGaussian

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
                Trace_ELBO().differentiable_loss(pair.model, pair.guide, batch).backward()
            return [weight * value.grad for value in values]

        full = gradient(x, 1.0)
        batches = [b for (b,) in epoch_batches((x,), batch_size, seed=0, epoch=0)]
        parts = [gradient(batch, len(batch) / len(x)) for batch in batches]
    for expected, *found in zip(full, *parts, strict=True):
        assert torch.allclose(sum(found), expected, rtol=0, atol=1e-10)
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
            TraceMeanField_ELBO().differentiable_loss(*pair, batch).backward()
        return torch.cat([p.grad.flatten() for module in pair for p in module.parameters()])

    full = gradient(x)
    parts = [gradient(b) for (b,) in epoch_batches((x,), 25, seed=0, epoch=0)]
    assert torch.allclose(torch.stack(parts).mean(0), full, rtol=0, atol=1e-9)


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


def test_the_epochs_loss_is_its_mean_over_data():
    """A frozen bound: batches of 7 and 6 of 20 data must weigh by their sizes."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            pyro.sample("x", dist.Normal(0.0 * z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * loc + torch.zeros(len(x)).double(), 1.0))

    x = torch.linspace(-5, 5, 20).double() ** 3
    run = quiet(model, guide, x, epochs=2, batch_size=7)
    exact = -dist.Normal(0.0, 1.0).log_prob(x).mean().item()
    assert [row["loss"] for row in run.history] == pytest.approx([exact] * 2, rel=1e-12)
    assert run.history[0]["elbo"] == pytest.approx(-exact, rel=1e-12)


def test_the_bound_is_measured_over_all_validation_rows(monkeypatch):
    """More rows than a block, and a global variable whose KL is shared by the training data."""
    from latente.inference.training import fit_data

    monkeypatch.setattr(fit_data, "BLOCK_ROWS", 64)
    pair = GlobalMean()
    x, outside = torch.randn(50).double(), torch.linspace(-3, 3, 150).double() ** 3
    run = quiet(
        pair.model, pair.guide, x, validation=outside, objective=Trace_ELBO(), epochs=1,
        batch_size=50, learning_rate=1e-12,
    )  # fmt: skip
    # Averaged over many draws: E_q[log p(x|z, w) + log p(z) − log q(z)] and KL(q(w) ‖ p(w)) / N.
    loc, scale, slope = 0.3, 0.5, 0.2
    square = (outside - slope * outside - loc) ** 2 + 0.8**2 + scale**2
    reconstruction = (-0.5 * square - 0.5 * math.log(2 * math.pi)).mean().item()
    local = 0.5 * ((slope * outside) ** 2 + 0.8**2 - 1) - math.log(0.8)
    shared = (0.5 * (loc**2 + scale**2 - 1) - math.log(scale)) / len(x)
    row = run.history[0]
    # One draw of each z and one of w, shared: 5 standard errors of the linear terms, by hand.
    spread = (outside - slope * outside - loc).abs()
    error = 5 * (0.8 * spread.square().mean().sqrt() / math.sqrt(150) + scale * spread.mean())
    assert row["validation_reconstruction"] == pytest.approx(reconstruction, abs=error.item())
    assert row["validation_kl"] == pytest.approx(local.mean().item() + shared, abs=0.8)


def test_the_kl_of_a_global_variable_is_shared_by_the_data():
    """KL(N(30, 1) ‖ N(0, 1)) = 450 nats over 10 training data: 45 each, up to one draw's noise."""

    def model(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(30.0)), 1.0))

    options = {"epochs": 1, "batch_size": 10, "learning_rate": 1e-12}
    run = quiet(model, guide, torch.zeros(10), validation=torch.zeros(40), **options)
    # log q − log p = 450 + 30 ε, ε standard normal: 5 standard deviations (false alarm 6e-7).
    assert run.history[0]["kl"] == pytest.approx(45, abs=15)
    assert run.history[0]["validation_kl"] == pytest.approx(45, abs=15)


def test_a_plate_that_subsamples_itself_is_not_scaled_twice():
    x = torch.randn(10)

    def model(x):
        with pyro.plate("data", 40, subsample=torch.arange(10)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def plain(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    for program in (model, plain):
        with ScaleData(40):
            trace = poutine.trace(program).get_trace(x)
        assert trace.nodes["x"]["scale"] == 4


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


def test_data_follow_the_pairs_dtype(binary_images, make_pair):
    run = quiet(*make_pair(dtype=torch.float64), binary_images.numpy(), epochs=1)
    assert next(run.model.parameters()).dtype == torch.float64


def test_batch_statistics_are_of_training_batches_alone(binary_images):
    """The modes and running means that plain SVI would leave; none from checks or measures."""

    def make():
        torch.manual_seed(0)
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 2)
        )
        vae = VAE(StandardNormal(1), mlp(1, 8, out=16), Bernoulli((4, 4))).double()
        return vae, DiagonalNormal(encoder, 1).double()

    x = binary_images.double()
    ours, theirs = make(), make()
    quiet(*ours, x, validation=x[:20], epochs=10, batch_size=len(x), seed=7)
    assert not any(part.training for part in ours[1].modules())
    svi = SVI(*theirs, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    pyro.set_rng_seed(7)
    for _ in range(10):
        svi.step(x)
    assert same(weights(*ours), weights(*theirs), 1e-10)
    assert weights(*ours)[1, "encoder.2.num_batches_tracked"] == 10


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
