"""Negative binomial likelihood: counts that vary more than a Poisson's."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .likelihood import Likelihood
from .log_gamma import log_gamma_ratio
from .positive_parameters import describe_positive, positive_value, split_positive


class NegativeBinomial(Likelihood):
    """Independent counts with mean μ and variance μ + μ²/r, more than that of a Poisson.

        p(x|z) = Γ(x + r)/(x! Γ(r)) (r/(r + μ))^r (μ/(r + μ))^x,  with μ = e^f.

    This is a Poisson whose rate is a gamma variable with mean μ and shape r; as r → ∞ it becomes
    the Poisson. Lopez et al. (2017), arXiv 1709.02082, model reads of RNA with it, zero-inflated.

    Args:
        event_shape: shape of one datum.
        total_count: r, by PyTorch's name (the number of failures at which counting stops). A
            number: fixed at it. An ``nn.Parameter``: learned, starting from its value, one for
            all elements (shape ``()``) or one each; the optimizer sees log r. ``None``: predicted
            by the decoder, the second half of whose features is log r(z).

    Raises:
        ValueError: if r is not positive, or does not broadcast to ``event_shape``.

    >>> import math
    >>> p = NegativeBinomial((), total_count=2.0)(torch.tensor([math.log(6.0)]))
    >>> p.mean, p.variance  # 6 and 6 + 36/2
    (tensor(6.), tensor(24.))
    >>> NegativeBinomial((3,), total_count=None).num_features
    6
    """

    def __init__(
        self, event_shape: tuple[int, ...], total_count: float | nn.Parameter | None = 1.0
    ):
        super().__init__(event_shape, features_per_element=2 if total_count is None else 1)
        self.total_count, self.log_total_count = split_positive(self, "total_count", total_count)

    def constant_features(self, x: Tensor) -> Tensor:
        """Logarithm of the mean of the data."""
        return self._first_block(x.mean(0).clamp(min=0.01).log())

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Log means (and log r if predicted), each (…, *event_shape), to independent counts."""
        log_mean, *predicted = blocks
        total_count = positive_value(self.total_count, self.log_total_count, *predicted)
        total_count = torch.as_tensor(total_count, dtype=log_mean.dtype, device=log_mean.device)
        return NegativeBinomialDistribution(total_count, logits=log_mean - total_count.log())

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        total_count = describe_positive(self.total_count, self.log_total_count)
        return f"{super().extra_repr()}, total_count={total_count}"


class NegativeBinomialDistribution(dist.NegativeBinomial):
    """PyTorch's distribution, with a log density that is accurate at large r too.

    PyTorch subtracts log Γ of large numbers: in float32 that is off by a nat at r = 10⁶. A learned
    r soon gets there if the counts do not vary more than those of a Poisson.

    >>> logits = torch.tensor(1e-5).log()
    >>> distribution = NegativeBinomialDistribution(torch.tensor(1e6), logits=logits)  # μ = 10
    >>> x = torch.tensor(12.0)
    >>> distribution.log_prob(x), dist.Poisson(10.0).log_prob(x)
    (tensor(-2.3562), tensor(-2.3562))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of counts."""
        if self._validate_args:
            self._validate_sample(value)
        r, log_mean = self.total_count, self.logits + self.total_count.log()
        log_odds = (r + value) * logsigmoid(-self.logits)  # −(r + x) log(1 + μ/r)
        return log_gamma_ratio(r, value) + value * log_mean + log_odds - torch.lgamma(value + 1)
