"""The axis ``--levels``: one latent variable, or a hierarchy of several, by its guide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from ...models.networks.batch_norm import BatchNorm
from .axis import Axis, Part
from .chain_level import chain_level
from .draw_levels import draw_levels
from .hierarchy_parts import HierarchyParts
from .map_levels import MAX_LOG_SCALE, map_levels
from .parameters import Flag, Widths
from .posteriors import EncoderOfWidth
from .sequence_level import sequence_level

leaky = partial(nn.LeakyReLU, 0.1)
"""The nonlinearity of the networks of ladders, as in Sønderby et al. 2016."""

HierarchyPair = tuple[Hierarchy, BottomUp | TopDown]


@dataclass(frozen=True)
class _Dense:
    """Levels of vectors, from the bottom up, and what their dense networks are made of."""

    dims: tuple[int, ...]
    widths: tuple[int, ...]
    skip: bool
    activation: Callable[[], nn.Module] = nn.Tanh
    batch_norm: bool = False
    max_log_scale: float | None = None

    @property
    def named(self) -> list[tuple[str, int, int]]:
        """Names, dimensions and widths."""
        pairs = zip(self.dims, self.widths, strict=True)
        return [(f"z{level}", dim, width) for level, (dim, width) in enumerate(pairs, start=1)]

    @property
    def states(self) -> dict[str, int]:
        """The length of the state that each level below the top sees."""
        dims = self.dims
        return {
            f"z{level}": sum(dims[level:]) if self.skip else dims[level]
            for level in range(1, len(dims))
        }

    def network(self, in_features: int | tuple[int, ...], *hidden: int, out: int) -> nn.Sequential:
        """A network of these layers."""
        activation, batch_norm = self.activation, self.batch_norm
        return mlp(in_features, *hidden, out=out, activation=activation, batch_norm=batch_norm)

    def levels(self) -> dict[str, nn.Module]:
        """The levels from the top down; a network between two has the upper one's width."""
        levels: dict[str, nn.Module] = {f"z{len(self.dims)}": StandardNormal(self.dims[-1])}
        below = zip(self.named, self.widths[1:], strict=False)
        for (name, dim, _), width in reversed([*below]):
            network = self.network(self.states[name], width, width, out=2 * dim)
            prior = ConditionalNormal(network, dim, max_log_scale=self.max_log_scale)
            levels[name] = Level(prior, Concatenation()) if self.skip else prior
        return levels

    def with_stages(
        self, parts: HierarchyParts, posterior: Callable[[str, int, int], Amortized]
    ) -> HierarchyPair:
        """A hierarchy whose guide goes from the top down, on features of a bottom-up encoder."""
        stages: dict[str, nn.Module] = {}
        below: int | tuple[int, ...] = parts.event_shape
        for name, _, width in self.named:
            encoder: EncoderOfWidth = partial(self.network, below, width)
            network = (parts.reading(encoder) if name == "z1" else encoder)(out=width)
            normalization = [BatchNorm(width)] if self.batch_norm else []
            stages[name] = nn.Sequential(network, *normalization, self.activation())
            below = width
        posteriors = {
            name: posterior(name, dim, width) for name, dim, width in reversed(self.named)
        }
        levels = self.levels()
        return self.pair(parts, levels, TopDown(posteriors, levels, Stages(stages)))

    def pair(
        self, parts: HierarchyParts, levels: Mapping[str, nn.Module], guide: BottomUp | TopDown
    ) -> HierarchyPair:
        """The model of these levels, whose top prior may hold the guide, and the guide."""
        top, width = next(iter(levels)), self.widths[0]
        seen = sum(self.dims) if self.skip else self.dims[0]
        decoder = self.network(seen, width, width, out=parts.likelihood.num_features)
        prior = parts.prior(self.dims[-1], guide)
        return Hierarchy({**levels, top: prior}, decoder, parts.likelihood), guide


