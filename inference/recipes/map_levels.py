"""The choice ``--levels maps``: a hierarchy of feature maps over several sizes of an image."""

import math
from dataclasses import dataclass

from torch import nn

from ...guides import Amortized, DiagonalNormal, Residual, TopDown
from ...models import (
    Addition,
    Conditional,
    ConditionalNormal,
    FeatureBias,
    Hierarchy,
    Level,
    Maps,
    ResidualBlock,
    Stages,
    StandardNormal,
    mlp,
)
from ...models.networks.convolutional import resolutions
from ...models.networks.layout import read_layout
from ...models.networks.mlp import shrink
from .hierarchy_parts import HierarchyParts
from .parameters import Count, Flag, Widths

MAX_LOG_SCALE = 5.0
"""The bound of log scales, that of NVAE's code: no draw of the levels above overflows them."""


@dataclass(frozen=True)
class _Place:
    """A level of maps: its name, and the shapes of its z and of the state at it."""

    name: str
    z: tuple[int, int, int]
    state: tuple[int, int, int]


def map_levels(
    parts: HierarchyParts,
    *,
    dims: Widths = (2, 4, 8, 16),
    widths: Widths = (16, 32, 32, 64),
    per_size: Count = 1,
    relative: Flag = False,
) -> tuple[Hierarchy, TopDown]:
    """Levels of maps at the image's size and its halves, under a vector at the top.

    ``dims`` are the channels of z, ``widths`` those of the state, from the image's size up, with
    ``per_size`` levels at each size; the last of both are the dimension of the top level and the
    width of its encoder. The state goes on past the levels, and each adds to it. A level's
    posterior sees features of x and the state; with ``relative`` it is a change of the prior.

    Raises:
        ValueError: if the data are no images, or too small to be halved that often.
    """
    places = _places(parts.event_shape, dims, widths, per_size)
    top, factor = f"z{len(places) + 1}", (len(places) + 1) ** -0.5
    levels = _levels(places, top, dims[-1], factor)
    posteriors: dict[str, Amortized] = {
        top: parts.posterior(lambda out: mlp(widths[-1], out=out), dims[-1])
    }
    family = Residual if relative else DiagonalNormal
    for place in reversed(places):
        width, *size = place.state
        network = _head((2 * width, *size), width, family.num_features(place.z))
        encoder = Conditional(network, nn.Identity(), nn.Identity(), event_dim=3)
        posteriors[place.name] = family(encoder, place.z, max_log_scale=MAX_LOG_SCALE)
    guide = TopDown(posteriors, levels, _encoder(parts, places, top, widths[-1], factor))
    prior = Level(parts.prior(dims[-1], guide), levels[top].join)
    decoder = _decoder(parts, places[0].state)
    return Hierarchy({**levels, top: prior}, decoder, parts.likelihood), guide


def _places(
    event_shape: tuple[int, ...], dims: tuple[int, ...], widths: tuple[int, ...], per_size: int
) -> list[_Place]:
    """The levels of maps, from the bottom up."""
    image = read_layout(event_shape, 2)
    most, halvings = (max(image.sizes) - 1).bit_length(), len(dims) - 2
    if halvings > most:
        raise ValueError(
            f"{image} cannot be halved {halvings} times, as --levels maps with {len(dims)} dims "
            f"does: give at most {most + 2} dims and widths"
        )
    sizes = [size for size in resolutions(image, halvings) for _ in range(per_size)]
    named = [value for value in zip(dims[:-1], widths, strict=False) for _ in range(per_size)]
    return [
        _Place(f"z{level}", (dim, height, width), (channels, height, width))
        for level, ((height, width), (dim, channels)) in enumerate(
            zip(sizes, named, strict=True), start=1
        )
    ]


def _levels(places: list[_Place], top: str, dim: int, factor: float) -> dict[str, Level]:
    """The levels from the top down, the state's path through them included."""
    above = places[-1].state
    start = nn.Sequential(mlp(dim, out=math.prod(above)), nn.Unflatten(-1, above))
    levels = {top: Level(StandardNormal(dim), Addition(start, Maps(above, _block(above, factor))))}
    for index in reversed(range(len(places))):
        place = places[index]
        project = nn.Conv2d(place.z[0], place.state[0], 1)
        shrink(project, factor=factor)
        then: list[nn.Module] = [_block(place.state, factor)]
        below = places[index - 1].state if index else place.state
        if below != place.state:
            then += [nn.Conv2d(place.state[0], below[0], 1), nn.Upsample(below[1:])]
        join = Addition(Maps(place.z, project), Maps(place.state, *then))
        network = _head(place.state, place.state[0], 2 * place.z[0])
        prior = ConditionalNormal(network, place.z, max_log_scale=MAX_LOG_SCALE)
        levels[place.name] = Level(prior, join)
    return levels


def _encoder(
    parts: HierarchyParts, places: list[_Place], top: str, width: int, factor: float
) -> Stages:
    """The bottom-up path, which halves the image where the levels do."""
    first = places[0].state
    channels = read_layout(parts.event_shape, 2).channels

    def read(out: int) -> nn.Module:
        image = nn.Conv2d(channels, out, 3, padding=1)
        return Maps(parts.event_shape, image, _block(first, factor))

    stages: dict[str, nn.Module] = {places[0].name: parts.reading(read)(out=first[0])}
    before = first
    for place in places[1:]:
        halve = nn.Conv2d(before[0], place.state[0], 3, stride=2, padding=1)
        layers = [] if place.state == before else [halve]
        stages[place.name] = Maps(before, *layers, _block(place.state, factor))
        before = place.state
    stages[top] = nn.Sequential(mlp(before, out=width), nn.GELU())
    return Stages(stages)


def _decoder(parts: HierarchyParts, state: tuple[int, ...]) -> nn.Module:
    """From the last state to the likelihood's features, block after block."""
    features = parts.likelihood.num_features
    planes = features // math.prod(state[1:])
    # Without a bias: that of each feature includes it.
    last = nn.Conv2d(state[0], planes, 3, padding=1, bias=False)
    return nn.Sequential(Maps(state, nn.GELU(), last), nn.Flatten(-3), FeatureBias(features))


def _block(state: tuple[int, ...], factor: float) -> ResidualBlock:
    return ResidualBlock(state[0], nn.GELU, factor=factor)


def _head(shape: tuple[int, ...], width: int, out: int) -> Maps:
    """A network to the features of a normal, which is N(0, 1) or unchanged at first, almost."""
    last = nn.Conv2d(width, out, 1)
    shrink(last)
    return Maps(shape, nn.GELU(), nn.Conv2d(shape[0], width, 3, padding=1), nn.GELU(), last)
