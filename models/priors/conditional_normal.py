"""Normal prior whose mean and scale a network computes from the context."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..bounded_scale import check_max_log_scale
from ..latent_shape import (
    LatentDim,
    check_feature_shape,
    latent_shape,
    mean_and_log_scale,
    num_channels,
)


class ConditionalNormal(nn.Module):
    """The prior p(z|c) = N(z; μ(c), diag σ²(c)) of a conditional VAE (Sohn, Lee and Yan 2015).

    Args:
        network: from the context c (N, …) to features (N, 2 · latent_dim), which are (μ, log σ);
            for several contexts a :class:`Conditional`. For maps it gives (N, 2C, H, W): the
            channels of μ, then those of log σ.
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        max_log_scale: m, with log σ = m tanh(feature / m): σ stays between e⁻ᵐ and eᵐ, where in a
            deep hierarchy exp of a feature may overflow (5.0, say). ``None``: log σ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive, or, when
            called, if there is no context or the
            network does not give 2 · latent_dim features, or for maps 2C channels of their size.

    >>> import torch
    >>> from latente.models import OneHot, mlp
    >>> prior = ConditionalNormal(nn.Sequential(OneHot(10), mlp(10, out=4)), latent_dim=2)
    >>> prior(torch.tensor([3, 7, 7])).batch_shape
    torch.Size([3])
    """

    conditional = True
    """It takes the context; see :class:`TakesContext`."""

    def __init__(
        self, network: nn.Module, latent_dim: LatentDim, *, max_log_scale: float | None = None
    ):
        super().__init__()
        latent_shape(latent_dim)  # checks it
        check_max_log_scale(max_log_scale)
        self.max_log_scale = max_log_scale
        self.network = network
        self.latent_dim = latent_dim

    def forward(self, *context: Tensor) -> dist.TorchDistribution:
        """Contexts (N, …) to p(z|c): batch shape (N,), event shape (K,) or (C, H, W)."""
        if not context:
            raise ValueError("the prior takes a context: give the data as a tuple (x, context)")
        features = self.network(*context)
        width = 2 * num_channels(self.latent_dim)
        part = (
            f"a ConditionalNormal of {self.latent_dim} dimensions takes {width} features (μ, log "
            "σ), but its network"
        )
        check_feature_shape(features, self.latent_dim, width, part)
        mean, log_scale = mean_and_log_scale(features, self.latent_dim, self.max_log_scale)
        return dist.Normal(mean, log_scale.exp()).to_event(len(latent_shape(self.latent_dim)))

    def extra_repr(self) -> str:
        """The constructor's arguments except the network."""
        bound = "" if self.max_log_scale is None else f", max_log_scale={self.max_log_scale}"
        return f"latent_dim={self.latent_dim}{bound}"
