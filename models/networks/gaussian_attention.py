"""Attention to a part of an image, through a grid of Gaussian filters."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layout import read_layout
from .mlp import shrink


class Glimpse(NamedTuple):
    """Where one looks, and how strongly: the filters of a batch of grids."""

    rows: Tensor
    """F_Y (…, N, H): each row is one filter over the height, and sums to 1."""
    columns: Tensor
    """F_X (…, N, W), over the width."""
    intensity: Tensor
    """γ (…), above 0."""


class GaussianAttention(nn.Module):
    """A grid of N × N Gaussian filters over images, placed by a network's state h.

    ::

        (g̃_X, g̃_Y, log σ², log δ̃, log γ) = W h + b
        g_X = (B + 1)/2 (g̃_X + 1),  g_Y = (A + 1)/2 (g̃_Y + 1)            the centre, in pixels
        δ   = (max(A, B) − 1) / (N − 1) δ̃                                  the distance of filters
        μ_X^i = g_X + (i − N/2 − ½) δ,   μ_Y^j likewise,   i = 1 … N
        F_X[i, b] ∝ exp(−(b − μ_X^i)² / 2σ²),  Σ_b F_X[i, b] = 1

        read(x)  = γ F_Y x F_Xᵀ            an image A × B to a patch N × N
        write(w) = F_Yᵀ w F_X / γ          a patch to an image

    Pixels are counted from 1. At first the grid covers the whole image, with σ near 1 and γ near 1.
    A filter outside the image takes the pixels at its edge. The equations are 19 to 29 of Gregor et
    al. (2015, arXiv 1502.04623), whose A is the width.

    Args:
        event_shape: shape of the images, (A, B) or (C, A, B); all planes have the same filters.
        features: length of h.
        window: N, the number of filters along each axis.

    Raises:
        ValueError: if the shape is that of no image, or a size is less than 1.

    >>> attention = GaussianAttention((28, 28), features=16, window=5)
    >>> glimpse = attention(torch.zeros(7, 16))
    >>> attention.read(torch.zeros(7, 1, 28, 28), glimpse).shape
    torch.Size([7, 1, 5, 5])
    >>> attention.write(torch.zeros(7, 1, 5, 5), glimpse).shape
    torch.Size([7, 1, 28, 28])
    """

    pixel_rows: Tensor
    pixel_columns: Tensor
    offsets: Tensor

    def __init__(self, event_shape: tuple[int, ...], features: int, window: int):
        super().__init__()
        if min(features, window) < 1:
            raise ValueError(
                f"attention has at least 1 feature and a window of 1, got {features} and {window}"
            )
        self.height, self.width = read_layout(event_shape, 2).sizes
        self.window = window
        self.place = nn.Linear(features, 5)
        shrink(self.place)
        # Buffers, so that they move with the module to another device or dtype.
        along = {"pixel_rows": self.height, "pixel_columns": self.width}
        for name, size in along.items():
            self.register_buffer(name, torch.arange(1.0, size + 1), persistent=False)
        offsets = torch.arange(1.0, window + 1) - window / 2 - 0.5
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, h: Tensor) -> Glimpse:
        """The filters that states h (…, features) place."""
        centre_x, centre_y, log_variance, log_distance, log_intensity = self.place(h).unbind(-1)
        widest = (max(self.height, self.width) - 1) / max(self.window - 1, 1)
        offsets = (widest * log_distance.exp())[..., None] * self.offsets
        precision = (-log_variance).exp()[..., None, None]

        def filters(centre: Tensor, pixels: Tensor) -> Tensor:
            middle = (len(pixels) + 1) / 2 * (centre + 1)
            means = (middle[..., None] + offsets)[..., None]
            # As a softmax, filters far outside the image do not become 0 / 0.
            return (-0.5 * precision * (pixels - means).square()).softmax(-1)

        return Glimpse(
            filters(centre_y, self.pixel_rows),
            filters(centre_x, self.pixel_columns),
            log_intensity.exp(),
        )

    def read(self, images: Tensor, glimpse: Glimpse) -> Tensor:
        """Images (…, P, A, B) of P planes to patches (…, P, N, N)."""
        rows, columns = glimpse.rows[..., None, :, :], glimpse.columns[..., None, :, :]
        return _scale(rows @ images @ columns.mT, glimpse.intensity)

    def write(self, patches: Tensor, glimpse: Glimpse) -> Tensor:
        """Patches (…, P, N, N) to images (…, P, A, B)."""
        rows, columns = glimpse.rows[..., None, :, :], glimpse.columns[..., None, :, :]
        return _scale(rows.mT @ patches @ columns, 1 / glimpse.intensity)

    def extra_repr(self) -> str:
        """The size of an image and the window."""
        return f"({self.height}, {self.width}), window={self.window}"


def _scale(images: Tensor, by: Tensor) -> Tensor:
    return images * by[..., None, None, None]
