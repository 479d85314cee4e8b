"""A pair of sequences whose log p(x) is known exactly: x_t ~ N(z, 1), z ~ N(0, 1)."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn


def there(x: Tensor, lengths: Tensor) -> Tensor:
    """Flags (N, T) of the steps that are there."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def model(x, lengths):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        normal = dist.Normal(z[:, None].expand(x.shape), 1.0).mask(there(x, lengths))
        pyro.sample("x", normal.to_event(1), obs=x)


def exact_guide(x, lengths):
    total = (x * there(x, lengths)).sum(1)
    with pyro.plate("data", len(x)):
        precision = (lengths + 1).to(x.dtype)
        pyro.sample("z", dist.Normal(total / precision, precision.rsqrt()))


def exact_log_px(x: Tensor, lengths: Tensor) -> Tensor:
    """log N(x_{1:T}; 0, I + 11ᵀ) of each sequence."""
    kept = x * there(x, lengths)
    lengths = lengths.to(x.dtype)
    quadratic = kept.square().sum(1) - kept.sum(1).square() / (lengths + 1)
    return -0.5 * (quadratic + (lengths + 1).log() + lengths * math.log(2 * math.pi))


class WrongGuide(nn.Module):
    """A guide that is not exact, with two parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1))
        self.log_scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, lengths):
        total = (x * there(x, lengths)).sum(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.weight * total, self.log_scale.exp()))


class Tokens(nn.Module):
    """Tokens whose logits are linear in one latent variable."""

    def __init__(self, num_tokens: int):
        super().__init__()
        self.logits = nn.Linear(1, num_tokens)
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x, lengths):
        self.dtypes |= {x.dtype, lengths.dtype}
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            logits = self.logits(z[:, None])[:, None].expand(*x.shape, -1)
            tokens = dist.Categorical(logits=logits).mask(there(x, lengths))
            pyro.sample("x", tokens.to_event(1), obs=x)


class TokenGuide(nn.Module):
    """A normal posterior by the mean of the tokens."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, x, lengths):
        with pyro.plate("data", len(x)):
            mean = (x * there(x, lengths)).sum(1) / lengths
            pyro.sample("z", dist.Normal(self.weight * mean, 1.0))
