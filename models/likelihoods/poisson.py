"""Poisson likelihood: counts."""

import pyro.distributions as dist
from torch import Tensor

from .likelihood import Likelihood


class Poisson(Likelihood):
    """Independent counts, p(x|z) = ∏ᵢ λᵢ^xᵢ e^(−λᵢ) / xᵢ!, with rates λᵢ = e^fᵢ.

    Mean and variance are both λ. For counts that vary more use :class:`NegativeBinomial`.

    Args:
        event_shape: shape of one datum.

    >>> import torch
    >>> Poisson((2,))(torch.tensor([0.0, 1.0])).mean
    tensor([1.0000, 2.7183])
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """Logarithm of the mean of the data."""
        return self._first_block(x.mean(0).clamp(min=0.01).log())

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Log rates (…, *event_shape) to independent Poisson distributions."""
        (log_rate,) = blocks
        return dist.Poisson(log_rate.exp())
