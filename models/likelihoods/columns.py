"""Likelihood of tables: each column has a family of its own."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .bernoulli import Bernoulli
from .categorical import Categorical
from .column_distribution import ColumnDistribution
from .column_family import MEASURED, ColumnFamily, as_column_family, count_families
from .likelihood import Likelihood
from .log_normal import LogNormal
from .negative_binomial import NegativeBinomial
from .normal import Normal
from .ordinal import Ordinal
from .poisson import Poisson
from .student_t import StudentT

SCALE_AT_START = 0.5
"""A scale starts from this share of the spread of its column."""

DEGREES_OF_FREEDOM_AT_START = 4.0
"""Initial value of the degrees of freedom of Student's t."""


class ColumnLikelihood(Likelihood):
    """Columns of different families, independent given z: p(x|z) = ∏_d p_d(x_d|z).

    The data are rows of numbers (N, D), each column in its own units; classes are their codes
    0, …, C − 1, and bits are 0 and 1. log p(x|z) is the sum over the columns: of log densities in
    the data's own units for measurements, of log probabilities for the others. Columns of a family
    are scored together. The features are those of the families, one family after the other, in the
    order of their first columns.

    The mean is NaN in columns of classes, which have none; a reconstruction of such a table is then
    a draw of x.

    In a VAE: Nazábal et al. (2020), Handling incomplete heterogeneous data using VAEs, arXiv
    1807.03653. There the values are normalized; here features are scaled instead
    (:class:`ColumnFamily`).

    Args:
        columns: for each column its :class:`ColumnFamily`, or the name of a family that has no
            classes.

    Raises:
        ValueError: if there is no column, or no family of that name.

    >>> colour = ColumnFamily("categorical", num_classes=3, name="colour")
    >>> likelihood = ColumnLikelihood(["normal", colour, "count", "normal"])
    >>> likelihood.num_features  # 2 of the normal columns, 3 of the classes, 1 of the counts
    6
    >>> p = likelihood(torch.zeros(5, 6))
    >>> p.log_prob(torch.tensor([0.0, 2.0, 1.0, 0.0])).shape, p.event_shape
    (torch.Size([5]), torch.Size([4]))
    """

    def __init__(self, columns: Sequence[ColumnFamily | str]):
        if not columns:
            raise ValueError("a ColumnLikelihood needs at least one column")
        super().__init__((len(columns),))
        self.columns = tuple(as_column_family(column, n) for n, column in enumerate(columns))
        groups: dict[tuple[str, int, bool], list[int]] = {}
        for place, column in enumerate(self.columns):
            key = column.family, column.num_classes, column.predicted
            groups.setdefault(key, []).append(place)
        self.families = nn.ModuleList()
        offsets: list[float] = []
        gains: list[float] = []
        for number, places in enumerate(groups.values()):
            group = [self.columns[place] for place in places]
            self.families.append(_BUILDERS[group[0].family](group))
            offset, gain = _offset_and_gain(group, self._sizes[number])
            offsets, gains = offsets + offset, gains + gain
            self.register_buffer(f"places_{number}", torch.tensor(places), persistent=False)
        self.num_features = sum(self._sizes)
        self.register_buffer("offset", torch.tensor(offsets))
        self.register_buffer("gain", torch.tensor(gains))

    @property
    def _sizes(self) -> list[int]:
        return [family.num_features for family in self.families]  # pyright: ignore

    @property
    def _places(self) -> list[Tensor]:
        return [self.get_buffer(f"places_{number}") for number in range(len(self.families))]

    def forward(self, features: Tensor) -> ColumnDistribution:
        """Features (…, num_features) to p(x|z): batch shape (…), event shape (D,)."""
        self.check_features(features)
        return self.distribution(*(self.offset + self.gain * features).split(self._sizes, -1))  # pyright: ignore

    def distribution(self, *blocks: Tensor) -> ColumnDistribution:
        """Scaled features of each family, (…, its num_features), to the distribution of a row."""
        parts = [family(block) for family, block in zip(self.families, blocks, strict=True)]
        names = tuple(column.describe() for column in self.columns)
        return ColumnDistribution(parts, self._places, names, dtype=blocks[0].dtype)

    def constant_features(self, x: Tensor) -> Tensor:
        """The constant features of each family; where it predicts scales, those it starts from."""
        values = []
        for family, places in zip(self.families, self._places, strict=True):
            values.append(family.constant_features(x[:, places]))  # pyright: ignore
        features = (torch.cat(values) - self.offset) / self.gain  # pyright: ignore
        start = 0
        for places, size in zip(self._places, self._sizes, strict=True):
            if self.columns[int(places[0])].predicted:
                features[start + len(places) : start + size] = 0
            start += size
        return features

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, {count_families(self.columns)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"  # in one line, for errors


Group = Sequence[ColumnFamily]


def _offset_and_gain(group: Group, num_features: int) -> tuple[list[float], list[float]]:
    """What the features of a group are multiplied by and shifted by: two lists (num_features,)."""
    offset, gain = [column.location for column in group], [column.scale for column in group]
    predicted = [math.log(SCALE_AT_START * column.scale) for column in group]
    if group[0].predicted and group[0].family in MEASURED:
        offset += predicted  # the second block is log σ
    rest = num_features - len(offset)
    return [*offset, *[0.0] * rest], [*gain, *[1.0] * (num_features - len(gain))]


def _scales(group: Group) -> nn.Parameter | None:
    """The scales of a group: learned, or ``None`` if they are predicted."""
    start = [SCALE_AT_START * column.scale for column in group]
    return None if group[0].predicted else nn.Parameter(torch.tensor(start))


def _student_t(group: Group) -> StudentT:
    df = nn.Parameter(torch.full((len(group),), DEGREES_OF_FREEDOM_AT_START))
    return StudentT((len(group),), df=df, scale=_scales(group))  # pyright: ignore[reportArgumentType]


def _negative_binomial(group: Group) -> NegativeBinomial:
    total_count = None if group[0].predicted else nn.Parameter(torch.ones(len(group)))
    return NegativeBinomial((len(group),), total_count)


_BUILDERS: dict[str, Callable[[Group], Likelihood]] = {
    "normal": lambda group: Normal((len(group),), _scales(group)),
    "student-t": _student_t,
    "lognormal": lambda group: LogNormal((len(group),), _scales(group)),
    "count": _negative_binomial,
    "poisson": lambda group: Poisson((len(group),)),
    "binary": lambda group: Bernoulli((len(group),)),
    "categorical": lambda group: Categorical((len(group),), group[0].num_classes),
    "ordinal": lambda group: Ordinal((len(group),), group[0].num_classes),
}
