"""A guide may be narrower than the prior where the joint has no mass, and nowhere else."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.inference import (
    annealed_evidence,
    calibrate,
    diagnose,
    inference_gap,
    latent_information,
    log_evidence,
    log_predictive_density,
    nuts_posterior,
    to_datatree,
)

from .test_diagnosis import TINY

ALPHA = 2.5


def uniforms(x):
    with pyro.plate("data", len(x)):
        theta = pyro.sample("theta", dist.Pareto(x.new_ones(()), ALPHA))
        pyro.sample("x", dist.Uniform(torch.zeros_like(theta), theta), obs=x)


def pareto(x, *, factor=1.0, more=1.0):
    with pyro.plate("data", len(x)):
        pyro.sample("theta", dist.Pareto(factor * x.clamp(min=1.0), ALPHA + more))


X = torch.tensor([0.3, 0.8, 1.5, 2.0, 4.0], dtype=torch.float64)
LOG_PX = math.log(ALPHA / (ALPHA + 1)) - (ALPHA + 1) * X.clamp(min=1.0).log()


def test_the_exact_posterior_of_a_uniforms_bound_has_weights_without_variance():
    found = log_evidence(uniforms, pareto, X, num_samples=100)
    assert torch.allclose(found.log_px, LOG_PX, atol=1e-12, rtol=0)
    assert found.ess.min().item() == pytest.approx(100)
    wide = log_evidence(uniforms, lambda x: pareto(x, more=0.5), X, num_samples=4000)
    # 5 data at 4.5 errors each: false alarm 3e-5.
    assert ((wide.log_px - LOG_PX).abs() < 4.5 * wide.standard_error).all()


@pytest.mark.parametrize("factor", [1.05, 2.0])
def test_a_guide_without_mass_where_the_joint_has_some_is_refused(factor):
    """The posterior's mass below 1.05 m is 1 − 1.05^−3.5 = 16 % of what is above m: a draw of the
    prior lies there for one of 5 data in 20 draws but for a chance of 1e-4."""
    with pytest.raises(ValueError, match=r"'theta', Pareto, has no mass .* data are possible ther"):
        log_evidence(uniforms, lambda x: pareto(x, factor=factor), X)


def test_a_guide_too_wide_for_the_data_is_refused_with_the_cause():
    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("theta", dist.Pareto(x.new_ones(()), ALPHA))

    message = r"support of Uniform at site 'x', such as .* depends on the latent variables"
    with pytest.raises(ValueError, match=message):
        log_evidence(uniforms, prior, X + 10)


def steps(x):
    """z ~ N(0, 1), x ~ U(z, z + 1): a truncated normal posterior on (x − 1, x)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Uniform(z, z + 1), obs=x)


def truncated(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(x - 1, x))


def test_a_truncated_posterior_of_an_unbounded_prior():
    normal = dist.Normal(torch.zeros((), dtype=X.dtype), 1.0)
    exact = (normal.cdf(X) - normal.cdf(X - 1)).log()
    found = log_evidence(steps, truncated, X, num_samples=4000)
    assert ((found.log_px - exact).abs() < 4.5 * found.standard_error + 1e-9).all()
    annealed = annealed_evidence(steps, truncated, X[:3], num_chains=200, num_temperatures=20)
    assert ((annealed.log_px - exact[:3]).abs() < 5 * annealed.standard_error).all()


def nested(x):
    """The support of b depends on a."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Uniform(x.new_zeros(()), 1.0))
        b = pyro.sample("b", dist.Uniform(torch.zeros_like(a), a))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def test_a_support_that_depends_on_another_site_is_read_at_that_sites_draw():
    def guide(x, share=1.0):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Uniform(torch.zeros_like(x), 1.0))
            pyro.sample("b", dist.Uniform(torch.zeros_like(a), share * a))

    b = torch.linspace(0, 1, 20_001, dtype=X.dtype)[1:] - 1 / 40_000
    exact = (-b.log() * dist.Normal(b, 1.0).log_prob(X[:, None]).exp()).mean(1).log()
    found = log_evidence(nested, guide, X, num_samples=4000)
    assert ((found.log_px - exact).abs() < 4.5 * found.standard_error + 1e-4).all()
    with pytest.raises(ValueError, match=r"'b', Uniform, has no mass where the prior has"):
        log_evidence(nested, lambda x: guide(x, 0.8), X)
    note = latent_information(nested, guide, X).note
    assert "the support of 'b' is not the same at two draws" in note


def shared_bound(x):
    theta = pyro.sample("theta", dist.Pareto(x.new_ones(()), ALPHA))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Uniform(torch.zeros_like(theta), theta), obs=x)


def kept(x):
    """The posterior of θ given X, which it does not forget on other data."""
    pyro.sample("theta", dist.Pareto(X.max(), ALPHA + len(X)))


def test_a_bound_that_all_data_share():
    """p(x′|X) = β / (β + 1) m^β max(m, x′)^−(β + 1), β = α + N, m the largest of X."""
    held_out, beta, m = torch.tensor([1.0, 3.0], dtype=X.dtype), ALPHA + len(X), X.max()
    found = log_predictive_density(shared_bound, kept, held_out, num_samples=600)
    exact = (beta / (beta + 1) / m).log().expand(2)
    assert ((found.log_density - exact).abs() < 4.5 * found.standard_error).all()
    with pytest.raises(ValueError, match=r"'theta', Pareto, has no mass .* data are possible"):
        log_predictive_density(shared_bound, kept, held_out / 3, num_samples=100)
    findings = diagnose(shared_bound, kept, X, budget=TINY).findings
    assert not any("has no mass" in finding.sentence for finding in findings)


def test_the_other_functions_take_a_guide_narrower_than_the_prior():
    tree = to_datatree(uniforms, pareto, X, num_samples=50)
    assert (tree["posterior"]["theta"].to_numpy() >= X.clamp(min=1.0).numpy()).all()
    found = latent_information(uniforms, pareto, X)
    assert found.kl.shape == (5, 1)
    assert math.isfinite(found.mutual_information)
    calibrate(uniforms, pareto, X, num_simulations=40)
    assert inference_gap(uniforms, pareto, X, num_steps=2).elbo == pytest.approx(LOG_PX)
    with pytest.raises(ValueError, match=r"posterior of 'theta' ends within .* no such walls"):
        nuts_posterior(uniforms, pareto, X)
