"""Likelihoods p(x|z) of tables: counts, and measurements with outliers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .likelihoods import Likelihood, positive, shown, value_of


class Poisson(Likelihood):
    """Independent counts, p(x|z) = ∏ᵢ λᵢ^xᵢ e^(−λᵢ) / xᵢ!, of rates λᵢ = e^fᵢ.

    The variance is the mean λ. Counts that vary more ask for :class:`NegativeBinomial`.

    Args:
        event_shape: shape of one datum.

    >>> Poisson((2,))(torch.tensor([0.0, 1.0])).mean
    tensor([1.0000, 2.7183])
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """The logarithm of the data's mean."""
        return self._first_block(x.mean(0).clamp(min=0.01).log())

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Log rates (…, *event_shape) to independent Poisson laws."""
        (log_rate,) = blocks
        return dist.Poisson(log_rate.exp())


class NegativeBinomial(Likelihood):
    """Independent counts of mean μ and variance μ + μ²/r, which is more than a Poisson's.

        p(x|z) = Γ(x + r)/(x! Γ(r)) (r/(r + μ))^r (μ/(r + μ))^x,  with μ = e^f.

    A Poisson law whose rate is a gamma variable of mean μ and shape r; Poisson itself as r → ∞.
    Reads of RNA are modelled so, with zeros added, by Lopez et al. (2017), arXiv 1709.02082.

    Args:
        event_shape: shape of one datum.
        total_count: what r is; PyTorch's name, from the count of failures at which to stop. A
            number: fixed at it. An ``nn.Parameter``: learned, starting from its value, one for
            all elements (shape ``()``) or one each; log r is what the optimizer sees. ``None``:
            predicted by the decoder, whose second half of features is log r(z).

    Raises:
        ValueError: if r is not positive, or does not broadcast to ``event_shape``.

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
        self.total_count, self.log_total_count = positive(self, "total_count", total_count)

    def constant_features(self, x: Tensor) -> Tensor:
        """The logarithm of the data's mean."""
        return self._first_block(x.mean(0).clamp(min=0.01).log())

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Log means (and log r where predicted), each (…, *event_shape), to laws of counts."""
        log_mean, *predicted = blocks
        total_count = value_of(self.total_count, self.log_total_count, *predicted)
        total_count = torch.as_tensor(total_count, dtype=log_mean.dtype, device=log_mean.device)
        return NegativeBinomialLaw(total_count, logits=log_mean - total_count.log())

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        total_count = shown(self.total_count, self.log_total_count)
        return f"{super().extra_repr()}, total_count={total_count}"


class StudentT(Likelihood):
    """Independent measurements with outliers: Student's t about a predicted location μ.

        p(x|z) = ∏ᵢ Γ((ν+1)/2) / (Γ(ν/2) √(πν) σ) (1 + (xᵢ − μᵢ)²/(νσ²))^(−(ν+1)/2)

    A datum far from μ costs log |x|, where under :class:`Normal`, the limit ν → ∞, it costs x²
    and draws the fit to itself. In a VAE: Takahashi et al., "Student-t variational autoencoder for
    robust density estimation", IJCAI 2018. Its mean exists for ν > 1, its variance σ² ν/(ν − 2)
    for ν > 2.

    Args:
        event_shape: shape of one datum.
        df: what ν, the degrees of freedom, is. A number: fixed at it. An ``nn.Parameter``:
            learned, starting from its value, one for all elements (shape ``()``) or one each;
            log ν is what the optimizer sees.
        scale: what σ is: a number, an ``nn.Parameter``, or ``None`` where the decoder predicts
            log σ(z) as the second half of its features; as in :class:`Normal`.

    Raises:
        ValueError: if df or scale is not positive, or does not broadcast to ``event_shape``,
            or if df is ``None``.

    >>> StudentT((3,), df=5.0, scale=0.1)(torch.zeros(3)).base_dist.df
    tensor([5., 5., 5.])
    >>> StudentT((3,), df=nn.Parameter(torch.tensor(5.0)), scale=None).num_features
    6
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        df: float | nn.Parameter = 4.0,
        scale: float | nn.Parameter | None = 1.0,
    ):
        super().__init__(event_shape, features_per_element=2 if scale is None else 1)
        if df is None:
            raise ValueError("the df of a StudentT likelihood is fixed or learned, not predicted")
        self.df, self.log_df = positive(self, "df", df)
        self.scale, self.log_scale = positive(self, "scale", scale)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Locations (and log σ where predicted), each (…, *event_shape), to Student's t laws."""
        loc, *predicted = blocks
        df = value_of(self.df, self.log_df)
        df = torch.as_tensor(df, dtype=loc.dtype, device=loc.device)
        return StudentTLaw(df, loc, value_of(self.scale, self.log_scale, *predicted))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        df, scale = shown(self.df, self.log_df), shown(self.scale, self.log_scale)
        return f"{super().extra_repr()}, df={df}, scale={scale}"


_INFINITE = 1e15
"""What r and ν count as infinite: much more, and 1/r², in gradients, is 0 in float32."""


class NegativeBinomialLaw(dist.NegativeBinomial):
    """PyTorch's law, with a density that keeps its digits as r grows.

    Its own subtracts log Γ of large numbers: in float32 it is off by a nat at r = 10⁶, where a
    learned r soon is if the counts vary no more than a Poisson's.

    >>> law = NegativeBinomialLaw(torch.tensor(1e6), logits=torch.tensor(1e-5).log())  # μ = 10
    >>> x = torch.tensor(12.0)
    >>> law.log_prob(x), dist.Poisson(10.0).log_prob(x)
    (tensor(-2.3562), tensor(-2.3562))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of counts."""
        if self._validate_args:
            self._validate_sample(value)
        r, log_mean = self.total_count, self.logits + self.total_count.log()
        log_odds = (r + value) * logsigmoid(-self.logits)  # −(r + x) log(1 + μ/r)
        return _log_rising(r, value) + value * log_mean + log_odds - torch.lgamma(value + 1)


class StudentTLaw(dist.StudentT):
    """PyTorch's law, with a density that keeps its digits as ν grows.

    >>> law = StudentTLaw(torch.tensor(1e9), 0.0, 1.0)
    >>> law.log_prob(torch.tensor(1.0)), dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    (tensor(-1.4189), tensor(-1.4189))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density."""
        if self._validate_args:
            self._validate_sample(value)
        square = ((value - self.loc) / self.scale).square()
        df = self.df.clamp(max=_INFINITE)
        tail = (df + 1) / 2 * torch.log1p(square / df)
        return (
            _log_rising(df / 2, torch.full_like(df, 0.5))
            - tail
            - self.scale.log()
            - math.log(2 * math.pi) / 2
        )


def _log_rising(base: Tensor, step: Tensor) -> Tensor:
    """log Γ(r + x) − log Γ(r) − x log r of base r and step x, which vanishes as r grows."""
    direct = torch.lgamma(base + step) - torch.lgamma(base) - step * base.log()
    # From r = 10 on Stirling's series, in which the large terms cancel on paper; and its limit
    # where r is as good as infinite.
    large = base.clamp(10, _INFINITE)
    stirling = (large + step - 0.5) * torch.log1p(step / large) - step
    return torch.where(base < 10, direct, stirling + _remainder(large + step) - _remainder(large))


def _remainder(z: Tensor) -> Tensor:
    """log Γ(z) less (z − ½) log z − z + ½ log 2π, to 1e-10 for z ≥ 10."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * z**2)) / z**2) / z
