"""Student's t likelihood: real measurements with outliers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihood import Likelihood
from .log_gamma import INFINITE_SHAPE, log_gamma_ratio
from .positive_parameters import describe_positive, positive_value, split_positive


class StudentT(Likelihood):
    """Independent measurements with outliers: Student's t around a predicted location μ.

        p(x|z) = ∏ᵢ Γ((ν+1)/2) / (Γ(ν/2) √(πν) σ) (1 + (xᵢ − μᵢ)²/(νσ²))^(−(ν+1)/2)

    A datum far from μ costs about log |x|. Under :class:`Normal`, the limit ν → ∞, it costs x² and
    dominates the fit. In a VAE: Takahashi et al., "Student-t variational autoencoder for robust
    density estimation", IJCAI 2018. The mean exists for ν > 1, the variance σ² ν/(ν − 2) for
    ν > 2.

    Args:
        event_shape: shape of one datum.
        df: ν, the degrees of freedom. A number: fixed at it. An ``nn.Parameter``: learned,
            starting from its value, one for all elements (shape ``()``) or one each; the optimizer
            sees log ν.
        scale: σ: a number, an ``nn.Parameter``, or ``None`` if the decoder predicts log σ(z) in
            the second half of its features; as in :class:`Normal`.

    Raises:
        ValueError: if df or scale is not positive, or does not broadcast to ``event_shape``, or if
            df is ``None``.

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
        self.df, self.log_df = split_positive(self, "df", df)
        self.scale, self.log_scale = split_positive(self, "scale", scale)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Locations (and log σ if predicted), each (…, *event_shape), to independent Student's
        t."""
        loc, *predicted = blocks
        df = positive_value(self.df, self.log_df)
        df = torch.as_tensor(df, dtype=loc.dtype, device=loc.device)
        return StudentTDistribution(df, loc, positive_value(self.scale, self.log_scale, *predicted))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        df, scale = (
            describe_positive(self.df, self.log_df),
            describe_positive(self.scale, self.log_scale),
        )
        return f"{super().extra_repr()}, df={df}, scale={scale}"


class StudentTDistribution(dist.StudentT):
    """PyTorch's distribution, with a log density that is accurate at large ν too.

    >>> distribution = StudentTDistribution(torch.tensor(1e9), 0.0, 1.0)
    >>> distribution.log_prob(torch.tensor(1.0)), dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    (tensor(-1.4189), tensor(-1.4189))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density."""
        if self._validate_args:
            self._validate_sample(value)
        square = ((value - self.loc) / self.scale).square()
        df = self.df.clamp(max=INFINITE_SHAPE)
        tail = (df + 1) / 2 * torch.log1p(square / df)
        return (
            log_gamma_ratio(df / 2, torch.full_like(df, 0.5))
            - tail
            - self.scale.log()
            - math.log(2 * math.pi) / 2
        )
