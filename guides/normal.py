"""Amortized normal posteriors."""

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn


class DiagonalNormal(PyroModule):
    """The diagonal normal posterior q(z|x) = N(z; μ(x), diag σ²(x)), amortized.

    The encoder's features of a datum are (μ, log σ), in this order, and
    z = μ + σ ⊙ ε with ε ~ N(0, I): the reparameterization through which gradients reach
    the encoder (Kingma and Welling 2014, arXiv 1312.6114).

    The guide is a Pyro program ``guide(x)`` with the site ``"z"`` inside a plate named
    ``"data"`` at dimension −1.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, 2 · latent_dim).
        latent_dim: dimension of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the encoder's
            features are not 2 · latent_dim long.

    >>> import torch
    >>> from latente.models import mlp
    >>> guide = DiagonalNormal(encoder=mlp(64, 16, out=4), latent_dim=2)
    >>> q = guide.posterior(torch.zeros(5, 8, 8))
    >>> q.batch_shape, q.event_shape
    (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, encoder: nn.Module, latent_dim: int):
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.encoder = encoder
        self.latent_dim = latent_dim

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) of data (N, *event_shape): batch shape (N,), event shape (latent_dim,)."""
        features = self.encoder(x)
        if features.shape[-1] != 2 * self.latent_dim:
            raise ValueError(
                f"DiagonalNormal with latent_dim={self.latent_dim} takes "
                f"{2 * self.latent_dim} encoder features (μ, log σ), but the encoder gave a "
                f"tensor of shape {tuple(features.shape)}: give it out={2 * self.latent_dim}"
            )
        if features.shape[:-1] != x.shape[:1]:
            raise ValueError(
                f"the encoder gave features of shape {tuple(features.shape)} for data of shape "
                f"{tuple(x.shape)}: it must give one row a datum; an mlp takes the data's shape, "
                f"mlp({tuple(x.shape[1:])}, …)"
            )
        mean, log_scale = features.chunk(2, dim=-1)
        return dist.Normal(mean, log_scale.exp()).to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z of shape (…, N, latent_dim)."""
        posterior = self.posterior(x)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", posterior)

    def extra_repr(self) -> str:
        """The constructor's arguments, the encoder aside."""
        return f"latent_dim={self.latent_dim}"
