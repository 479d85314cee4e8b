"""Broken pairs are refused with the true cause, by the name of the site."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.inference import calibrate, fit, log_evidence

X = torch.linspace(-1, 1, 40)


def pair(prior, likelihood, posterior):
    net = nn.Linear(1, 2)
    for (
        value
    ) in net.parameters():  # mean 0 and scale 1, not what the tests before have left to draw
        nn.init.zeros_(value)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(torch.ones(len(x))))
            pyro.sample("x", likelihood(z, torch.ones(len(x))), obs=x)

    def guide(x):
        h = net(x.reshape(len(x), -1)[:, :1])
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(h))

    return model, guide


def real(h):
    return dist.Normal(h[:, 0], h[:, 1].exp())


def around(z, one):
    return dist.Normal(z[..., 0] if z.shape[-1:] != one.shape else z, one)


def standard(one):
    return dist.Normal(0 * one, one)


SIMPLEX = torch.tensor([0.2, 0.3, 0.5]).repeat(40, 1)
SIMPLEX[3, 0] = 0.9
FACTORS = torch.eye(3).repeat(40, 1, 1)
FACTORS[5, 0, 0] = -1.0

BROKEN = {
    "a simplex": (
        pair(standard, lambda z, one: dist.Dirichlet(one[:, None].expand(-1, 3)), real),
        SIMPLEX,
        r"outside the support of Dirichlet at site 'x', such as \(0.9, 0.3, 0.5\), in row 3",
    ),
    "a correlation": (
        pair(standard, lambda z, one: dist.LKJCholesky(3, one), real),
        FACTORS,
        r"outside the support of LKJCholesky at site 'x', such as \(-1, 0, 0, .*, in row 5",
    ),
    "a rate": (
        pair(lambda one: dist.Gamma(one, one), lambda z, one: dist.Exponential(z), real),
        X.abs() + 0.1,
        "the guide draws 'z' where the prior, Gamma, has no mass, such as -",
    ),
    "a scale": (
        pair(lambda one: dist.Gamma(one, one), lambda z, one: dist.Normal(0 * one, z), real),
        X,
        "the guide draws 'z' where the prior, Gamma, has no mass, such as -",
    ),
    "a latent simplex": (
        pair(
            lambda one: dist.Dirichlet(one[:, None].expand(-1, 3)),
            around,
            lambda h: dist.Normal(h[:, :1].expand(-1, 3), 1.0).to_event(1),
        ),
        X,
        r"the guide draws 'z' where the prior, Dirichlet, has no mass, such as \(",
    ),
    "a latent correlation": (
        pair(
            lambda one: dist.LKJCholesky(2, one),
            lambda z, one: dist.Normal(z[..., 1, 0], one),
            lambda h: dist.Normal(h[:, :1, None].expand(-1, 2, 2), 1.0).to_event(2),
        ),
        X,
        r"the guide draws 'z' where the prior, LKJCholesky, has no mass, such as \(",
    ),
    "a latent count": (
        pair(lambda one: dist.Poisson(2 * one), around, real),
        X,
        "the guide draws 'z' where the prior, Poisson, has no mass, such as ",
    ),
    "an impossible scale": (
        pair(standard, lambda z, one: dist.Normal(0 * one, z), real),
        X,
        r"Normal got impossible numbers for its scale, which must satisfy GreaterThan\(lower",
    ),
    "an overflow": (
        pair(standard, around, lambda h: dist.Normal(h[:, 0], 0 * (200 + h[:, 1]).exp())),
        X,
        "NaN, infinite or impossible numbers for its scale: the networks overflow",
    ),
    "no event": (
        pair(lambda one: dist.Normal(torch.zeros(40, 2), 1.0).to_event(1), around,
             lambda h: dist.Normal(h, 1.0)),
        X,
        r"dim -1, 40 vs 2: the distribution of 'z' must have one row .* end it with .to_event",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_the_cause_is_named(name):
    broken, x, message = BROKEN[name]
    for call in (
        lambda: fit(*broken, x, epochs=1, show_progress=False),
        lambda: log_evidence(*broken, x, num_samples=50),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_prior_whose_density_is_0_outside_its_support_takes_a_wider_guide():
    """HalfNormal prior, and x ~ N(z, 1): p(x) = 2 N(x; 0, √2) Φ(x / √2). 5 data, 4.5 errors."""
    model, _ = pair(lambda one: dist.HalfNormal(one), around, real)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.linspace(-1, 2, 5)
    normal = dist.Normal(torch.zeros(5), 1.0)
    exact = dist.Normal(torch.zeros(5), 2**0.5).log_prob(x) + (2 * normal.cdf(x / 2**0.5)).log()
    found = log_evidence(model, guide, x, num_samples=1000)
    assert ((found.log_px - exact).abs() < 4.5 * found.standard_error).all()


def test_what_is_observed_may_be_given_second():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(torch.ones(len(x))))
            pyro.sample("y", dist.Normal(z * x, 1.0), obs=y)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * y / (1 + x**2), 1 / (1 + x**2).sqrt()))

    assert not calibrate(model, guide, (X, 2 * X), num_simulations=200).miscalibrated
