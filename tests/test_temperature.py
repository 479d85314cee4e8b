"""Draws at a temperature: exact in float64, for each kind of prior that has one."""

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit, sample_prior
from latente.models import (
    VAE,
    ConditionalNormal,
    FlowPrior,
    Normal,
    NormalMixture,
    StandardNormal,
    mlp,
)

COVARIANCE = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)


def vae_of(prior, encoder=None):
    """A model whose E[x|z] is z."""
    vae = VAE(prior, nn.Identity(), Normal((2,), scale=0.1)).double()
    return vae, DiagonalNormal(encoder or mlp(2, 4, out=4), 2).double()


def drawn(pair, temperature, like):
    """The latents of 500 draws at a temperature."""
    return sample_prior(*pair, 500, like, temperature=temperature, seed=3)[0]


X = torch.zeros(4, 2, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0, 0.3, 2.5])
def test_normal_priors_are_scaled_around_their_centre(temperature):
    pair = vae_of(StandardNormal(2))
    z = drawn(pair, 1, X)
    assert torch.equal(z, sample_prior(*pair, 500, X, seed=3)[0])
    assert torch.allclose(drawn(pair, temperature, X), temperature * z, rtol=1e-12)

    torch.manual_seed(0)
    network = mlp(1, 8, out=4)
    context = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]

    class Given(DiagonalNormal):
        conditional = True

        def forward(self, x, c):
            return super().forward(x)

    prior = ConditionalNormal(network, 2)
    vae, _ = vae_of(prior)
    pair = vae, Given(mlp(2, 4, out=4), 2).double()
    z = drawn(pair, 1, (X, context))
    centre = network(context)[:, :2][torch.arange(500) % 4]
    assert not torch.allclose(centre[0], centre[1])
    found = drawn(pair, temperature, (X, context))
    assert torch.allclose(found, centre + temperature * (z - centre), rtol=1e-10)


@pytest.mark.parametrize("temperature", [0, 0.3, 2.5])
def test_a_flow_has_the_temperature_on_its_base(temperature):
    torch.manual_seed(0)
    pair = vae_of(FlowPrior(zuko.flows.MAF(2, transforms=2, hidden_features=(8,))))
    flow = pair[0].prior.flow(None).transform
    base = flow(drawn(pair, 1, X))
    expected = flow.inv(temperature * base)
    assert torch.allclose(drawn(pair, temperature, X), expected, rtol=1e-9, atol=1e-9)


def two_levels(x):
    """A correlated normal, a transformed one given it, and data given both."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.MultivariateNormal(X[0] + 3, COVARIANCE))
        positive = dist.LogNormal(a, 0.5).to_event(1).mask(True)
        b = pyro.sample("b", positive)
        pyro.sample("x", dist.Normal(a + b, 1e-9).to_event(1), obs=x)


def guide_of_two_levels(x):
    with pyro.plate("data", len(x)):
        pyro.sample("a", dist.Normal(x, 1.0).to_event(1))
        pyro.sample("b", dist.LogNormal(x, 1.0).to_event(1))


def test_each_site_is_scaled_given_those_before_it():
    assert torch.allclose(
        sample_prior(two_levels, guide_of_two_levels, 5, X, temperature=0)[0],
        (X[0] + 3) + (X[0] + 3).exp(),
    )
    draws = sample_prior(two_levels, guide_of_two_levels, 20_000, X, temperature=0.5)[0]
    # a = 3 + ε/2 and b = exp(a + η/4), with ε ~ N(0, Σ) and η ~ N(0, 1).
    variance = COVARIANCE.diagonal() / 4 + 0.25**2
    mean = 3 + (3 + variance / 2).exp()
    error = draws.std(0) / 20_000**0.5
    assert ((draws.mean(0) - mean).abs() < 4.5 * error).all()  # false alarms: 1 in 70,000


def test_other_priors_are_refused():
    with pytest.raises(ValueError, match="the prior of 'z' is of type MixtureSameFamily: leave te"):
        drawn(vae_of(NormalMixture(2, 3)), 0.5, X)

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(X[: len(x)] + 1, 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(x + 1, 1.0).to_event(1))

    with pytest.raises(ValueError, match="the prior of 'rate' is of type Gamma"):
        sample_prior(model, guide, 4, X, temperature=0.5)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be a number of at least 0"):
            drawn(vae_of(StandardNormal(2)), wrong, X)


def test_a_run_samples_at_a_temperature():
    vae, guide = vae_of(StandardNormal(2))
    run = fit(vae, guide, X, epochs=1, batch_size=4, show_progress=False)
    spread = run.sample(1000, like=X, temperature=0.1).std()
    assert 0.12 < spread < 0.16  # √(0.1² + 0.1²)
