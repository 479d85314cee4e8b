"""Programs that take their own minibatch (Pyro's tutorials on SVI and on scaling it)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import constraints

from .example import Example

PRIOR_SCALE, NOISE = 3.0, 0.5


def mean_posterior(x: Tensor) -> dist.Normal:
    """The exact posterior of the mean of x, which all data share."""
    precision = 1 / PRIOR_SCALE**2 + len(x) / NOISE**2
    return dist.Normal(x.sum() / NOISE**2 / precision, precision**-0.5)


def mean_evidence(x: Tensor) -> Tensor:
    """Exact log p of all data: their mean is latent, and is shared."""
    x = x.double()
    covariance = torch.full((len(x), len(x)), PRIOR_SCALE**2).double() + NOISE**2 * torch.eye(
        len(x)
    )
    return dist.MultivariateNormal(torch.zeros(len(x)).double(), covariance).log_prob(x)


def _guide_of_mean(*_, **__):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    pyro.sample("mean", dist.Normal(loc, scale))


def _data() -> Tensor:
    torch.manual_seed(0)
    return 2 + NOISE * torch.randn(100)


def build_mean() -> Example:
    """A mean that all data share; the model draws 20 of 100 data in each step."""

    def model(data):
        mean = pyro.sample("mean", dist.Normal(0.0, PRIOR_SCALE))
        with pyro.plate("data", len(data), subsample_size=20) as ind:
            pyro.sample("obs", dist.Normal(mean, NOISE), obs=data[ind])

    x = _data()
    return Example(model, _guide_of_mean, (x,), Trace_ELBO(), exact=lambda: mean_evidence(x),
                   learning_rate=0.05)  # fmt: skip


def build_minibatch() -> Example:
    """The same, where the author makes the minibatches and says how many data there are."""
    x = _data()

    def model(batch):
        mean = pyro.sample("mean", dist.Normal(0.0, PRIOR_SCALE))
        with pyro.plate("data", len(x), subsample=batch):
            pyro.sample("obs", dist.Normal(mean, NOISE), obs=batch)

    return Example(model, _guide_of_mean, (x,), Trace_ELBO(), exact=lambda: mean_evidence(x),
                   learning_rate=0.05)  # fmt: skip


def build_local() -> Example:
    """A latent variable of each datum; the guide draws 20 data, and the model takes the same."""
    net = nn.Linear(1, 2)

    def model(data):
        with pyro.plate("data", len(data)) as ind:
            z = pyro.sample("z", dist.Normal(0.0, PRIOR_SCALE))
            pyro.sample("obs", dist.Normal(z, NOISE), obs=data[ind])

    def guide(data):
        pyro.module("net", net)
        with pyro.plate("data", len(data), subsample_size=20) as ind:
            loc, log_scale = net(data[ind].unsqueeze(-1)).unbind(-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    x = _data()
    scale = (PRIOR_SCALE**2 + NOISE**2) ** 0.5
    return Example(model, guide, (x,), TraceMeanField_ELBO(), learning_rate=0.05,
                   exact=lambda: dist.Normal(0.0, scale).log_prob(x.double()))  # fmt: skip
