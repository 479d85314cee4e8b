"""The axis ``--network``: encoder and decoder networks by name."""

import math
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from ...models import (
    AutoregressiveLikelihood,
    Conditional,
    FlattenEvent,
    Likelihood,
    PixelCNN,
    conv_decoder,
    conv_encoder,
    mlp,
)
from .axis import Axis, Part
from .parameters import Count, Kind, Natural, Widths, one_of
from .posteriors import EncoderOfWidth
from .sizes import Sizes

Networks = tuple[EncoderOfWidth, nn.Module, Likelihood]
"""A function that makes the encoder, the decoder, and the likelihood that takes its features."""


def _read_dims(text: str) -> int | str:
    return text if text == "auto" else int(one_of("1", "2", "3").read(text))  # pyright: ignore


Dims = Annotated[int | str, Kind("auto, 1, 2 or 3", _read_dims)]
"""The number of spatial axes, or ``"auto"``: told from the shape, where it is clear."""


def _mlp(sizes: Sizes, likelihood: Likelihood, context: nn.Module | None) -> Networks:
    """Multilayer perceptrons. A context is joined to x, and to z."""
    x, z = FlattenEvent(sizes.event_shape), FlattenEvent((sizes.latent_dim,))
    if context is None:
        decoder = mlp(sizes.latent_dim, *reversed(sizes.hidden), out=likelihood.num_features)
        return partial(mlp, sizes.event_shape, *sizes.hidden), decoder, likelihood

    def encoder(out: int) -> nn.Module:
        network = mlp(math.prod(sizes.event_shape) + sizes.context, *sizes.hidden, out=out)
        return Conditional(network, x, context)

    width = sizes.latent_dim + sizes.context
    network = mlp(width, *reversed(sizes.hidden), out=likelihood.num_features)
    return encoder, Conditional(network, z, context), likelihood


def _conv(
    sizes: Sizes,
    likelihood: Likelihood,
    context: nn.Module | None,
    *,
    residual_blocks: Natural = 0,
    channels: Widths = (32, 64),
    dims: Dims = "auto",
) -> Networks:
    """Convolutional networks that halve a datum once for each of ``channels``; one dense layer.

    The dense layer has the last hidden width. A context is joined to its features of x, and to z.

    Raises:
        ValueError: if rows of numbers are to be taken for signals without ``dims=1``: they may be
            the columns of a table, whose order means nothing.
    """
    if dims == "auto" and len(sizes.event_shape) == 1:
        raise ValueError(
            f"the network conv goes along neighbours, and a datum is a row of "
            f"{sizes.event_shape[0]} values: take --network conv:dims=1 if they are a signal, in "
            "order, else --network mlp"
        )
    width, axes = sizes.hidden[-1], None if dims == "auto" else int(dims)
    options = {"residual_blocks": residual_blocks, "dims": axes}
    plain = partial(conv_encoder, sizes.event_shape, channels, **options)
    decoder = conv_decoder(
        sizes.latent_dim + (0 if context is None else sizes.context),
        sizes.event_shape,
        channels[::-1],
        features_per_element=likelihood.features_per_element,
        hidden=width,
        **options,
    )
    if context is None:
        return partial(plain, hidden=width), decoder, likelihood

    def encoder(out: int) -> nn.Module:
        image = nn.Sequential(plain(out=width, hidden=None), nn.ReLU())
        return Conditional(mlp(width + sizes.context, width, out=out), image, context)

    return encoder, Conditional(decoder, FlattenEvent((sizes.latent_dim,)), context), likelihood


def _pixel_cnn(
    sizes: Sizes,
    likelihood: Likelihood,
    context: nn.Module | None,
    *,
    receptive_field: Count = 3,
    layers: Count = 3,
    channels: Count = 16,
    features: Count = 8,
    base: Annotated[str, one_of("mlp", "conv")] = "mlp",
) -> Networks:
    """Networks of the part ``base``, whose decoder gives ``features`` of z for each element.

    These are maps, which enter into each layer of a :class:`PixelCNN`.

    Raises:
        ValueError: if the data are no images.
    """
    shape = sizes.event_shape
    if len(shape) not in (2, 3):
        raise ValueError(
            f"the network pixelcnn takes the pixels of images, and a datum has the shape {shape}: "
            "take --network mlp"
        )
    colours = 1 if len(shape) == 2 else shape[0]
    network = PixelCNN(
        shape,
        channels,
        receptive_field=receptive_field,
        layers=layers,
        features_per_element=likelihood.features_per_element,
        latent_features=(features * colours, *shape[-2:]),
    )
    with_memory = AutoregressiveLikelihood(likelihood, network=network)
    if base == "mlp":
        return _mlp(sizes, with_memory, context)
    return _conv(sizes, with_memory, context, dims=2)


def as_before_dims(network: str, event_shape: tuple[int, ...]) -> str:
    """The text of a run folder's network, with the ``dims`` that it has had where it names none.

    Data of two or three axes have been images since there is a network ``conv``: what is refused as
    ambiguous in a new run was an image in an older one.

    >>> as_before_dims("conv", (12, 64)), as_before_dims("conv:dims=1", (12, 64))
    ('conv:dims=2', 'conv:dims=1')
    """
    choice = NETWORKS.parse(network)
    if choice.name != "conv" or choice["dims"] != "auto" or len(event_shape) not in (2, 3):
        return network
    return f"{network},dims=2" if ":" in network else f"{network}:dims=2"


class Log1p(nn.Module):
    """log(1 + x), applied to counts before an encoder (Lopez et al. 2017, arXiv 1709.02082)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply log(1 + x) to each element."""
        return x.log1p()


def reading(reader: nn.Module, encoder: EncoderOfWidth) -> EncoderOfWidth:
    """Let an encoder read what ``reader`` makes of x, in place of x."""

    def make(out: int) -> nn.Module:
        network = encoder(out=out)
        if isinstance(network, Conditional):
            first, *others = network.readers
            return Conditional(network.network, nn.Sequential(reader, first), *others)
        return nn.Sequential(reader, network)

    return make


NETWORKS: Axis[Part] = Axis(
    "network",
    Part(
        "mlp",
        "multilayer perceptrons of the widths --hidden",
        "Kingma and Welling 2014, arXiv 1312.6114",
        _mlp,
    ),
    Part(
        "conv",
        "convolutions with a halving for each of channels, along dims axes: 1 for signals, 2 for "
        "images, 3 for volumes; with residual blocks, a ResNet",
        "Radford, Metz and Chintala 2016, arXiv 1511.06434",
        _conv,
    ),
    Part(
        "pixelcnn",
        "a decoder with memory, for images: a gated PixelCNN that sees the pixels before, at most "
        "receptive_field away, and in each layer features of z by networks of the part base",
        "Gulrajani et al. 2017, arXiv 1611.05013",
        _pixel_cnn,
    ),
)
"""The networks; each builds a maker of encoders, a decoder and the likelihood of its features from
sizes, the likelihood of an element and the module that reads the context."""
