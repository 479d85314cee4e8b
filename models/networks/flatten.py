"""Flatten each datum to a vector."""

import math

from torch import Tensor, nn


class FlattenEvent(nn.Module):
    """Flatten the trailing dimensions that make up one datum.

    A batch of images (…, 8, 8) and a batch of latent variables (…, 2) both reach a dense layer as
    (…, num_features), with any leading batch shape.

    Args:
        event: the shape of one datum; or its number of values, which selects the fewest trailing
            dimensions that hold as many. The latter does not flatten a leading 1: give
            ``(1, 28, 28)`` for images with one channel.

    Raises:
        ValueError: when called, if the input has no such trailing dimensions.

    >>> import torch
    >>> FlattenEvent(64)(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 3, 64])
    """

    def __init__(self, event: int | tuple[int, ...]):
        super().__init__()
        self.event = event
        self.num_features = event if isinstance(event, int) else math.prod(event)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (…, *event) to tensor (…, num_features)."""
        if not isinstance(self.event, int):
            batch = x.dim() - len(self.event)
            if batch < 0 or x.shape[batch:] != self.event:
                raise ValueError(
                    f"a network of inputs {tuple(self.event)} got a tensor of shape "
                    f"{tuple(x.shape)}"
                )
            return x.reshape(*x.shape[:batch], self.num_features)
        size = 1
        for dim in range(x.dim() - 1, -1, -1):
            size *= x.shape[dim]
            if size == self.num_features:
                return x.flatten(dim)
        raise ValueError(
            f"a network of {self.num_features} inputs got a tensor of shape {tuple(x.shape)}, "
            f"none of whose trailing dimensions hold {self.num_features} values"
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.event}"
