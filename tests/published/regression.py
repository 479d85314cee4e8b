"""Bayesian regression (Pyro's tutorial): ``PyroModule``, ``PyroSample``, autoguides; a network."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from .example import Example


class BayesianRegression(PyroModule):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = PyroModule[nn.Linear](in_features, out_features)
        self.linear.weight = PyroSample(
            dist.Normal(0.0, 1.0).expand([out_features, in_features]).to_event(2)
        )
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([out_features]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


class BayesianNetwork(PyroModule):
    def __init__(self, hidden=4):
        super().__init__()
        self.fc1 = PyroModule[nn.Linear](3, hidden)
        self.fc1.weight = PyroSample(dist.Normal(0.0, 1.0).expand([hidden, 3]).to_event(2))
        self.fc1.bias = PyroSample(dist.Normal(0.0, 1.0).expand([hidden]).to_event(1))
        self.fc2 = PyroModule[nn.Linear](hidden, 1)
        self.fc2.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, hidden]).to_event(2))
        self.fc2.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        mean = self.fc2(torch.tanh(self.fc1(x))).squeeze(-1)
        sigma = pyro.sample("sigma", dist.Gamma(2.0, 4.0))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def _data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    return x, x @ torch.tensor([1.0, -0.5, 0.0]) + 2 + 0.5 * torch.randn(60)


def build(full_rank: bool = False) -> Example:
    x, y = _data()
    model = BayesianRegression(3, 1)

    def exact() -> Tensor:
        """Quadrature over sigma; the coefficients are integrated."""
        sigma = torch.linspace(0, 10, 20001, dtype=torch.float64)[1:]
        features = torch.cat([x, 10 * torch.ones(60, 1)], 1).double()
        values, basis = torch.linalg.eigh(features @ features.T)
        variance = values + sigma[:, None] ** 2
        log_p = dist.Normal(0.0, variance.sqrt()).log_prob(basis.T @ y.double()).sum(-1)
        return log_p.logsumexp(0) + (sigma[1] - sigma[0]).log() - torch.tensor(10.0).log()

    guide = (AutoMultivariateNormal if full_rank else AutoDiagonalNormal)(model)
    return Example(model, guide, (x, y), Trace_ELBO(), exact=exact, learning_rate=0.05)


def build_network() -> Example:
    x, y = _data()
    model = BayesianNetwork()
    guide = AutoDiagonalNormal(model)
    return Example(model, guide, (x, torch.tanh(y)), Trace_ELBO(), learning_rate=0.05)
