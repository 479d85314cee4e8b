"""Continuous Bernoulli likelihood: grey values in [0, 1]."""

import pyro.distributions as dist
import torch
from torch import Tensor

from .likelihood import Likelihood


class ContinuousBernoulli(Likelihood):
    """Independent intensities on [0, 1], p(x|z) = ∏ᵢ e^{fᵢ xᵢ} fᵢ / (e^{fᵢ} − 1).

    What a Bernoulli's formula becomes for grey values once it is normalized: Loaiza-Ganem and
    Cunningham (2019), arXiv 1907.06845. A density, in nats for x in units of 1: it has no upper
    bound at x = 0 and 1, so its figures do not compare to those of distributions of bits or levels.

    Args:
        event_shape: shape of one datum.

    >>> p = ContinuousBernoulli((2,))(torch.tensor([0.0, 2.0]))
    >>> p.mean  # uniform at a logit of 0
    tensor([0.5000, 0.6565])
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """The logits of the data's mean, were it a Bernoulli's."""
        return x.mean(0).clamp(0.01, 0.99).logit().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits (…, *event_shape) to independent continuous Bernoulli distributions."""
        (logits,) = blocks
        return ContinuousBernoulliDistribution(logits=logits)


class ContinuousBernoulliDistribution(dist.ContinuousBernoulli):
    """PyTorch's distribution, whose density, mean and draws hold at every logit.

    Its own go through a probability, which float32 rounds to 0 or 1 from logits of 16 on, where
    the background of an image soon is; near 0, its figures lose half of their digits.

    >>> distribution = ContinuousBernoulliDistribution(logits=torch.tensor(-100.0))
    >>> distribution.mean, distribution.log_prob(torch.tensor(0.0))  # 1/100 and log 100
    (tensor(0.0100), tensor(4.6052))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density f x − A(f), where A(f) = log((e^f − 1)/f)."""
        if self._validate_args:
            self._validate_sample(value)
        square, large = self.logits.square(), self._large.abs()
        series = self.logits / 2 + square / 24 - square**2 / 2880 + square**3 / 181440
        closed = self.logits.clamp(min=0) + (-torch.expm1(-large) / large).log()
        return self.logits * value - torch.where(self._is_small, series, closed)

    @property
    def mean(self) -> Tensor:
        """E[x] = A′(f) = 1/(1 − e^(−f)) − 1/f."""
        f, large = self.logits, self._large
        series = 0.5 + f / 12 - f**3 / 720 + f**5 / 30240
        return torch.where(self._is_small, series, -1 / torch.expm1(-large) - 1 / large)

    def icdf(self, value: Tensor) -> Tensor:
        """The x below which the distribution puts a given mass."""
        # Worked out for a falling density, of logit −|f|; a rising one is its mirror image.
        rising = self.logits > 0
        fall = -self.logits.abs().clamp(min=torch.finfo(self.logits.dtype).eps)
        mass = torch.where(rising, 1 - value, value)
        x = (torch.log1p(mass * torch.expm1(fall)) / fall).clamp(0, 1)
        return torch.where(rising, 1 - x, x)

    @property
    def _is_small(self) -> Tensor:
        """Where closed forms lose digits, and the series' next terms are below 1e-10."""
        return self.logits.abs() < 0.25

    @property
    def _large(self) -> Tensor:
        """The logits; 1 where they are small, so that the form not taken has a gradient."""
        return self.logits.masked_fill(self._is_small, 1)
