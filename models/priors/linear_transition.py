"""Linear Gaussian transition p(z_t | z_{t−1}) of a state-space model."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class LinearTransition(nn.Module):
    """The linear Gaussian transition p(z_t | z_{t−1}) = N(z_t; A z_{t−1} + b, diag σ²).

    With a linear emission and a :class:`Normal` likelihood the Kalman filter gives log p(x)
    exactly. A starts as the identity, b at 0; the optimizer sees log σ.

    Args:
        latent_dim: D.
        scale: the value from which σ starts, in each dimension.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or the scale is not positive.

    >>> LinearTransition(3, scale=0.5)(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, latent_dim: int, scale: float = 1.0):
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        if not scale > 0:
            raise ValueError(f"the scale of a transition must be positive, got {scale}")
        self.latent_dim = latent_dim
        self.linear = nn.Linear(latent_dim, latent_dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.log_scale = nn.Parameter(torch.full((latent_dim,), math.log(scale)))

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """z_{t−1} (…, D) to p(z_t | z_{t−1}): batch shape (…), event shape (D,)."""
        return dist.Normal(self.linear(z), self.log_scale.exp()).to_event(1)
