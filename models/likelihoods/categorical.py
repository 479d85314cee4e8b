"""Categorical likelihood: unordered classes."""

import pyro.distributions as dist
import torch
from torch import Tensor

from .likelihood import Likelihood


class Categorical(Likelihood):
    """Independent unordered classes, p(x = c|z) = e^{f_c} / Σ_d e^{f_d}.

    The data are the integers 0, …, C − 1, in any dtype. Block c of the features holds the logits of
    class c for all elements. The distribution has no mean, so a reconstruction is a draw of x.

    Args:
        event_shape: shape of one datum.
        num_classes: C.

    Raises:
        ValueError: if C is less than 2.

    >>> likelihood = Categorical((2,), num_classes=3)
    >>> features = torch.tensor([9.0, 0.0, 0.0, 9.0, 0.0, 0.0])  # classes 0, 1, 2
    >>> likelihood(features).sample()
    tensor([0, 1])
    """

    def __init__(self, event_shape: tuple[int, ...], num_classes: int):
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        super().__init__(event_shape, features_per_element=num_classes)
        self.num_classes = num_classes

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, num_features) to p(x|z): batch shape (…), event shape event_shape."""
        if self.event_shape:
            return super().forward(features)
        # Without blocks: of a large vocabulary they would be many, and stacked again.
        self.check_features(features)
        return dist.Categorical(logits=features)

    def constant_features(self, x: Tensor) -> Tensor:
        """Logarithms of the class frequencies, with one added to each count."""
        counts = [(x == c).sum(0) + 1 for c in range(self.num_classes)]
        return (torch.stack(counts) / (len(x) + self.num_classes)).log().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits of the classes, each (…, *event_shape), to independent categoricals."""
        return dist.Categorical(logits=torch.stack(blocks, -1))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, num_classes={self.num_classes}"
