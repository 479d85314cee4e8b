"""Eight schools (``examples/eight_schools``): effects of coaching, their mean and spread."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from torch.distributions import constraints

from .example import Example

SCHOOLS = 8
EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(J, sigma, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("J", J):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        return pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def stacked_model(data):
    """As Pyro's script has it: effects and errors in two columns; no plate."""
    y, sigma = data[:, 0], data[:, 1]
    eta = pyro.sample("eta", dist.Normal(torch.zeros(SCHOOLS), torch.ones(SCHOOLS)).to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 10 * torch.ones(1)).to_event(1))
    tau = pyro.sample("tau", dist.HalfCauchy(scale=5 * torch.ones(1)).to_event(1))
    theta = mu + tau * eta
    pyro.sample("obs", dist.Normal(theta, sigma).to_event(1), obs=y)


def stacked_guide(data):
    def normal(name, size):
        loc = pyro.param(f"loc_{name}", lambda: torch.randn(size))
        scale = pyro.param(
            f"scale_{name}", lambda: 0.1 + torch.rand(size), constraint=constraints.positive
        )
        return loc, scale

    pyro.sample("eta", dist.Normal(*normal("eta", SCHOOLS)).to_event(1))
    pyro.sample("mu", dist.Normal(*normal("mu", 1)).to_event(1))
    pyro.sample("tau", dist.LogNormal(*normal("logtau", 1)).to_event(1))


def evidence() -> Tensor:
    """Exact log p(y) of all schools, by quadrature over log tau; mu and theta are integrated."""
    log_tau = torch.linspace(-12, 9, 4000, dtype=torch.float64)
    tau = log_tau.exp()
    covariance = 100 * torch.ones(SCHOOLS, SCHOOLS).double() + torch.diag_embed(
        tau[:, None] ** 2 + ERRORS.double() ** 2
    )
    likelihood = dist.MultivariateNormal(torch.zeros(SCHOOLS).double(), covariance)
    log_p = likelihood.log_prob(EFFECTS.double()) + dist.HalfCauchy(5.0).log_prob(tau) + log_tau
    return log_p.logsumexp(0) + (log_tau[1] - log_tau[0]).log()


def build(stacked: bool = False) -> Example:
    """``model(J, sigma, y)`` with ``AutoNormal``; or Pyro's script with its written guide."""
    torch.manual_seed(0)
    if stacked:
        data = torch.stack([EFFECTS, ERRORS], 1)
        return Example(stacked_model, stacked_guide, (data,), Trace_ELBO(), exact=evidence,
                       learning_rate=0.05)  # fmt: skip
    return Example(model, AutoNormal(model), (SCHOOLS, ERRORS, EFFECTS), Trace_ELBO(),
                   exact=evidence, learning_rate=0.05)  # fmt: skip
