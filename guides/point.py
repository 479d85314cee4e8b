"""The encoder of a deterministic autoencoder, as a guide."""

import pyro.distributions as dist
from torch import Tensor, nn

from .amortized import Amortized


class Point(Amortized):
    """The code z = encoder(x), with no spread: the guide of a deterministic autoencoder.

    A point has no density, so no KL to a prior, no ELBO and no evidence. ``fit`` then minimizes the
    reconstruction error −log p(x|z) alone, as an autoencoder does (Hinton and Salakhutdinov 2006);
    ask for ``Trace_ELBO()`` to have the prior count, z being the mode of p(z|x).

    Args:
        encoder: a network from x (N, *event_shape) to codes (N, latent_dim).
        latent_dim: dimension of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the codes are not latent_dim
            long.

    >>> import torch
    >>> from latente.models import mlp
    >>> Point(mlp(64, 16, out=2), latent_dim=2)(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 2])
    """

    layout = "z"
    infer = {"without_kl": True}  # noqa: RUF012

    def __init__(self, encoder: nn.Module, latent_dim: int):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))

    @staticmethod
    def num_features(latent_dim: int) -> int:
        """How many features the encoder gives: latent_dim."""
        return latent_dim

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Codes (…, latent_dim) to the point mass there."""
        return dist.Delta(features, event_dim=1)
