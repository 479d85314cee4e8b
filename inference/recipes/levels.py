"""The axis ``--levels``: one latent variable, or a hierarchy of several, by its guide."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from ...guides import Amortized, BottomUp, PrecisionWeighted, Residual, TopDown
from ...models import (
    Concatenation,
    Conditional,
    ConditionalNormal,
    FlattenEvent,
    Hierarchy,
    Level,
    Stages,
    StandardNormal,
    mlp,
)
from .axis import Axis, Part
from .hierarchy_parts import HierarchyParts
from .map_levels import map_levels
from .parameters import Flag, Widths
from .posteriors import EncoderOfWidth

leaky = partial(nn.LeakyReLU, 0.1)
"""The nonlinearity of the networks of ladders, as in Sønderby et al. 2016."""

HierarchyPair = tuple[Hierarchy, BottomUp | TopDown]


def _bottom_up(
    parts: HierarchyParts,
    *,
    dims: Widths = (100, 50),
    widths: Widths = (200, 100),
    skip: Flag = False,
) -> HierarchyPair:
    """Each level's encoder sees a draw of the level below."""
    posteriors: dict[str, Amortized] = {}
    below: int | tuple[int, ...] = parts.event_shape
    for name, dim, width in _named(dims, widths):
        encoder: EncoderOfWidth = partial(mlp, below, width, width)
        posteriors[name] = parts.posterior(parts.reading(encoder) if name == "z1" else encoder, dim)
        below = dim
    levels = _levels(dims, widths, skip)
    return _model(parts, levels, BottomUp(posteriors), dims, widths, skip)


def _top_down(
    parts: HierarchyParts,
    *,
    dims: Widths = (40, 40),
    widths: Widths = (300, 300),
    skip: Flag = True,
) -> HierarchyPair:
    """Each level's encoder sees features of x and the state of the level above."""
    states = _states(dims, skip)

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name not in states:
            return parts.posterior(partial(mlp, width), dim)
        readers = FlattenEvent((width,)), FlattenEvent((states[name],))

        def encoder(out: int) -> nn.Module:
            return Conditional(mlp(width + states[name], width, out=out), *readers)

        return parts.posterior(encoder, dim)

    return _with_stages(parts, posterior, dims, widths, skip, nn.Tanh)


def _ladder(
    parts: HierarchyParts,
    *,
    dims: Widths = (64, 32, 16, 8, 4),
    widths: Widths = (512, 256, 128, 64, 32),
    skip: Flag = False,
) -> HierarchyPair:
    """Each level's posterior weighs the prior and what x says of the level by their precisions."""

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name == f"z{len(dims)}":
            return parts.posterior(partial(mlp, width), dim)
        return PrecisionWeighted(mlp(width, out=2 * dim), dim)

    return _with_stages(parts, posterior, dims, widths, skip, leaky)


def _residual(
    parts: HierarchyParts,
    *,
    dims: Widths = (64, 32, 16, 8, 4),
    widths: Widths = (512, 256, 128, 64, 32),
    skip: Flag = False,
) -> HierarchyPair:
    """Each level's posterior is its prior, moved and scaled by what x and the state say."""
    states = _states(dims, skip)

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name not in states:
            return parts.posterior(partial(mlp, width), dim)
        network = mlp(width + states[name], width, out=2 * dim, activation=leaky)
        readers = FlattenEvent((width,)), FlattenEvent((states[name],))
        return Residual(Conditional(network, *readers), dim)

    return _with_stages(parts, posterior, dims, widths, skip, leaky)


