"""The axis ``--given``: the context of a conditional model, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import nn

from ...models import FlattenEvent, OneHot
from ..data.contexts import quadrants
from .axis import Axis, Part
from .parameters import Kind, one_of


@dataclass(frozen=True)
class GivenPart(Part):
    """A context beside x; builds the argument ``given`` of :func:`load_data`."""

    reader: Callable[[int], nn.Module] | None
    """Makes, from the context's length, the module that maps contexts to vectors of that length."""


Quadrants = Annotated[int, Kind("1, 2 or 3", lambda text: int(one_of("1", "2", "3").read(text)))]  # pyright: ignore


def _quadrants(*, num: Quadrants = 1) -> Any:
    return partial(quadrants, num=num)


def _read_elements(length: int) -> FlattenEvent:
    return FlattenEvent((length,))


GIVEN: Axis[GivenPart] = Axis(
    "context",
    GivenPart("none", "nothing", "Kingma and Welling 2014, arXiv 1312.6114", lambda: None, None),
    GivenPart(
        "labels",
        "the label of each datum",
        "Kingma et al. 2014, arXiv 1406.5298",
        lambda: "labels",
        OneHot,
    ),
    GivenPart(
        "quadrant",
        "the lower left quadrant of an image; x is the rest",
        "Sohn, Lee and Yan 2015",
        lambda: _quadrants(),
        _read_elements,
    ),
    GivenPart(
        "quadrants",
        "1, 2 or 3 quadrants of an image; x is the rest",
        "Sohn, Lee and Yan 2015",
        _quadrants,
        _read_elements,
    ),
)
"""The contexts."""
