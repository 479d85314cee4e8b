"""Log-normal likelihood: positive measurements that spread over orders of magnitude."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihood import Likelihood
from .positive_parameters import describe_positive, positive_value, split_positive


class LogNormal(Likelihood):
    """Independent positive measurements whose logarithms are normal.

        p(x|z) = ∏ᵢ N(log xᵢ; μᵢ(z), σᵢ²) / xᵢ

    Densities are in the units of x, as the factor 1/x has it. The median is e^μ, the mean
    e^(μ + σ²/2). The data are above 0; a fit refuses others at its start.

    Args:
        event_shape: shape of one datum.
        scale: σ, the standard deviation of log x: a number, an ``nn.Parameter``, or ``None`` if the
            decoder predicts log σ(z) in the second half of its features; as in :class:`Normal`.

    Raises:
        ValueError: if the scale is not positive, or does not broadcast to ``event_shape``.

    >>> p = LogNormal((), scale=0.5)(torch.tensor([1.0]))
    >>> p.mean, p.log_prob(torch.tensor(2.0))  # e^(1 + 1/8)
    (tensor(3.0802), tensor(-1.1073))
    """

    def __init__(self, event_shape: tuple[int, ...], scale: float | nn.Parameter | None = 1.0):
        super().__init__(event_shape, features_per_element=2 if scale is None else 1)
        self.scale, self.log_scale = split_positive(self, "scale", scale)

    def constant_features(self, x: Tensor) -> Tensor:
        """Mean of the logarithms of the data."""
        return self._first_block(x.clamp(min=torch.finfo(x.dtype).tiny).log().mean(0))

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Means of log x (and log σ if predicted), each (…, *event_shape), to log-normals."""
        return dist.LogNormal(blocks[0], positive_value(self.scale, self.log_scale, *blocks[1:]))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, scale={describe_positive(self.scale, self.log_scale)}"