def _bottom_up(
    parts: HierarchyParts,
    *,
    dims: Widths = (100, 50),
    widths: Widths = (200, 100),
    skip: Flag = False,
) -> HierarchyPair:
    """Each level's encoder sees a draw of the level below."""
    dense = _Dense(dims, widths, skip)
    posteriors: dict[str, Amortized] = {}
    below: int | tuple[int, ...] = parts.event_shape
    for name, dim, width in dense.named:
        encoder: EncoderOfWidth = partial(mlp, below, width, width)
        posteriors[name] = parts.posterior(parts.reading(encoder) if name == "z1" else encoder, dim)
        below = dim
    return dense.pair(parts, dense.levels(), BottomUp(posteriors))


def _top_down(
    parts: HierarchyParts,
    *,
    dims: Widths = (40, 40),
    widths: Widths = (300, 300),
    skip: Flag = True,
) -> HierarchyPair:
    """Each level's encoder sees features of x and the state of the level above."""
    dense = _Dense(dims, widths, skip)

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name not in dense.states:
            return parts.posterior(partial(mlp, width), dim)
        state = dense.states[name]
        readers = FlattenEvent((width,)), FlattenEvent((state,))

        def encoder(out: int) -> nn.Module:
            return Conditional(mlp(width + state, width, out=out), *readers)

        return parts.posterior(encoder, dim)

    return dense.with_stages(parts, posterior)


def _ladder(
    parts: HierarchyParts,
    *,
    dims: Widths = (64, 32, 16, 8, 4),
    widths: Widths = (512, 256, 128, 64, 32),
    skip: Flag = False,
    batch_norm: Flag = True,
) -> HierarchyPair:
    """Each level's posterior weighs the prior and what x says of the level by their precisions."""
    dense = _Dense(dims, widths, skip, leaky, batch_norm, MAX_LOG_SCALE)

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name not in dense.states:
            return parts.posterior(partial(mlp, width), dim)
        return PrecisionWeighted(mlp(width, out=2 * dim), dim, max_log_scale=MAX_LOG_SCALE)

    return dense.with_stages(parts, posterior)


def _residual(
    parts: HierarchyParts,
    *,
    dims: Widths = (64, 32, 16, 8, 4),
    widths: Widths = (512, 256, 128, 64, 32),
    skip: Flag = False,
) -> HierarchyPair:
    """Each level's posterior is its prior, moved and scaled by what x and the state say."""
    dense = _Dense(dims, widths, skip, leaky, max_log_scale=MAX_LOG_SCALE)

    def posterior(name: str, dim: int, width: int) -> Amortized:
        if name not in dense.states:
            return parts.posterior(partial(mlp, width), dim)
        state = dense.states[name]
        network = dense.network(width + state, width, out=2 * dim)
        readers = FlattenEvent((width,)), FlattenEvent((state,))
        return Residual(Conditional(network, *readers), dim, max_log_scale=MAX_LOG_SCALE)

    return dense.with_stages(parts, posterior)


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
    Part(
        "chain",
        "z at each step of a sequence, of dim dimensions, each given the one before; the guide "
        "reads x by a recurrent network",
        "Krishnan, Shalit and Sontag 2017, arXiv 1609.09869",
        chain_level,
        sequences=True,
    ),
    Part(
        "sequence",
        "one z for a whole sequence, whose steps a recurrent network writes, each given those "
        "before it",
        "Bowman et al. 2016, arXiv 1511.06349",
        sequence_level,
        sequences=True,
    ),
    Part(
        "draw",
        "steps of z, each of which adds to a canvas; windows read and write: attention, 0: without",
        "Gregor et al. 2015, arXiv 1502.04623",
        draw_levels,
    ),
)
"""Latent variables of one level or more; all but ``one`` build a pair: from
:class:`HierarchyParts`, or from :class:`SequenceParts` where they are for sequences. ``dims`` and
``widths`` are those of the levels from the bottom up; with ``skip`` each level and the decoder see
all levels above. Those of ``maps`` are numbers of channels, but for the top."""
