"""Delta posterior: the guide of a deterministic autoencoder."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..models.latent_shape import LatentDim, num_channels
from .amortized import Amortized


class PointPosterior(Amortized):
    """The delta posterior at z = encoder(x): the guide of a deterministic autoencoder.

    A point has no density, so there is no KL to a prior, no ELBO and no evidence. ``fit`` then
    minimizes the reconstruction error −log p(x|z) alone, as an autoencoder does (Hinton and
    Salakhutdinov 2006). With ``Trace_ELBO()`` the prior counts too: z is then fitted to the mode of
    p(z|x).

    Args:
        encoder: a network from x (N, *event_shape) to codes (N, latent_dim).
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the codes do not have length
            ``latent_dim``.

    >>> import torch
    >>> from latente.models import mlp
    >>> PointPosterior(mlp(64, 16, out=2), latent_dim=2)(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 2])
    """

    layout = "z"
    infer = {"without_kl": True}  # noqa: RUF012

    def __init__(self, encoder: nn.Module, latent_dim: LatentDim):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))

    @staticmethod
    def num_features(latent_dim: LatentDim) -> int:
        """Number of features, or channels, that the encoder gives: latent_dim."""
        return num_channels(latent_dim)

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Codes (…, K) or (…, C, H, W) to the delta distributions at them."""
        return dist.Delta(features, event_dim=len(self.event_shape))
