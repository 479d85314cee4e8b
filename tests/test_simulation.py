"""Data drawn from a model, and which models none can be drawn from."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.inference.diagnostics.calibration import LOG_JOINT, LOG_Q, calibrate
from latente.inference.evaluation.posterior_sds import posterior_sds
from latente.inference.simulation.predictive import posterior_means
from latente.inference.simulation.simulate import simulate

from .oracles import TutorialVAE
from .test_calibration import chain, chain_guide, oracle, simple, simple_guide


def test_simulated_data_are_draws_of_the_model():
    """Mean and covariance of 2,500 x*, to 5 standard errors (3e-5 for all); contexts in turn."""
    known = oracle()
    (x,), values = simulate(*known.pair(), known.sample(5), 2500, seed=3)
    residual = x - values["z"] @ known.weight.T - known.bias
    assert x.dtype == torch.float64
    for sample, variance in ((values["z"], 1.0), (residual, known.scale**2)):
        assert sample.mean(0).abs().max() < 5 * math.sqrt(variance / 2500)
        wanted = variance * torch.eye(sample.shape[1]).double()
        assert (sample.T.cov() - wanted).abs().max() < 5 * variance * math.sqrt(2 / 2500)
    (x, context), values = simulate(
        chain, chain_guide, (torch.zeros(3), torch.tensor([-50.0, 0.0, 50.0])), 7
    )
    assert context.tolist() == [-50, 0, 50, -50, 0, 50, -50]
    assert (x - context - values["b"]).abs().max() < 6
    assert values.keys() == {"a", "b"}


def test_simulated_images_have_the_shape_of_the_data():
    vae = TutorialVAE()
    before = torch.random.get_rng_state()
    (x,), values = simulate(vae.model, vae.guide, torch.full((3, 8, 8), 0.5), 11)
    assert x.shape == (11, 8, 8)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert {name: value.shape for name, value in values.items()} == {"latent": (11, 2)}
    assert torch.equal(before, torch.random.get_rng_state())


def test_plates_within_a_datum_and_deterministic_sites():
    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.plate("parts", 2, dim=-2):
                part = pyro.sample("part", dist.Normal(x.new_zeros(len(x)), 1.0))
            total = pyro.deterministic("total", part.sum(-2))
            pyro.sample("x", dist.Normal(total, 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.plate("parts", 2, dim=-2):
            pyro.sample("part", dist.Normal(x / 2, math.sqrt(0.5)))

    (x,), values = simulate(model, guide, torch.zeros(2), 1100)
    assert values.keys() == {"part"}
    assert values["part"].shape == (2, 1100)
    assert (values["part"].sum(0) - x).abs().max() < 0.6
    # Each part by itself has (nearly) this distribution; that they make up for each other is left
    # out.
    found = calibrate(model, guide, torch.zeros(2), num_simulations=300, seed=1)
    assert found.names[:2] == ("part[0]", "part[1]")
    assert found.miscalibrated.keys() == {LOG_Q, LOG_JOINT}


def _observes_log(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("log_x", dist.Normal(z, 1.0), obs=x.log())


def _observes_twice(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("y", dist.Normal(z, 1.0), obs=x)


def _observes_outside(x):
    pyro.sample("total", dist.Normal(0.0, 1.0), obs=x.sum())
    simple(x)


def _forced(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z + 0.5 * x, 1.0), obs=x)


ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("model", "guide", "like", "message"),
    [
        (_observes_log, simple_guide, ONES, "'log_x' observes a transform of x: transform x befo"),
        (_observes_twice, simple_guide, ONES, "'y' observes data that 'x' observes too: let one"),
        (_observes_outside, simple_guide, ONES, "the site 'total' stands outside the plate"),
        (
            _forced,
            simple_guide,
            ONES,
            "the distribution at 'x' depends on the x that the model is given",
        ),
    ],
    ids=["log x", "twice", "outside", "forced"],
)
def test_models_that_do_not_say_how_x_comes_about(model, guide, like, message):
    for run in (simulate, lambda *pair: calibrate(*pair[:3])):
        with pytest.raises(ValueError, match=message) as caught:
            run(model, guide, like, 20)
        assert "\n" not in str(caught.value)


def test_at_least_one_simulation():
    with pytest.raises(ValueError, match="number of simulations must be at least 1, got 0"):
        simulate(simple, simple_guide, ONES, 0)


def test_a_transform_whose_inverse_is_kept_is_no_circle():
    """PyTorch keeps the inverse of a transform in it, once asked for, and the way back."""

    def model(x):
        with pyro.plate("data", len(x)):
            prior = dist.TransformedDistribution(
                dist.Normal(0.0, 1.0), [dist.transforms.AffineTransform(1.0, 2.0).inv]
            )
            size = pyro.sample("size", prior)
            scale = pyro.sample("scale", dist.LogNormal(0.0, 0.1))
            pyro.sample("x", dist.Normal(size, scale), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("size", dist.Normal(x, 1.0))
            pyro.sample("scale", dist.LogNormal(0.0, 1.0))

    x, drawn = simulate(model, guide, torch.zeros(4), 1000, seed=0)
    # Standard deviation of the mean: √(1/4 + 1) / √1000 = 0.035; of the prior's alone: 0.016.
    assert x[0].mean().item() == pytest.approx(-0.5, abs=5 * 0.036)
    assert drawn["size"].std().item() == pytest.approx(0.5, abs=5 * 0.5 / 2000**0.5)


def test_posterior_means_of_draws_belong_to_their_rows():
    """1,000 draws, many in one run: 8 means, each within 5 errors (false alarm 5e-6)."""

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.1))
            pyro.sample("w", dist.LogNormal(2 * z, 1e-3))

    x = torch.tensor([-1.0, 0.5, 2.0, 0.0])
    found = posterior_means(guide, guide, x)
    assert torch.allclose(found["z"], x, rtol=0, atol=1e-3 + 5 * 0.1 / 1000**0.5)
    assert torch.allclose(found["w"].log(), 2 * x, rtol=0, atol=0.02 + 5 * 0.2 / 1000**0.5)


def test_moments_of_a_local_site_are_over_the_draws_of_a_global_one():
    """1,000 draws of w: each mean within 5 errors (false alarm 6e-7), each sd within 5 of its."""

    def guide(x):
        w = pyro.sample("w", dist.Normal(1.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(w + x, 0.5))
            pyro.sample("alone", dist.Normal(x, 0.5))

    x = torch.tensor([-1.0, 0.5, 2.0])
    means, sds = (moments(guide, guide, x) for moments in (posterior_means, posterior_sds))
    assert torch.allclose(means["z"], x + 1, rtol=0, atol=5 / 1000**0.5)
    sd = 1.25**0.5
    assert torch.allclose(sds["z"], torch.full((3,), sd), rtol=0, atol=5 * sd / 2000**0.5)
    assert means["alone"].equal(x)
    assert sds["alone"].equal(torch.full((3,), 0.5))


def test_moments_where_two_draws_often_agree():
    """k = 1 with probability 0.05: mean 0.5, sd 2.40; each within 5 errors (false alarm 5e-6)."""

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.05)))
            pyro.sample("z", dist.Normal(10 * k, 1.0))

    means, sds = (
        moments(guide, guide, torch.zeros(3)) for moments in (posterior_means, posterior_sds)
    )
    assert torch.allclose(means["z"], torch.full((3,), 0.5), rtol=0, atol=5 * 2.4 / 1000**0.5)
    assert torch.allclose(sds["z"], torch.full((3,), 2.4), rtol=0, atol=5 * 4.5 / 1000**0.5)


def test_the_mean_direction_weighs_draws_before_it():
    """Half the angles are spread evenly, half lie at 1.5: 1.48; within 6 errors."""

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.5)))
            pyro.sample("a", dist.VonMises(1.5 * k, 0.05 + 50 * k))

    found = posterior_means(guide, guide, torch.zeros(4))["a"]
    assert torch.allclose(found, torch.full((4,), 1.476), rtol=0, atol=0.3)
