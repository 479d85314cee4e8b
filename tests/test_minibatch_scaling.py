"""The N/M scaling: once, whoever does it; other scales are weights that a program means."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from latente.inference import fit
from latente.inference.pairs.minibatch_scaling import ScaleData

NUM_DATA, BATCH = 400, 40
X = torch.randn(NUM_DATA, generator=torch.Generator().manual_seed(0)).double()


def guide(x):
    """q(w) = N(m, s²)."""
    m = pyro.param("m", x.new_zeros(()))
    s = pyro.param("s", x.new_tensor(0.08), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(m, s))


def model(x):
    """w ~ N(0, 1), xₙ ~ N(w, 1): the posterior's precision is 1 + N."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def scaled(of_data=1.0, of_latents=1.0, inside=True):
    """The pair with a scale on its data, inside the plate or around it, and one on its latents."""

    def weighed_model(x):
        with poutine.scale(scale=of_latents):
            w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        plate, scale = pyro.plate("data", len(x)), poutine.scale(scale=of_data)
        outer, inner = (plate, scale) if inside else (scale, plate)
        with outer, inner:
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    return weighed_model, poutine.scale(guide, scale=of_latents)


def posterior_sd(pair, **options):
    schedule = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.94)  # noqa: E731
    settings = {"epochs": 80, "batch_size": BATCH, "learning_rate": 0.1, "schedule": schedule}
    run = fit(*pair, X, show_progress=False, **settings, **options)
    return run.guide.store["params"]["s"].exp().item()


def test_minibatches_have_the_posterior_of_all_data():
    """Within a tenth, for the noise of the steps; scaled twice it would be √10 times smaller."""
    assert posterior_sd((model, guide)) == pytest.approx((1 + NUM_DATA) ** -0.5, rel=0.1)


@pytest.mark.parametrize("inside", [True, False], ids=["inside the plate", "around it"])
@pytest.mark.parametrize("scale", [10.0, 10.2, 9.8, torch.tensor(10.0)])
def test_data_scaled_by_hand_are_refused(inside, scale):
    """Scaled twice the sd would be too small by √10: 0.0158 for 0.0499."""
    with pytest.raises(
        ValueError, match=r"scales 'x' by \S+ \(poutine.scale\), which is about N/M = 400/40: .*"
        "count twice. Remove the scale from the program; .* another batch_size"
    ):  # fmt: skip
        posterior_sd(scaled(scale, inside=inside))


def test_the_scale_is_refused_on_factors_and_with_batches_that_do_not_divide_the_data():
    def by_factor(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)), poutine.scale(scale=NUM_DATA / len(x)):
            pyro.sample("seen", dist.Normal(w, 1.0), obs=x)
            pyro.factor("more", -0.1 * (x - w) ** 2)

    with pytest.raises(ValueError, match="which is about N/M"):
        fit(by_factor, guide, X[:-3], batch_size=70, show_progress=False)


@pytest.mark.parametrize(
    ("of_data", "of_latents"),
    [(1.0, 0.5), (1.0, 10.0), (3.0, 1.0), (0.5, 0.5), (0.1, 1.0)],
    ids=["annealed", "latents alone", "tempered", "all alike", "down by N/M"],
)
def test_other_scales_are_weights_and_have_their_exact_posterior(of_data, of_latents):
    """Precision of the tempered posterior: 1 + N of_data / of_latents."""
    expected = (1 + NUM_DATA * of_data / of_latents) ** -0.5
    found = posterior_sd(scaled(of_data, of_latents))
    assert found == pytest.approx(expected, rel=0.1)


def test_a_plate_that_subsamples_itself_keeps_its_scale():
    def subsampling(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", NUM_DATA, subsample=torch.arange(len(x))):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    assert posterior_sd((subsampling, guide)) == pytest.approx((1 + NUM_DATA) ** -0.5, rel=0.1)


@pytest.mark.parametrize(
    ("num_data", "scale", "refused"),
    [(40, 1.0, False), (41, 1.0, False), (41, 1.025, True), (60, 1.5, True), (60, 1.6, False),
     (60, 1.4, False), (4000, 104.0, True), (4000, 106.0, False)],
)  # fmt: skip
def test_how_near_a_scale_must_be(num_data, scale, refused):
    """Within 5 %, and nearer to N/M than to 1."""
    program, _ = scaled(scale)
    with ScaleData(num_data):
        if refused:
            with pytest.raises(ValueError, match="about N/M"):
                program(X[:40])
        else:
            trace = poutine.trace(program).get_trace(X[:40])
            expected = scale * num_data / 40
            assert math.isclose(trace.nodes["x"]["scale"], expected)
        with pyro.validation_enabled(False):  # as at each step of a fit
            program(X[:40])


def test_the_batch_size_that_was_asked_for_counts_too():
    """400 data in batches of at most 128 make four of 100: N/M is 4, and by hand it is 3.125."""
    with pytest.raises(ValueError, match=r"scales 'x' by 3\.125 .* N/M = 400/128"):
        fit(*scaled(of_data=400 / 128), X, batch_size=128, epochs=1, show_progress=False)
    with pytest.raises(ValueError, match=r"scales 'x' by 4 .* N/M = 400/100"):
        fit(*scaled(of_data=4.0), X, batch_size=128, epochs=1, show_progress=False)
