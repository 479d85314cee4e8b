"""Convolutional networks for signals, images and volumes, with any leading batch shape."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from .feature_bias import FeatureBias
from .flatten import FlattenEvent
from .layout import Layout, read_layout
from .mlp import mlp
from .residual_block import ResidualBlock

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
"""PyTorch's layers by the number of spatial axes."""


def conv_encoder(
    event_shape: tuple[int, ...],
    channels: tuple[int, ...] = (32, 64),
    *,
    out: int,
    hidden: int | None = 256,
    residual_blocks: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dims: int | None = None,
) -> nn.Sequential:
    """Make a convolutional network from data to features, with a linear last layer.

    Data are signals, images or volumes. For each entry of ``channels`` there is a convolution of
    stride 2: the datum then has as many channels, and half the size along each spatial axis,
    rounded up (strides in place of pooling: Radford, Metz and Chintala 2016, arXiv 1511.06434).
    Dense layers follow. Data (…, *event_shape) give features (…, out).

    Residual blocks x + conv(act(conv(act(x)))) carry the signal through a deep network (He et al.
    2016, arXiv 1603.05027); they start close to the identity. Weights are initialized as in
    PyTorch's layers, and nothing is normalized over the batch.

    Args:
        event_shape: shape of one datum, its channels first: a signal (length,) or (channels,
            length), an image (height, width) or (channels, height, width), or a volume (channels,
            depth, height, width), which also may have no channels.
        channels: channels of the datum after each halving, in order.
        out: number of output features.
        hidden: width of the dense layer before the last; ``None`` for no such layer.
        residual_blocks: number of residual blocks after each halving.
        activation: makes the nonlinearities.
        dims: number of spatial axes: 1 for signals, 2 for images, 3 for volumes. ``None``: one axis
            is a signal, two or three are an image, four are a volume, where that is clear.

    Raises:
        ValueError: if the event shape can be read in several ways and ``dims`` is not given, or
            cannot be read, or has its channels last; if a width is less than 1, or there are more
            halvings than it takes to reach one element; when called, if the input is not
            (…, *event_shape).

    >>> import torch
    >>> encoder = conv_encoder((3, 32, 32), out=40)
    >>> encoder(torch.zeros(5, 3, 32, 32)).shape, encoder(torch.zeros(2, 5, 3, 32, 32)).shape
    (torch.Size([5, 40]), torch.Size([2, 5, 40]))
    >>> conv_encoder((12, 500), out=40, dims=1)(torch.zeros(5, 12, 500)).shape  # 12 channels
    torch.Size([5, 40])
    """
    _check_widths(channels, residual_blocks, hidden=hidden, out=out)
    layout = read_layout(event_shape, dims)
    sizes, convolution = resolutions(layout, len(channels)), CONVOLUTIONS[len(layout.sizes)]
    layers: list[nn.Module] = []
    for before, after in zip((layout.channels, *channels), channels, strict=False):
        # A kernel of 3 with one pixel of padding turns n pixels into ⌈n/2⌉, for n even or odd.
        layers += [convolution(before, after, 3, stride=2, padding=1)]
        layers += [ResidualBlock(after, activation, convolution) for _ in range(residual_blocks)]
        layers += [activation()]
    flat = channels[-1] * math.prod(sizes[-1])
    dense = mlp(flat, *_hidden_widths(hidden), out=out, activation=activation)
    convolutions = _Convolutional((layout.channels, *layout.sizes), layers)
    return nn.Sequential(FlattenEvent(tuple(event_shape)), convolutions, *dense[1:])


