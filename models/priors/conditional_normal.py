"""Normal prior whose mean and scale a network computes from the context."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..bounded_scale import bound_log_scale, check_max_log_scale
from .checks import check_latent_dim


class ConditionalNormal(nn.Module):
    """The prior p(z|c) = N(z; μ(c), diag σ²(c)) of a conditional VAE (Sohn, Lee and Yan 2015).

    Args:
        network: from the context c (N, …) to features (N, 2 · latent_dim), which are (μ, log σ);
            for several contexts a :class:`Conditional`.
        latent_dim: dimension of z.
        max_log_scale: m, with log σ = m tanh(feature / m): σ stays between e⁻ᵐ and eᵐ, where in a
            deep hierarchy exp of a feature may overflow (5.0, say). ``None``: log σ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive, or, when
            called, if there is no context or the
            network does not give 2 · latent_dim features.

    >>> import torch
    >>> from latente.models import OneHot, mlp
    >>> prior = ConditionalNormal(nn.Sequential(OneHot(10), mlp(10, out=4)), latent_dim=2)
    >>> prior(torch.tensor([3, 7, 7])).batch_shape
    torch.Size([3])
    """

    conditional = True
    """It takes the context; see :class:`TakesContext`."""

    def __init__(self, network: nn.Module, latent_dim: int, *, max_log_scale: float | None = None):
        super().__init__()
        check_latent_dim(latent_dim)
        check_max_log_scale(max_log_scale)
        self.max_log_scale = max_log_scale
        self.network = network
        self.latent_dim = latent_dim

    def forward(self, *context: Tensor) -> dist.TorchDistribution:
        """Contexts (N, …) to p(z|c): batch shape (N,), event shape (latent_dim,)."""
        if not context:
            raise ValueError("the prior takes a context: give the data as a tuple (x, context)")
        features = self.network(*context)
        if features.shape[-1] != 2 * self.latent_dim:
            raise ValueError(
                f"a ConditionalNormal of {self.latent_dim} dimensions takes {2 * self.latent_dim} "
                f"features (μ, log σ), but its network gave a tensor of shape "
                f"{tuple(features.shape)}: give it out={2 * self.latent_dim}"
            )
        mean, log_scale = features.chunk(2, dim=-1)
        log_scale = bound_log_scale(log_scale, self.max_log_scale)
        return dist.Normal(mean, log_scale.exp()).to_event(1)

    def extra_repr(self) -> str:
        """The constructor's arguments except the network."""
        bound = "" if self.max_log_scale is None else f", max_log_scale={self.max_log_scale}"
        return f"latent_dim={self.latent_dim}{bound}"
