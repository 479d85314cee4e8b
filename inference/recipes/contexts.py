"""The axis ``--given``: the context of a conditional model, by name."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import nn

from ...models import FlattenEvent, OneHot
from ..data.contexts import quadrants
from ..data.some_labels import SomeLabels
from .axis import Axis, Choice, Part
from .parameters import Kind, Natural, NonNegative, one_of


@dataclass(frozen=True)
class GivenPart(Part):
    """A context beside x; builds the argument ``given`` of :func:`load_data`."""

    reader: Callable[[int], nn.Module] | None
    """Makes, from the context's length, the module that maps contexts to vectors of that length."""


Quadrants = Annotated[int, Kind("1, 2 or 3", lambda text: int(one_of("1", "2", "3").read(text)))]  # pyright: ignore


def _quadrants(*, num: Quadrants = 1) -> Any:
    return partial(quadrants, num=num)


def _some_labels(*, known: Natural = 0, weight: NonNegative = 0.1) -> SomeLabels:
    """Known: how many training labels; 0: those of the data. Weight: of the classifier's term."""
    return SomeLabels(known or None)


def _read_elements(length: int) -> FlattenEvent:
    return FlattenEvent((length,))


SOME_LABELS = "some-labels"
"""The context that is the label of a few data."""

COLUMNS = "columns"
"""The context that is columns of a table."""


class ContextAxis(Axis[GivenPart]):
    """The contexts; a text that begins with the name of none of them names columns of a table."""

    def parse(self, text: str) -> Choice[GivenPart]:
        """Read the text of a choice: as of any axis, or as names, ``age,site``.

        >>> GIVEN.parse("age,site") == GIVEN.parse("columns:age,site")
        True
        >>> GIVEN.parse('"last, first"').build()
        ['last, first']
        """
        name, _, listed = text.strip().partition(":")
        if name in self and name != COLUMNS:
            return super().parse(text)
        listed = listed.removeprefix("names=") if name == COLUMNS else text
        return Choice(self[COLUMNS], (("names", _read_names(listed.strip())),), text.strip())


def _read_names(text: str) -> tuple[str, ...]:
    """The names in a text as cells of a CSV file are: quotes hold names with a comma."""
    names = [cell.strip() for row in csv.reader([text], skipinitialspace=True) for cell in row]
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ValueError(f"--given names the column {twice[0]!r} twice")
    if not all(names):
        raise ValueError(f"--given {text!r} has a name without letters between two commas")
    return tuple(names)


Names = Annotated[tuple[str, ...], Kind("names of columns such as age,site", _read_names)]


def _columns(*, names: Names = ()) -> Any:
    return list(names)


GIVEN: Axis[GivenPart] = ContextAxis(
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
        SOME_LABELS,
        "the label of a few data: the others' are latent, beside a classifier",
        "Kingma et al. 2014, arXiv 1406.5298",
        _some_labels,
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
    GivenPart(
        COLUMNS,
        "columns of a table, by their names, as in age,site; x is the others",
        "Kingma et al. 2014, arXiv 1406.5298",
        _columns,
        _read_elements,
    ),
)
"""The contexts."""
