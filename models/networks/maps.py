"""Layers on feature maps with any leading batch shape."""

import math

from torch import Tensor, nn


class Maps(nn.Module):
    """Layers for feature maps (B, C, H, W), run on maps (…, C, H, W) with any leading shape.

    Importance samples of a hierarchy are maps (S, N, C, H, W), which PyTorch's convolutions do not
    take. An image (H, W) without an axis of channels is read as one channel.

    Args:
        event_shape: shape of one input, (C, H, W) or (H, W).
        *layers: one after the other, such as ``nn.Conv2d``, ``nn.Upsample``,
            :class:`ResidualBlock`.

    Raises:
        ValueError: if the shape has another number of axes; when called, if the input is not
            (…, *event_shape).

    >>> import torch
    >>> network = Maps((8, 7, 7), nn.Conv2d(8, 4, 1), nn.Upsample((14, 14)))
    >>> network(torch.zeros(3, 5, 8, 7, 7)).shape
    torch.Size([3, 5, 4, 14, 14])
    """

    def __init__(self, event_shape: tuple[int, ...], *layers: nn.Module):
        super().__init__()
        if len(event_shape) not in (2, 3):
            raise ValueError(
                f"maps have a shape (channels, height, width) or (height, width), got {event_shape}"
            )
        self.event_shape = tuple(event_shape)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (…, *event_shape) to maps (…, C′, H′, W′)."""
        axes = len(self.event_shape)
        if x.shape[-axes:] != self.event_shape:
            raise ValueError(
                f"a network of maps {self.event_shape} got a tensor of shape {tuple(x.shape)}"
            )
        batch = x.shape[:-axes]
        channels = self.event_shape[0] if axes == 3 else 1
        y = self.layers(x.reshape(math.prod(batch), channels, *self.event_shape[-2:]))
        return y.reshape(*batch, *y.shape[1:])

    def extra_repr(self) -> str:
        """The shape of one input."""
        return f"{self.event_shape}"
