"""Normal likelihood: real measurements, with a scale that is fixed, learned or predicted."""

import pyro.distributions as dist
from torch import Tensor, nn

from .likelihood import Likelihood
from .positive_parameters import describe_positive, positive_value, split_positive


class Normal(Likelihood):
    """Independent normals, p(x|z) = ∏ᵢ N(xᵢ; μᵢ(z), σᵢ²), where σ is a standard deviation.

    Args:
        event_shape: shape of one datum.
        scale: σ. A number: fixed at it. An ``nn.Parameter``: learned, starting from its value, one
            for all elements (shape ``()``) or one each (any shape that broadcasts to
            ``event_shape``); the optimizer sees log σ. ``None``: predicted for each datum and
            element by the decoder, the second half of whose features is log σ(z).

    Raises:
        ValueError: if the scale is not positive, or does not broadcast to ``event_shape``.

    >>> import torch
    >>> Normal((3,), scale=0.5)(torch.zeros(3)).base_dist.scale
    tensor([0.5000, 0.5000, 0.5000])
    >>> Normal((3,), scale=nn.Parameter(torch.ones(3))).num_features
    3
    >>> Normal((3,), scale=None).num_features
    6
    """

    def __init__(self, event_shape: tuple[int, ...], scale: float | nn.Parameter | None = 1.0):
        super().__init__(event_shape, features_per_element=2 if scale is None else 1)
        self.scale, self.log_scale = split_positive(self, "scale", scale)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Means (and log σ if predicted), each (…, *event_shape), to independent normals."""
        return dist.Normal(blocks[0], positive_value(self.scale, self.log_scale, *blocks[1:]))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, scale={describe_positive(self.scale, self.log_scale)}"
