"""The numbers of a top-down guide's levels of which each datum may have its own."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from ..models.contexts import takes_context
from .amortized import Amortized
from .own_features import OwnFeatures


def part_of(posteriors: nn.ModuleDict, name: str) -> Amortized:
    """The posterior of a level."""
    part = posteriors[name]
    assert isinstance(part, Amortized)
    return part


def own_parameters(
    posteriors: nn.ModuleDict, features: Mapping[str, Tensor], below: Collection[str]
) -> tuple[Tensor, ...]:
    """These numbers as the encoders give them, in the order of the levels, each (N, …).

    Args:
        posteriors: of the levels, from the top down.
        features: what the encoder of each level takes, without the state above.
        below: the names of the levels that have a state above them.
    """
    found: list[Tensor] = []
    for name in posteriors:
        part, given = part_of(posteriors, name), features[name]
        if name in below and takes_context(part.encoder):
            found += [given, given.new_zeros(len(given), *part.feature_shape)]
        else:
            found.append(part.encode(given, ()))
    return tuple(found)


def own_levels(
    posteriors: nn.ModuleDict, parameters: Sequence[Tensor], below: Collection[str]
) -> dict[str, OwnFeatures]:
    """The features of each level, from :func:`own_parameters` or other values of these."""
    rest = iter(parameters)
    found = {}
    for name in posteriors:
        is_seeing = name in below and takes_context(part_of(posteriors, name).encoder)
        given = next(rest) if is_seeing else None
        found[name] = OwnFeatures(next(rest), given)
    return found
