"""The decoder of DRAW: a recurrent network that paints on a canvas, step by step."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .feature_bias import FeatureBias
from .gaussian_attention import GaussianAttention
from .layout import read_layout
from .recurrent_cell import CellState, RecurrentCell


class Painting(NamedTuple):
    """What the decoder has after some steps."""

    canvas: Tensor
    """c_t (…, num_features)."""
    state: CellState
    """The state of its cell, h_t and its memory, each (…, H)."""


class DrawDecoder(nn.Module):
    """The decoder of DRAW (Gregor et al. 2015, arXiv 1502.04623): T steps, each adds to a canvas.

    ::

        h_t = cell(h_{t−1}, z_t)
        c_t = c_{t−1} + write(h_t),   t = 1 … T

    c_T are the features of the likelihood; c₀ and h₀ are learned. ``write`` is a linear map to the
    whole canvas, or to a patch of N × N that Gaussian attention places on it. The model is
    ``VAE(StandardNormal((T, D)), DrawDecoder(…), likelihood)``, and its guide
    :class:`latente.guides.DrawPosterior`.

    Args:
        event_shape: shape of one datum; with a window an image, (A, B) or (C, A, B).
        latent_dim: (T, D), the number of steps and the dimension of each z_t.
        hidden: H, the width of the cell.
        features_per_element: that of the likelihood.
        window: N, for attention. ``None``: each step writes on the whole canvas.

    Raises:
        ValueError: if a size is less than 1, or there is a window and the data are no images; when
            called, if z does not have the shape (…, T, D).

    >>> decoder = DrawDecoder((8, 8), latent_dim=(5, 2), hidden=16, window=3)
    >>> decoder(torch.zeros(7, 5, 2)).shape, decoder.canvases(torch.zeros(7, 5, 2)).shape
    (torch.Size([7, 64]), torch.Size([7, 5, 64]))
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: tuple[int, int],
        hidden: int,
        *,
        features_per_element: int = 1,
        window: int | None = None,
    ):
        super().__init__()
        if min(*latent_dim, hidden, features_per_element) < 1:
            raise ValueError(
                f"every size of a DrawDecoder must be at least 1, got latent_dim={latent_dim}, "
                f"hidden={hidden}, features_per_element={features_per_element}"
            )
        self.event_shape, self.latent_dim = tuple(event_shape), tuple(latent_dim)
        self.hidden, self.num_steps = hidden, latent_dim[0]
        self.num_features = features_per_element * math.prod(self.event_shape)
        self.cell = RecurrentCell(latent_dim[1], hidden)
        if window is None:
            self.attention, self.planes, width = None, 1, self.num_features
        else:
            self.attention = GaussianAttention(self.event_shape, hidden, window)
            self.planes = features_per_element * read_layout(self.event_shape, 2).channels
            width = self.planes * window**2
        # c₀ has the bias of what is written on the whole canvas.
        self.brush = nn.Linear(hidden, width, bias=window is not None)
        self.blank = FeatureBias(self.num_features)  # last: VAE.start_at_mean sets it

    def start(self) -> Painting:
        """The canvas c₀ and the state h₀, without a batch shape."""
        nothing = self.blank.bias.new_zeros(self.num_features)
        return Painting(self.blank(nothing), self.cell.start())

    def advance(self, painting: Painting, z: Tensor) -> Painting:
        """Paint one step from z_t (…, D)."""
        state = self.cell(z, painting.state)
        return Painting(painting.canvas + self.write(state.h), state)

    def write(self, h: Tensor) -> Tensor:
        """What a state h (…, H) adds to the canvas, (…, num_features)."""
        strokes = self.brush(h)
        if self.attention is None:
            return strokes
        window = self.attention.window
        patches = strokes.unflatten(-1, (self.planes, window, window))
        return self.attention.write(patches, self.attention(h)).flatten(-3)

    def canvases(self, z: Tensor) -> Tensor:
        """The canvas after each step, c₁ … c_T, (…, T, num_features), from z (…, T, D)."""
        return torch.stack([painting.canvas for painting in self._paint(z)], -2)

    def forward(self, z: Tensor) -> Tensor:
        """The canvas after the last step, (…, num_features), from z (…, T, D)."""
        return self._paint(z)[-1].canvas

    def _paint(self, z: Tensor) -> list[Painting]:
        if z.shape[-2:] != self.latent_dim:
            raise ValueError(
                f"a DrawDecoder of latent_dim={self.latent_dim} takes z of shape (…, T, D), got "
                f"{tuple(z.shape)}: give the prior the same latent_dim"
            )
        painting, paintings = self.start(), []
        for each in z.unbind(-2):
            painting = self.advance(painting, each)
            paintings.append(painting)
        return paintings

    def extra_repr(self) -> str:
        """The shape of a datum and that of z."""
        return f"{self.event_shape}, latent_dim={self.latent_dim}"
