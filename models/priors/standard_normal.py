"""Standard normal prior."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..latent_shape import LatentDim, latent_shape


class StandardNormal(nn.Module):
    """The standard normal prior, p(z) = N(z; 0, I).

    Args:
        latent_dim: K, for z of shape (K,); or the shape of maps, (C, H, W).

    Raises:
        ValueError: if ``latent_dim`` is less than 1.

    >>> prior = StandardNormal(2)
    >>> prior().batch_shape, prior().event_shape
    (torch.Size([]), torch.Size([2]))
    >>> StandardNormal((4, 7, 7))().event_shape
    torch.Size([4, 7, 7])
    >>> round(prior().log_prob(torch.zeros(2)).item(), 4)  # -log 2π, in nats
    -1.8379
    """

    zero: Tensor

    def __init__(self, latent_dim: LatentDim):
        super().__init__()
        shape = latent_shape(latent_dim)
        self.latent_dim = latent_dim
        # A buffer, so that it moves with the model to another device or dtype.
        self.register_buffer("zero", torch.zeros(shape), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (K,) or (C, H, W)."""
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(self.zero.dim())

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.latent_dim}"
