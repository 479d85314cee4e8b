"""Student's t likelihood: measurements with outliers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihood import Likelihood
from .log_gamma import INFINITE, log_rising
from .quantities import positive, shown, value_of


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
        """Locations (and log σ where predicted), each (…, *event_shape), to Student's t
        distributions."""
        loc, *predicted = blocks
        df = value_of(self.df, self.log_df)
        df = torch.as_tensor(df, dtype=loc.dtype, device=loc.device)
        return StudentTLaw(df, loc, value_of(self.scale, self.log_scale, *predicted))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        df, scale = shown(self.df, self.log_df), shown(self.scale, self.log_scale)
        return f"{super().extra_repr()}, df={df}, scale={scale}"


class StudentTLaw(dist.StudentT):
    """PyTorch's distribution, with a density that keeps its digits as ν grows.

    >>> distribution = StudentTLaw(torch.tensor(1e9), 0.0, 1.0)
    >>> distribution.log_prob(torch.tensor(1.0)), dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    (tensor(-1.4189), tensor(-1.4189))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density."""
        if self._validate_args:
            self._validate_sample(value)
        square = ((value - self.loc) / self.scale).square()
        df = self.df.clamp(max=INFINITE)
        tail = (df + 1) / 2 * torch.log1p(square / df)
        return (
            log_rising(df / 2, torch.full_like(df, 0.5))
            - tail
            - self.scale.log()
            - math.log(2 * math.pi) / 2
        )
