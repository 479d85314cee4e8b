"""Continuous Bernoulli likelihood: grey values in [0, 1]."""

import pyro.distributions as dist
import torch
from torch import Tensor

from .likelihood import Likelihood


class ContinuousBernoulli(Likelihood):
    """Independent intensities on [0, 1], p(x|z) = ∏ᵢ e^{fᵢ xᵢ} fᵢ / (e^{fᵢ} − 1).

    The Bernoulli formula applied to grey values, and normalized (Loaiza-Ganem and Cunningham 2019,
    arXiv 1907.06845). It is a density in x and has no upper bound at x = 0 and 1, so its log p(x)
    cannot be compared with that of a distribution of bits or levels.

    Args:
        event_shape: shape of one datum.

    >>> p = ContinuousBernoulli((2,))(torch.tensor([0.0, 2.0]))
    >>> p.mean  # uniform at a logit of 0
    tensor([0.5000, 0.6565])
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """Logits of the mean of the data, as for a Bernoulli."""
        return x.mean(0).clamp(0.01, 0.99).logit().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits (…, *event_shape) to independent continuous Bernoulli distributions."""
        (logits,) = blocks
        return ContinuousBernoulliDistribution(logits=logits)


class ContinuousBernoulliDistribution(dist.ContinuousBernoulli):
    """PyTorch's distribution, with density, mean and draws that are accurate at every logit.

    PyTorch computes them from a probability, which float32 rounds to 0 or 1 beyond logits of ±16;
    the background of an image soon gets there. Near a logit of 0 they lose half of their digits.

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
        """Quantile function: the x below which the distribution has the given mass."""
        # Computed for a falling density, of logit −|f|; a rising one is its mirror image.
        rising = self.logits > 0
        fall = -self.logits.abs().clamp(min=torch.finfo(self.logits.dtype).eps)
        mass = torch.where(rising, 1 - value, value)
        x = (torch.log1p(mass * torch.expm1(fall)) / fall).clamp(0, 1)
        return torch.where(rising, 1 - x, x)

    @property
    def _is_small(self) -> Tensor:
        """Logits at which the closed forms lose digits and the series is accurate to 1e-10."""
        return self.logits.abs() < 0.25

    @property
    def _large(self) -> Tensor:
        """The logits, but 1 where they are small, so that the unused closed form has a gradient."""
        return self.logits.masked_fill(self._is_small, 1)
