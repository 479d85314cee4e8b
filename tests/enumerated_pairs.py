"""Pairs with discrete sites that are summed out, whose densities are known in closed form."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .oracles import empty

SUMMED = {"enumerate": "parallel"}


class Mixture:
    """k ~ Categorical(π), x | k ~ N(m_k, s_k): all of it is summed out."""

    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    scales = torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64)

    def model(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.weights), infer=SUMMED)
            pyro.sample("x", dist.Normal(self.means[k], self.scales[k]), obs=x)

    guide = staticmethod(empty)

    def joint(self, x: Tensor) -> Tensor:
        """log p(x, k), (N, 3)."""
        return self.weights.log() + dist.Normal(self.means, self.scales).log_prob(x[:, None])

    def log_px(self, x: Tensor) -> Tensor:
        return self.joint(x).logsumexp(-1)


class MixturePrior:
    """k summed out, z | k ~ N(m_k, s_k) drawn, x | z, k ~ N(z + b_k, 0.6)."""

    weights, means, scales = Mixture.weights, Mixture.means, Mixture.scales
    shifts = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)

    def __init__(self, width: float = 1.5):
        self.width = width

    def model(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.weights), infer=SUMMED)
            z = pyro.sample("z", dist.Normal(self.means[k], self.scales[k]))
            pyro.sample("x", dist.Normal(z + self.shifts[k], 0.6), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, self.width))

    def exact_guide(self, x):
        """p(z|x), a mixture of three normals."""
        spread = self.scales**2 + 0.6**2
        centres = self.means + self.shifts
        logits = self.weights.log() + dist.Normal(centres, spread.sqrt()).log_prob(x[:, None])
        mean = self.means + self.scales**2 / spread * (x[:, None] - centres)
        parts = dist.Normal(mean, (self.scales**2 * 0.36 / spread).sqrt())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), parts))

    def joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z, k) of x (N,) and z (S, N): (S, N, 3)."""
        z = z[..., None]
        prior = self.weights.log() + dist.Normal(self.means, self.scales).log_prob(z)
        return prior + dist.Normal(z + self.shifts, 0.6).log_prob(x[:, None])

    def log_prior(self, z: Tensor) -> Tensor:
        return (
            self.weights.log() + dist.Normal(self.means, self.scales).log_prob(z[..., None])
        ).logsumexp(-1)

    def log_px(self, x: Tensor) -> Tensor:
        spread = (self.scales**2 + 0.6**2).sqrt()
        marginal = dist.Normal(self.means + self.shifts, spread).log_prob(x[:, None])
        return (self.weights.log() + marginal).logsumexp(-1)


class HiddenMarkov:
    """Sequences of T steps with three states, summed out; x_t | k_t ~ N(m_k, 0.8) in two sites."""

    start = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    steps = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]], dtype=torch.float64)
    means = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)

    guide = staticmethod(empty)

    def model(self, x, lengths=None):
        with pyro.plate("data", len(x)):
            k = None
            for t in pyro.markov(range(x.shape[1])):
                inside = torch.tensor(True) if lengths is None else t < lengths
                with pyro.poutine.mask(mask=inside):
                    row = self.start if k is None else self.steps[k]
                    k = pyro.sample(f"k_{t}", dist.Categorical(row), infer=SUMMED)
                    pyro.sample(f"x_{t}", dist.Normal(self.means[k], 0.8), obs=x[:, t])

    def log_px(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """By the forward algorithm, row by row."""
        lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        found = []
        for row, length in zip(x, lengths.long().tolist(), strict=True):
            emitted = dist.Normal(self.means, 0.8).log_prob(row[:, None])
            message = self.start.log()
            for t in range(length):
                if t:
                    message = (message[:, None] + self.steps.log()).logsumexp(0)
                message = message + emitted[t]
            found.append(message.logsumexp(0))
        return torch.stack(found)


class Topics:
    """θ ~ Dirichlet drawn for each document; the topic of each of its W words is summed out."""

    shares = torch.tensor([0.8, 1.2, 2.0], dtype=torch.float64)
    words = torch.tensor(
        [[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.05, 0.05, 0.1, 0.3, 0.5]],
        dtype=torch.float64,
    )

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            theta = pyro.sample("theta", dist.Dirichlet(self.shares))
            with pyro.plate("words", x.shape[1], dim=-2):
                topic = pyro.sample("topic", dist.Categorical(theta), infer=SUMMED)
                pyro.sample("word", dist.Categorical(self.words[topic]), obs=x.T)

    def guide(self, x):
        counts = torch.stack([(x == word).sum(1) for word in range(5)], -1).to(self.words)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("theta", dist.Dirichlet(self.shares + counts @ self.words.T))

    def log_likelihood(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x|θ) = Σ_w log Σ_k θ_k φ_kw of documents (N, W) and θ (S, N, 3): (S, N)."""
        chances = torch.einsum("snk,kv->snv", theta, self.words)
        return chances.gather(-1, x.expand(len(theta), *x.shape)).log().sum(-1)
