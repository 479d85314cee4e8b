"""A learned number for each feature of a likelihood, at the end of a network."""

import torch
from torch import Tensor, nn


class FeatureBias(nn.Module):
    """Add a learned number to each feature; 0 at first.

    At the end of a decoder of convolutions it takes the features of the mean datum, which a bias
    for each channel could not: see :meth:`Hierarchy.start_at_mean`.

    Args:
        num_features: that of the likelihood.

    >>> FeatureBias(3)(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, num_features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, num_features) to features (…, num_features)."""
        return x + self.bias

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"{len(self.bias)}"