def conv_decoder(
    in_features: int,
    event_shape: tuple[int, ...],
    channels: tuple[int, ...] = (64, 32),
    *,
    hidden: int | None = 256,
    features_per_element: int = 1,
    residual_blocks: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dims: int | None = None,
) -> nn.Sequential:
    """Make a convolutional network from latent variables to a likelihood's features of a datum.

    It mirrors :func:`conv_encoder`: dense layers give a small signal, image or volume with
    ``channels[0]`` channels; for each entry of ``channels`` a transposed convolution doubles its
    size along each spatial axis, up to the event shape. If that does not halve evenly, the last
    element along the axis is cropped. Latent variables (…, in_features) give features
    (…, features_per_element · Π event_shape), in the order that :class:`Likelihood` takes: block
    after block, each a flattened datum.

    The last layer adds a bias to each feature, which starts at 0. It can be set to the features of
    the mean datum, so that training starts there; a bias for each channel could not.

    Args:
        in_features: number of values of one input.
        event_shape: shape of one datum, its channels first; see :func:`conv_encoder`.
        channels: channels of the datum before each doubling, in order.
        hidden: width of the dense layer before the convolutions; ``None`` for no such layer.
        features_per_element: number of features for each element, that of the likelihood.
        residual_blocks: number of residual blocks before each doubling.
        activation: makes the nonlinearities.
        dims: number of spatial axes; see :func:`conv_encoder`.

    Raises:
        ValueError: if the event shape can be read in several ways and ``dims`` is not given, or
            cannot be read, or has its channels last; if a width is less than 1, or there are more
            doublings than it takes to start from one element; when called, if the input is not
            (…, in_features).

    >>> import torch
    >>> from latente.models import VAE, Normal, StandardNormal
    >>> likelihood = Normal((3, 28, 20), scale=None)
    >>> per_element = likelihood.features_per_element
    >>> decoder = conv_decoder(2, (3, 28, 20), features_per_element=per_element)
    >>> vae = VAE(StandardNormal(2), decoder, likelihood)
    >>> likelihood(decoder(torch.zeros(5, 2))).event_shape
    torch.Size([3, 28, 20])
    """
    _check_widths(
        channels,
        residual_blocks,
        in_features=in_features,
        hidden=hidden,
        features_per_element=features_per_element,
    )
    layout = read_layout(event_shape, dims)
    num_axes, sizes = len(layout.sizes), resolutions(layout, len(channels))[::-1]
    deepest, planes = (channels[0], *sizes[0]), features_per_element * layout.channels
    layers: list[nn.Module] = []
    for before, after, size in zip(channels, (*channels[1:], planes), sizes[1:], strict=True):
        convolution = CONVOLUTIONS[num_axes]
        layers += [ResidualBlock(before, activation, convolution) for _ in range(residual_blocks)]
        # With a 4 × 4 kernel every output pixel depends on 2 × 2 of the weights. With a 3 × 3
        # kernel the number varies, which shows as a chequerboard (Odena et al. 2016). Upsampling
        # before a convolution is as even, but takes twice the time.
        # The last convolution has no bias: the bias of each feature includes it.
        bias = size != sizes[-1]
        double = TRANSPOSED[num_axes](before, after, 4, stride=2, padding=1, bias=bias)
        layers += [activation(), double, _Crop(*size)]
    widths = _hidden_widths(hidden)
    dense = mlp((in_features,), *widths, out=math.prod(deepest), activation=activation)
    last = FeatureBias(features_per_element * math.prod(event_shape))
    return nn.Sequential(*dense, _Convolutional(deepest, layers), last)


class _Convolutional(nn.Module):
    """Layers for data (B, C, *sizes), run on flattened data with any leading shape."""

    def __init__(self, shape: tuple[int, ...], layers: list[nn.Module]):
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Data (…, C · Π sizes) to data (…, C′ · Π sizes′)."""
        batch = x.shape[:-1]
        y = self.layers(x.reshape(math.prod(batch), *self.shape))
        return y.reshape(*batch, math.prod(y.shape[1:]))

    def extra_repr(self) -> str:
        return f"{self.shape}"


class _Crop(nn.Module):
    """Crop data to their first elements along each spatial axis."""

    def __init__(self, *sizes: int):
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        """Data (B, C, ≥ sizes) to data (B, C, *sizes)."""
        return x[..., *map(slice, self.sizes)]

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.sizes))


def resolutions(layout: Layout, halvings: int) -> list[tuple[int, ...]]:
    """The sizes along the spatial axes, before and after each halving, rounded up."""
    max_halvings = (max(layout.sizes) - 1).bit_length()
    if halvings > max_halvings:
        raise ValueError(
            f"{layout} cannot be halved {halvings} times: give at most {max_halvings} channels"
        )
    return [tuple(-(-size // 2**level) for size in layout.sizes) for level in range(halvings + 1)]


def _check_widths(channels: tuple[int, ...], residual_blocks: int, **widths: int | None) -> None:
    """Refuse a network without channels, a width below 1, or a negative number of blocks."""
    if not channels:
        raise ValueError("channels is empty: give at least one width, such as (32,)")
    for name, value in {"channels": min(channels), **widths}.items():
        if value is not None and value < 1:
            got = tuple(channels) if name == "channels" else value
            raise ValueError(
                f"every width of a convolutional network must be at least 1, got {name}={got}"
            )
    if residual_blocks < 0:
        raise ValueError(f"residual_blocks must be 0 or more, got {residual_blocks}")


def _hidden_widths(hidden: int | None) -> tuple[int, ...]:
    """The widths of the hidden layers: one, or none."""
    return () if hidden is None else (hidden,)
