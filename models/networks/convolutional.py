"""Convolutional networks of images, plain and residual, with any leading batch shape."""

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
    """A convolutional network from images to features, linear at the end.

    Each entry of ``channels`` is a convolution of stride 2, after which the image has as many
    channels and half the height and width, rounded up (strides in place of pooling: Radford,
    Metz and Chintala 2016, arXiv 1511.06434); a dense layer reads what is left. Images
    (…, *event_shape) give features (…, out).

    Residual blocks are x + conv(act(conv(act(x)))), which keep a deep network's signal on its
    way (He et al. 2016, arXiv 1603.05027); they start close to the identity. Weights start as
    PyTorch's layers do, and nothing is normalized over the batch.

    Args:
        event_shape: of one image, (height, width) or (channels, height, width).
        channels: of the image after each halving, in order.
        out: number of output features.
        hidden: width of the dense layer before the last; ``None`` for none.
        residual_blocks: how many follow each halving, at the resolution that it leaves.
        activation: makes the nonlinearities.

    Raises:
        ValueError: if the event shape is not an image's, a width is less than 1, or there are
            more halvings than it takes to come down to one pixel; when called, if the input is
            not (…, *event_shape).

    >>> encoder = conv_encoder((3, 32, 32), out=40)
    >>> encoder(torch.zeros(5, 3, 32, 32)).shape, encoder(torch.zeros(2, 5, 3, 32, 32)).shape
    (torch.Size([5, 40]), torch.Size([2, 5, 40]))
    """
    _check_widths(channels, residual_blocks, hidden=hidden, out=out)
    image, sizes = _image(event_shape), _resolutions(event_shape, len(channels))
    layers: list[nn.Module] = []
    for before, after in zip((image[0], *channels), channels, strict=False):
        # A kernel of 3 with one pixel of padding leaves ⌈n/2⌉ of n pixels, even or odd.
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1)]
        layers += [_Residual(after, activation) for _ in range(residual_blocks)]
        layers += [activation()]
    flat = channels[-1] * math.prod(sizes[-1])
    dense = mlp(flat, *_given(hidden), out=out, activation=activation)
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
    """A convolutional network from latent variables to a likelihood's features of an image.

    The mirror image of :func:`conv_encoder`: dense layers make a small image of ``channels[0]``
    channels, and each entry of ``channels`` is one whose height and width a transposed
    convolution then doubles, up to the event's. Where those do not halve evenly, the last row
    or column is cropped on the way. Latent variables (…, in_features) give features
    (…, features_per_element · Π event_shape), as :class:`Likelihood` takes them: block after
    block, each a flattened image.

    The last layer is a bias of each feature by itself, which starts at 0. Set to the features of
    the mean image, it starts training from there, where a bias of each channel could not.

    Args:
        in_features: number of values of one input.
        event_shape: of one image, (height, width) or (channels, height, width).
        channels: of the image before each doubling, in order.
        hidden: width of the dense layer before the first image; ``None`` for none.
        features_per_element: how many features each element takes: the likelihood's.
        residual_blocks: how many come before each doubling, at the resolution that it finds.
        activation: makes the nonlinearities.

    Raises:
        ValueError: if the event shape is not an image's, a width is less than 1, or there are
            more doublings than it takes to come up from one pixel; when called, if the input is
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
        # Each output pixel is reached by 2 × 2 of a kernel's 4 × 4 weights, all by as many: a
        # kernel of 3 reaches some more often, which shows as a chequerboard (Odena et al. 2016).
        # A convolution after upsampling has as even a reach, at twice the time.
        # The last has no bias of its channels: that of each feature holds it.
        bias = size != sizes[-1]
        double = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
        layers += [activation(), double, _Crop(*size)]
    dense = mlp((in_features,), *_given(hidden), out=math.prod(deepest), activation=activation)
    last = _Bias(features_per_element * math.prod(event_shape))
    return nn.Sequential(*dense, _OnImages(deepest, layers), last)


class _OnImages(nn.Module):
    """Layers of images (B, C, H, W), run on flattened images of any leading shape."""

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
    """x + conv(act(conv(act(x)))), close to x at first."""

    # No batch normalization: a datum's features would depend on the others of its batch, which
    # the data plate declares independent, and on their number.
    def __init__(self, channels: int, activation: Callable[[], nn.Module]):
        super().__init__()
        inner, outer = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        shrink(outer)
        self.change = nn.Sequential(activation(), inner, activation(), outer)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to images of the same shape."""
        return x + self.change(x)


class _Crop(nn.Module):
    """The first rows and columns of an image, as many as said."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, ≥ H, ≥ W) to images (B, C, H, W)."""
        return x[..., : self.height, : self.width]

    def extra_repr(self) -> str:
        return f"{self.height}, {self.width}"


class _Bias(nn.Module):
    """A number added to each feature, 0 at first."""

    def __init__(self, num_features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Features (…, num_features) to features (…, num_features)."""
        return x + self.bias

    def extra_repr(self) -> str:
        return f"{len(self.bias)}"


def _image(event_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """An event shape with its channels, of which there is one where it states none."""
    if len(event_shape) not in (2, 3) or min(event_shape) < 1:
        raise ValueError(
            "a convolutional network is of images (height, width) or (channels, height, width), "
            f"got the event shape {tuple(event_shape)}"
        )
    height, width = event_shape[-2:]
    return (1 if len(event_shape) == 2 else event_shape[0], height, width)


def _resolutions(event_shape: tuple[int, ...], halvings: int) -> list[tuple[int, int]]:
    """Height and width of an image, and after each halving, rounded up."""
    height, width = event_shape[-2:]
    most = (max(height, width) - 1).bit_length()
    if halvings > most:
        raise ValueError(
            f"an image of {height} × {width} pixels cannot be halved {halvings} times: give at "
            f"most {most} channels"
        )
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(halvings + 1)]


def _check_widths(channels: tuple[int, ...], residual_blocks: int, **widths: int | None) -> None:
    """Refuse a network without channels, a width below 1, and fewer than no residual blocks."""
    if not channels:
        raise ValueError("a convolutional network needs a width in channels: give (32,), say")
    for name, value in {"channels": min(channels), **widths}.items():
        if value is not None and value < 1:
            got = tuple(channels) if name == "channels" else value
            raise ValueError(
                f"every width of a convolutional network must be at least 1, got {name}={got}"
            )
    if residual_blocks < 0:
        raise ValueError(f"residual_blocks must be 0 or more, got {residual_blocks}")


def _given(hidden: int | None) -> tuple[int, ...]:
    """The widths of the hidden layers, of which there may be none."""
    return () if hidden is None else (hidden,)
