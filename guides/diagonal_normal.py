"""Amortized normal posterior with a diagonal covariance."""

import pyro.distributions as dist
from torch import Tensor

from .normal_features import NormalFeatures


class DiagonalNormal(NormalFeatures):
    """The diagonal normal posterior q(z|x) = N(z; μ(x), diag σ²(x)), amortized.

    The encoder's features of a datum are (μ, log σ), in this order. A draw is z = μ + σ ⊙ ε with
    ε ~ N(0, I), the reparameterization through which gradients reach the encoder (Kingma and
    Welling 2014, arXiv 1312.6114).

    The guide is a Pyro program ``guide(x)`` with the site ``"z"`` inside a plate named ``"data"``
    at dimension −1.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, 2 · latent_dim); for maps
            (N, 2C, H, W), the channels of μ, then those of log σ.
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        max_log_scale: m, with log σ = m tanh(feature / m): σ stays between e⁻ᵐ and eᵐ, where in a
            deep hierarchy exp of a feature may overflow (5.0, say). ``None``: log σ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive, or, when
            run, if the encoder does not give 2 · latent_dim features, or for maps 2C channels of
            their size.

    >>> import torch
    >>> from latente.models import mlp
    >>> guide = DiagonalNormal(encoder=mlp(64, 16, out=4), latent_dim=2)
    >>> q = guide.posterior(torch.zeros(5, 8, 8))
    >>> q.batch_shape, q.event_shape
    (torch.Size([5]), torch.Size([2]))
    """

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, 2K), or of maps (…, 2C, H, W), to q(z|x)."""
        mean, log_scale = self.mean_and_log_scale(features)
        return dist.Normal(mean, log_scale.exp()).to_event(len(self.event_shape))
