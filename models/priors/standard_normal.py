"""Standard normal prior."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .checks import check_latent_dim


class StandardNormal(nn.Module):
    """The standard normal prior, p(z) = N(z; 0, I) over z of shape (latent_dim,).

    Raises:
        ValueError: if ``latent_dim`` is less than 1.

    >>> prior = StandardNormal(2)
    >>> prior().batch_shape, prior().event_shape
    (torch.Size([]), torch.Size([2]))
    >>> round(prior().log_prob(torch.zeros(2)).item(), 4)  # -log 2π, in nats
    -1.8379
    """

    zero: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        check_latent_dim(latent_dim)
        self.latent_dim = latent_dim
        # A buffer, so that it moves with the model to another device or dtype.
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.latent_dim}"
