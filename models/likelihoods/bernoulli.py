"""Bernoulli likelihood: bits."""

import pyro.distributions as dist
from torch import Tensor

from .independent_bits import Bernoulli as BernoulliBits
from .likelihood import Likelihood


class Bernoulli(Likelihood):
    """Independent bits, p(x|z) = ∏ᵢ σ(fᵢ)^xᵢ (1 − σ(fᵢ))^(1−xᵢ), with features f of z.

    The data are 0 or 1; a fit refuses grey values at its start. Load them with
    ``binarize="dynamic"`` or ``"static"``, or use :class:`DiscretizedLogistic`,
    :class:`ContinuousBernoulli` or :class:`Normal`.

    Args:
        event_shape: shape of one datum.

    >>> import torch
    >>> likelihood = Bernoulli((8, 8))
    >>> likelihood.num_features
    64
    >>> p = likelihood(torch.zeros(5, 64))
    >>> round(p.log_prob(torch.ones(5, 8, 8))[0].item(), 3)  # 64 log ½, in nats
    -44.361
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """Logits of the mean of the data."""
        return x.mean(0).clamp(0.01, 0.99).logit().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits (…, *event_shape) to independent Bernoulli distributions."""
        (logits,) = blocks
        return BernoulliBits(logits=logits)
