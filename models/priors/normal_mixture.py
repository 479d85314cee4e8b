"""Learned mixture of normals as the prior."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from ..latent_shape import check_vector, latent_shape
from .checks import check_num_components


class NormalMixture(nn.Module):
    """The prior p(z) = Σ_c π_c N(z; μ_c, diag σ_c²), with learned weights, means and scales.

    The KL has no closed form: fit with ``Trace_ELBO``, which ``fit`` chooses by default.

    Args:
        latent_dim: K.
        num_components: C. Means start at draws of N(0, I), scales at 1, weights at 1/C.

    Raises:
        ValueError: if one of them is less than 1, or ``latent_dim`` is a shape.

    >>> prior = NormalMixture(2, 10)
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, latent_dim: int, num_components: int):
        super().__init__()
        check_vector(latent_dim, "a NormalMixture")
        latent_shape(latent_dim)  # checks it
        check_num_components(num_components)
        self.latent_dim = latent_dim
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.means = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim))

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        components = dist.Normal(self.means, self.log_scales.exp()).to_event(1)
        return mixture_of(self.logits, components)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.latent_dim}, {len(self.logits)}"


class _DiagonalNormals(dist.TorchDistribution):
    """C diagonal normals with a density in a quarter of the time that PyTorch takes.

    It makes fewer passes over (…, C, K), where a mixture of hundreds of components spends most of a
    training step.
    """

    arg_constraints: ClassVar = {}  # pyright: ignore
    support = dist.constraints.real_vector  # pyright: ignore
    has_rsample = True

    def __init__(self, distribution: Any, batch_shape: Size | None = None):
        # Not expanded: work on its parameters is then done once for each component.
        self.distribution = distribution
        shape = distribution.batch_shape if batch_shape is None else batch_shape
        super().__init__(shape, distribution.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean of each component."""
        return self.distribution.mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Variance of each component."""
        return self.distribution.variance.expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Reparameterized draws."""
        return self.distribution.expand(self.batch_shape).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ Σₖ ((zₖ − μₖ) / σₖ)² − Σₖ log σₖ − K/2 log 2π."""
        location, scale = self.distribution.base_dist.loc, self.distribution.base_dist.scale
        standardized = (value - location) * (1 / scale)
        constant = scale.log().sum(-1) + 0.5 * location.shape[-1] * math.log(2 * math.pi)
        log_prob = -0.5 * torch.linalg.vecdot(standardized, standardized) - constant
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_DiagonalNormals":
        """Expand the batch shape."""
        return _DiagonalNormals(self.distribution, Size(batch_shape))


def mixture_of(logits: Tensor, components: Any) -> dist.TorchDistribution:
    """Mix components with weights softmax(logits); faster if they are diagonal normals."""
    normal = isinstance(components, torch.distributions.Independent) and isinstance(
        components.base_dist, torch.distributions.Normal
    )
    if normal and components.reinterpreted_batch_ndims == 1:
        components = _DiagonalNormals(components)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