def _with_stages(
    parts: HierarchyParts,
    posterior: Callable[[str, int, int], Amortized],
    dims: tuple[int, ...],
    widths: tuple[int, ...],
    skip: bool,
    activation: Callable[[], nn.Module],
) -> HierarchyPair:
    """A hierarchy whose guide goes from the top down, on features of a bottom-up encoder."""
    named = _named(dims, widths)
    stages: dict[str, nn.Module] = {}
    below: int | tuple[int, ...] = parts.event_shape
    for name, _, width in named:
        encoder: EncoderOfWidth = partial(mlp, below, width, activation=activation)
        network = (parts.reading(encoder) if name == "z1" else encoder)(out=width)
        stages[name], below = nn.Sequential(network, activation()), width
    posteriors = {name: posterior(name, dim, width) for name, dim, width in reversed(named)}
    levels = _levels(dims, widths, skip, activation)
    guide = TopDown(posteriors, levels, Stages(stages))
    return _model(parts, levels, guide, dims, widths, skip, activation)


def _model(
    parts: HierarchyParts,
    levels: Mapping[str, nn.Module],
    guide: BottomUp | TopDown,
    dims: tuple[int, ...],
    widths: tuple[int, ...],
    skip: bool,
    activation: Callable[[], nn.Module] = nn.Tanh,
) -> HierarchyPair:
    """The model of these levels, whose top prior may hold the guide."""
    top = next(iter(levels))
    out, width = parts.likelihood.num_features, widths[0]
    seen = sum(dims) if skip else dims[0]
    decoder = mlp(seen, width, width, out=out, activation=activation)
    prior = parts.prior(dims[-1], guide)
    return Hierarchy({**levels, top: prior}, decoder, parts.likelihood), guide


def _levels(
    dims: tuple[int, ...],
    widths: tuple[int, ...],
    skip: bool,
    activation: Callable[[], nn.Module] = nn.Tanh,
) -> dict[str, nn.Module]:
    """The levels from the top down; a network between two levels has the upper one's width."""
    states = _states(dims, skip)
    levels: dict[str, nn.Module] = {f"z{len(dims)}": StandardNormal(dims[-1])}
    for name, dim, width in reversed(_named(dims[:-1], widths[1:])):
        network = mlp(states[name], width, width, out=2 * dim, activation=activation)
        prior = ConditionalNormal(network, dim)
        levels[name] = Level(prior, Concatenation()) if skip else prior
    return levels


def _states(dims: tuple[int, ...], skip: bool) -> dict[str, int]:
    """The length of the state that each level below the top sees."""
    return {
        f"z{level}": sum(dims[level:]) if skip else dims[level] for level in range(1, len(dims))
    }


def _named(dims: tuple[int, ...], widths: tuple[int, ...]) -> list[tuple[str, int, int]]:
    """Names, dimensions and widths of the levels, from the bottom up."""
    pairs = zip(dims, widths, strict=True)
    return [(f"z{level}", dim, width) for level, (dim, width) in enumerate(pairs, start=1)]


LEVELS: Axis[Part] = Axis(
    "levels",
    Part(
        "one",
        "one latent variable z, of --latent-dim dimensions",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda: None,
    ),
    Part(
        "bottom-up",
        "levels z1, z2, … of these dims; each encoder sees a draw of the level below",
        "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519",
        _bottom_up,
    ),
    Part(
        "top-down",
        "the same; each encoder sees x and the draws above",
        "Tomczak and Welling 2018, arXiv 1705.07120",
        _top_down,
    ),
    Part(
        "ladder",
        "the same; each posterior weighs the prior and what x says by their precisions",
        "Sønderby et al. 2016, arXiv 1602.02282",
        _ladder,
    ),
    Part(
        "residual",
        "the same; each posterior is the prior, moved and scaled by what x says",
        "Vahdat and Kautz 2020, arXiv 2007.03898",
        _residual,
    ),
    Part(
        "maps",
        "feature maps at an image's size and its halves, under a vector; per_size levels each",
        "Child 2021, arXiv 2011.10650",
        map_levels,
    ),
)
"""Latent variables of one level or more; all but ``one`` build a pair from
:class:`HierarchyParts`. ``dims`` and ``widths`` are those of the levels from the bottom up; with
``skip`` each level and the decoder see all levels above. Those of ``maps`` are numbers of channels,
but for the top."""
