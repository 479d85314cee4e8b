"""Convolutional networks for images, plain and residual, with any leading batch shape."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .flatten import FlattenEvent
from .mlp import mlp, shrink


def conv_encoder(
    event_shape: tuple[int, ...],
    channels: tuple[int, ...] = (32, 64),
    *,
    out: int,
    hidden: int | None = 256,
    residual_blocks: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make a convolutional network from images to features, with a linear last layer.

    For each entry of ``channels`` there is a convolution of stride 2: the image then has as many
    channels, and half the height and width, rounded up (strides in place of pooling: Radford, Metz
    and Chintala 2016, arXiv 1511.06434). Dense layers follow. Images (…, *event_shape) give
    features (…, out).

    Residual blocks x + conv(act(conv(act(x)))) carry the signal through a deep network (He et al.
    2016, arXiv 1603.05027); they start close to the identity. Weights are initialized as in
    PyTorch's layers, and nothing is normalized over the batch.

    Args:
        event_shape: shape of one image, (height, width) or (channels, height, width).
        channels: channels of the image after each halving, in order.
        out: number of output features.
        hidden: width of the dense layer before the last; ``None`` for no such layer.
        residual_blocks: number of residual blocks after each halving.
        activation: makes the nonlinearities.

    Raises:
        ValueError: if the event shape is not that of an image, a width is less than 1, or there
            are more halvings than it takes to reach one pixel; when called, if the input is not
            (…, *event_shape).

    >>> encoder = conv_encoder((3, 32, 32), out=40)
    >>> encoder(torch.zeros(5, 3, 32, 32)).shape, encoder(torch.zeros(2, 5, 3, 32, 32)).shape
    (torch.Size([5, 40]), torch.Size([2, 5, 40]))
    """
    _check_widths(channels, residual_blocks, hidden=hidden, out=out)
    image, sizes = _image(event_shape), _resolutions(event_shape, len(channels))
    layers: list[nn.Module] = []
    for before, after in zip((image[0], *channels), channels, strict=False):
        # A kernel of 3 with one pixel of padding turns n pixels into ⌈n/2⌉, for n even or odd.
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1)]
        layers += [_Residual(after, activation) for _ in range(residual_blocks)]
        layers += [activation()]
    flat = channels[-1] * math.prod(sizes[-1])
    dense = mlp(flat, *_hidden_widths(hidden), out=out, activation=activation)
    return nn.Sequential(FlattenEvent(tuple(event_shape)), _OnImages(image, layers), *dense[1:])


def conv_decoder(
    in_features: int,
    event_shape: tuple[int, ...],
    channels: tuple[int, ...] = (64, 32),
    *,
    hidden: int | None = 256,
    features_per_element: int = 1,
    residual_blocks: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make a convolutional network from latent variables to a likelihood's features of an image.

    It mirrors :func:`conv_encoder`: dense layers give a small image with ``channels[0]`` channels;
    for each entry of ``channels`` a transposed convolution doubles height and width, up to the
    event shape. If that does not halve evenly, the last row or column is cropped. Latent variables
    (…, in_features) give features (…, features_per_element · Π event_shape), in the order that
    :class:`Likelihood` takes: block after block, each a flattened image.

    The last layer adds a bias to each feature, which starts at 0. It can be set to the features of
    the mean image, so that training starts there; a bias for each channel could not.

    Args:
        in_features: number of values of one input.
        event_shape: shape of one image, (height, width) or (channels, height, width).
        channels: channels of the image before each doubling, in order.
        hidden: width of the dense layer before the first image; ``None`` for no such layer.
        features_per_element: number of features for each element, that of the likelihood.
        residual_blocks: number of residual blocks before each doubling.
        activation: makes the nonlinearities.

    Raises:
        ValueError: if the event shape is not that of an image, a width is less than 1, or there
            are more doublings than it takes to start from one pixel; when called, if the input is
            not (…, in_features).

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
    image, sizes = _image(event_shape), _resolutions(event_shape, len(channels))[::-1]
    deepest, planes = (channels[0], *sizes[0]), features_per_element * image[0]
    layers: list[nn.Module] = []
    for before, after, size in zip(channels, (*channels[1:], planes), sizes[1:], strict=True):
        layers += [_Residual(before, activation) for _ in range(residual_blocks)]
        # With a 4 × 4 kernel every output pixel depends on 2 × 2 of the weights. With a 3 × 3
        # kernel the number varies, which shows as a chequerboard (Odena et al. 2016). Upsampling
        # before a convolution is as even, but takes twice the time.
        # The last convolution has no bias: the bias of each feature includes it.
        bias = size != sizes[-1]
        double = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
        layers += [activation(), double, _Crop(*size)]
    widths = _hidden_widths(hidden)
    dense = mlp((in_features,), *widths, out=math.prod(deepest), activation=activation)
    last = _Bias(features_per_element * math.prod(event_shape))
    return nn.Sequential(*dense, _OnImages(deepest, layers), last)


class _OnImages(nn.Module):
    """Layers for images (B, C, H, W), run on flattened images with any leading shape."""

    def __init__(self, image: tuple[int, int, int], layers: list[nn.Module]):
        super().__init__()
        self.image = image
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Images (…, C · H · W) to images (…, C′ · H′ · W′)."""
        batch = x.shape[:-1]
        y = self.layers(x.reshape(math.prod(batch), *self.image))
        return y.reshape(*batch, math.prod(y.shape[1:]))

    def extra_repr(self) -> str:
        return f"{self.image}"


class _Residual(nn.Module):
    """A residual block x + conv(act(conv(act(x)))), close to x at first."""

    # No batch normalization: the features of a datum would depend on the rest of its batch, but
    # the data plate declares data independent.
    def __init__(self, channels: int, activation: Callable[[], nn.Module]):
        super().__init__()
        inner, outer = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        shrink(outer)
        self.change = nn.Sequential(activation(), inner, activation(), outer)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to images of the same shape."""
        return x + self.change(x)


class _Crop(nn.Module):
    """Crop an image to its first rows and columns."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, ≥ H, ≥ W) to images (B, C, H, W)."""
        return x[..., : self.height, : self.width]

    def extra_repr(self) -> str:
        return f"{self.height}, {self.width}"


class _Bias(nn.Module):
    """Add a learned number to each feature; 0 at first."""

    def __init__(self, num_features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, num_features) to features (…, num_features)."""
        return x + self.bias

    def extra_repr(self) -> str:
        return f"{len(self.bias)}"


def _image(event_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The event shape as (channels, height, width), with one channel if it has none."""
    if len(event_shape) not in (2, 3) or min(event_shape) < 1:
        raise ValueError(
            "a convolutional network takes images (height, width) or (channels, height, width), "
            f"got the event shape {tuple(event_shape)}"
        )
    height, width = event_shape[-2:]
    return (1 if len(event_shape) == 2 else event_shape[0], height, width)


def _resolutions(event_shape: tuple[int, ...], halvings: int) -> list[tuple[int, int]]:
    """Height and width of an image, before and after each halving, rounded up."""
    height, width = event_shape[-2:]
    max_halvings = (max(height, width) - 1).bit_length()
    if halvings > max_halvings:
        raise ValueError(
            f"an image of {height} × {width} pixels cannot be halved {halvings} times: give at "
            f"most {max_halvings} channels"
        )
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(halvings + 1)]


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
