"""Residual blocks of convolutions."""

from collections.abc import Callable

from torch import Tensor, nn

from .mlp import shrink


class ResidualBlock(nn.Module):
    """A residual block x + conv(act(conv(act(x)))), close to x at first (He et al. 2016).

    Its last convolution is scaled down at the start. In a path of N blocks, a ``factor`` of
    1/√N keeps the variance of the sum from growing with N (Child 2021, arXiv 2011.10650).

    Args:
        channels: number of channels of x.
        activation: makes the nonlinearities.
        convolution: PyTorch's layer for the number of spatial axes.
        factor: what multiplies the initial weights of the last convolution.

    >>> import torch
    >>> ResidualBlock(8)(torch.zeros(5, 8, 7, 7)).shape
    torch.Size([5, 8, 7, 7])
    """

    # No batch normalization: the features of a datum would depend on the rest of its batch, but
    # the data plate declares data independent.
    def __init__(
        self,
        channels: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        convolution: Callable[..., nn.Module] = nn.Conv2d,
        *,
        factor: float = 0.01,
    ):
        super().__init__()
        inner, outer = (convolution(channels, channels, 3, padding=1) for _ in range(2))
        shrink(outer, factor=factor)
        self.change = nn.Sequential(activation(), inner, activation(), outer)

    def forward(self, x: Tensor) -> Tensor:
        """Data (B, C, *sizes) to data of the same shape."""
        return x + self.change(x)
