"""Amortized normal posterior with a diagonal covariance."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..models.bounded_scale import bound_log_scale, check_max_log_scale
from .amortized import Amortized


class DiagonalNormal(Amortized):
    """The diagonal normal posterior q(z|x) = N(z; μ(x), diag σ²(x)), amortized.

    The encoder's features of a datum are (μ, log σ), in this order. A draw is z = μ + σ ⊙ ε with
    ε ~ N(0, I), the reparameterization through which gradients reach the encoder (Kingma and
    Welling 2014, arXiv 1312.6114).

    The guide is a Pyro program ``guide(x)`` with the site ``"z"`` inside a plate named ``"data"``
    at dimension −1.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, 2 · latent_dim).
        latent_dim: dimension of z.
        max_log_scale: m, with log σ = m tanh(feature / m): σ stays between e⁻ᵐ and eᵐ, where in a
            deep hierarchy exp of a feature may overflow (5.0, say). ``None``: log σ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive, or, when
            run, if the encoder does not give 2 · latent_dim features.

    >>> import torch
    >>> from latente.models import mlp
    >>> guide = DiagonalNormal(encoder=mlp(64, 16, out=4), latent_dim=2)
    >>> q = guide.posterior(torch.zeros(5, 8, 8))
    >>> q.batch_shape, q.event_shape
    (torch.Size([5]), torch.Size([2]))
    """

    layout = "μ, log σ"

    def __init__(self, encoder: nn.Module, latent_dim: int, *, max_log_scale: float | None = None):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))
        check_max_log_scale(max_log_scale)
        self.max_log_scale = max_log_scale

    @staticmethod
    def num_features(latent_dim: int) -> int:
        """Number of features that the encoder gives: 2 · latent_dim."""
        return 2 * latent_dim

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, 2 · latent_dim) to q(z|x)."""
        mean, log_scale = features.chunk(2, dim=-1)
        log_scale = bound_log_scale(log_scale, self.max_log_scale)
        return dist.Normal(mean, log_scale.exp()).to_event(1)
