"""Gated transition p(z_t | z_{t−1}) of a deep Markov model."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..networks.mlp import mlp

MIN_SCALE = 1e-4
"""Least standard deviation of a gated transition: softplus of a feature underflows to 0."""


class GatedTransition(nn.Module):
    """The transition of the deep Markov model (Krishnan, Shalit and Sontag 2017, arXiv 1609.09869).

    ::

        g = σ(network_g(z)),   h = network_h(z)
        μ = (1 − g) ⊙ (W z + b) + g ⊙ h,   σ = softplus(V ReLU(h) + c)
        z' ~ N(μ, diag σ²)

    The gate chooses for each dimension between a linear and a nonlinear transition. W starts as
    the identity, b at 0.

    Args:
        latent_dim: D.
        hidden: width of the hidden layer of both networks.

    Raises:
        ValueError: if a size is less than 1.

    >>> GatedTransition(3, 16)(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, latent_dim: int, hidden: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.gate = mlp(latent_dim, hidden, out=latent_dim, activation=nn.ReLU)
        self.proposal = mlp(latent_dim, hidden, out=latent_dim, activation=nn.ReLU)
        self.linear = nn.Linear(latent_dim, latent_dim)
        self.raw_scale = nn.Linear(latent_dim, latent_dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """z_{t−1} (…, D) to p(z_t | z_{t−1}): batch shape (…), event shape (D,)."""
        gate, proposal = self.gate(z).sigmoid(), self.proposal(z)
        mean = torch.lerp(self.linear(z), proposal, gate)
        scale = softplus(self.raw_scale(proposal.relu())) + MIN_SCALE
        return dist.Normal(mean, scale).to_event(1)
