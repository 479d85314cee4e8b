"""Gaussian process regression written by hand: y is observed jointly, and there is no plate."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from .example import Example


def covariance(X, variance, length, noise):
    squared = (X[:, None] - X) ** 2
    kernel = variance[..., None, None] * torch.exp(-0.5 * squared / length[..., None, None] ** 2)
    return kernel + (noise[..., None, None] + 1e-4) * torch.eye(len(X), dtype=X.dtype)


def model(X, y):
    variance = pyro.sample("kernel_var", dist.LogNormal(0.0, 1.0))
    length = pyro.sample("kernel_length", dist.LogNormal(0.0, 1.0))
    noise = pyro.sample("kernel_noise", dist.LogNormal(-2.0, 1.0))
    k = covariance(X, variance, length, noise)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(X)), covariance_matrix=k), obs=y)


def build() -> Example:
    torch.manual_seed(0)
    X = torch.linspace(-2, 2, 15)
    y = torch.sin(2 * X) + 0.3 * torch.randn(15)

    def exact() -> Tensor:
        """Quadrature over the logarithms of the three parameters, which have normal priors."""
        axis = torch.linspace(-4.5, 4.5, 25, dtype=torch.float64)
        z = torch.cartesian_prod(axis, axis, axis)
        variance, length, noise = z[:, 0].exp(), z[:, 1].exp(), (z[:, 2] - 2).exp()
        k = covariance(X.double(), variance, length, noise)
        likelihood = dist.MultivariateNormal(torch.zeros(15).double(), k).log_prob(y.double())
        prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return (likelihood + prior).logsumexp(0) + 3 * (axis[1] - axis[0]).log()

    guide = AutoMultivariateNormal(model)
    return Example(model, guide, (X, y), Trace_ELBO(), exact=exact, learning_rate=0.02)
