"""Roles of sites, told by what the program says: data, latent, or following from others."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam, TransformReparam

from latente.inference import log_evidence, psis_loo, simulate, to_datatree
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.sites import deterministic_sites, latent_sites, observed_sites

Y = torch.tensor([0.3, 2.0, -1.0, 1.1, 0.2])
NOISE = torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0])


def centered(y, noise):
    """θ ~ N(1, 2²), y ~ N(θ, noise²), and a probability that follows from θ."""
    with pyro.plate("data", len(y)):
        theta = pyro.sample("theta", dist.Normal(y.new_ones(()), 2.0))
        pyro.deterministic("share", torch.stack([theta.sigmoid(), (-theta).sigmoid()], -1))
        pyro.sample("y", dist.Normal(theta, noise), obs=y)


model = poutine.reparam(centered, config={"theta": LocScaleReparam(centered=0.0)})


def guide(y, noise):
    """The exact posterior of ε = (θ − 1) / 2."""
    with pyro.plate("data", len(y)):
        precision = 1 + 4 / noise**2
        loc = 2 * (y - 1) / noise**2 / precision
        pyro.sample("theta_decentered", dist.Normal(loc, precision**-0.5))


def names(tree, group):
    return set(tree[group].data_vars)


def test_a_reparametrized_latent_follows_from_another_and_is_no_data():
    trace = poutine.trace(model).get_trace(Y, NOISE)
    assert set(observed_sites(trace)) == {"y"}
    assert set(latent_sites(trace)) == {"theta_decentered"}
    assert set(deterministic_sites(trace)) == {"theta", "share"}


@pytest.mark.parametrize("num_samples", [1, 60], ids=["one draw", "many"])
def test_what_follows_from_the_latent_sites_is_exported_with_them(num_samples):
    tree = to_datatree(model, guide, (Y, NOISE), num_samples=num_samples)
    drawn = {"theta_decentered", "theta", "share"}
    assert names(tree, "posterior") == names(tree, "prior") == drawn
    for group in ("observed_data", "log_likelihood", "posterior_predictive", "prior_predictive"):
        assert names(tree, group) == {"y"}, group
    for group in ("posterior", "prior"):
        theta = tree[group]["theta"]
        assert theta.dims == ("chain", "draw", "datum")
        assert np.allclose(theta, 1 + 2 * tree[group]["theta_decentered"], atol=1e-5)
        assert tree[group]["share"].dims == ("chain", "draw", "datum", "share_dim_0")
        assert np.allclose(tree[group]["share"][..., 0], 1 / (1 + np.exp(-theta)), atol=1e-5)


def test_the_evidence_of_a_reparametrized_model_is_exact():
    evidence = log_evidence(model, guide, (Y, NOISE), num_samples=100)
    exact = dist.Normal(1.0, (4 + NOISE**2).sqrt()).log_prob(Y).double()
    assert torch.allclose(evidence.log_px, exact, atol=1e-4)
    (y, _), drawn = simulate(model, guide, (Y, NOISE), 2000)
    assert drawn.keys() == {"theta_decentered"}
    # Var(y) = 4 + noise², each of five noises in turn: within 5 standard errors (6e-7).
    variance = 4 + NOISE.square().mean().item()
    assert abs(y.var().item() - variance) < 5 * variance * math.sqrt(3 / 2000)


def shared(x):
    """w ~ N(0, 1), x ~ N(w, 1), with w written as a function of ε."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def test_leave_one_out_of_a_reparametrized_shared_site_is_exact():
    """Against the exact posterior's leave-one-out, to 0.1 nats, as in psis_loo's own example."""

    def epsilon(x):
        pyro.sample("w_decentered", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))

    program = poutine.reparam(shared, config={"w": LocScaleReparam(centered=0.0)})
    x = torch.linspace(-1, 2, 10)
    assert inspect_pair(program, epsilon, (x,)).observed_outside == ()
    exact = dist.Normal((x.sum() - x) / 10, 1.1**0.5).log_prob(x).sum().item()
    assert psis_loo(program, epsilon, x).elpd == pytest.approx(exact, abs=0.1)
    tree = to_datatree(program, epsilon, x, num_samples=5)
    assert names(tree, "posterior") == {"w_decentered", "w"}
    assert np.allclose(tree.posterior["w"], tree.posterior["w_decentered"])


def test_a_transformed_site_is_exported_with_its_base():
    def positive(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample(
                "rate",
                dist.TransformedDistribution(
                    dist.Normal(x.new_zeros(()), 1.0), dist.transforms.ExpTransform()
                ),
            )
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def base(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate_base", dist.Normal((x + 1).log(), 0.5))

    program = poutine.reparam(positive, config={"rate": TransformReparam()})
    tree = to_datatree(program, base, torch.tensor([0.0, 3.0, 1.0]), num_samples=20)
    assert names(tree, "posterior") == {"rate", "rate_base"}
    assert names(tree, "observed_data") == {"x"}
    assert np.allclose(np.log(tree.posterior["rate"]), tree.posterior["rate_base"], atol=1e-5)


def test_covariates_are_constant_data_wherever_they_stand():
    """(X, y), as regressions are written: y is what is observed."""

    def regression(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("y", dist.Normal(x.sum(-1) + z, 1.0), obs=y)

    def its_guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((y - x.sum(-1)) / 2, 0.5**0.5))

    x = torch.arange(10.0).reshape(5, 2)
    tree = to_datatree(regression, its_guide, (x, Y), num_samples=3)
    assert names(tree, "observed_data") == {"y"}
    assert np.array_equal(tree.observed_data["y"], Y)
    assert names(tree, "constant_data") == {"context_0"}
    assert np.array_equal(tree.constant_data["context_0"], x)


def test_the_elbo_of_an_impossible_draw_is_minus_infinity():
    """A rate of 0 at half of the draws gives a count of 1 the density 0: no NaN."""

    def counts(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Poisson(z.relu(), validate_args=False), obs=x)

    def normal(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    evidence = log_evidence(counts, normal, torch.tensor([1.0, 0.0]), num_samples=4000)
    assert evidence.elbo == -math.inf
    assert evidence.reconstruction.tolist()[0] == -math.inf
    assert evidence.kl.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    # ∫ z e^{−z} φ(z) dz over z > 0, with φ the standard normal density.
    z = torch.linspace(0, 12, 100_001, dtype=torch.float64)
    density = (z.log() - z + dist.Normal(z.new_zeros(()), 1.0).log_prob(z)).exp()
    exact = torch.trapezoid(density[1:], z[1:]).log()
    assert abs(evidence.log_px[0] - exact) < 5 * evidence.standard_error[0]
