"""What a table's column is modelled by: its family, and the units of its values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MEASURED = ("normal", "student-t", "lognormal")
"""Families of measurements, which have a location and a scale."""

COUNTED = ("count", "poisson")
"""Families of counts, whose mean may be predicted from a location on."""

CLASSES = ("categorical", "ordinal")
"""Families of codes 0 … C − 1."""

FAMILIES = (*MEASURED, *COUNTED, "binary", *CLASSES)
"""All families."""


@dataclass(frozen=True)
class ColumnFamily:
    """The family of distributions of a column, for :class:`ColumnLikelihood`.

    ============= ============================== =================================================
    family        values                         distribution
    ============= ============================== =================================================
    normal        real numbers                   :class:`Normal`, its σ learned
    student-t     real numbers with outliers     :class:`StudentT`, its σ and ν learned
    lognormal     numbers above 0                :class:`LogNormal`, its σ learned
    count         counts                         :class:`NegativeBinomial`, its r learned
    poisson       counts                         :class:`Poisson`
    binary        0 and 1                        :class:`Bernoulli`
    categorical   codes 0 … C − 1                :class:`Categorical`
    ordinal       codes 0 … C − 1 in an order    :class:`Ordinal`, its cutpoints learned
    ============= ============================== =================================================

    Args:
        family: its name.
        num_classes: C, for ``categorical`` and ``ordinal``.
        location: where the column's values lie: their mean, or that of their logarithms for
            ``lognormal``; for counts the logarithm of their mean. The decoder's feature f predicts
            location + scale · f, so that features of about 1 are right for columns in any unit,
            while x, and its density, stay in the data's own.
        scale: how far the values spread: their standard deviation, or that of their logarithms for
            ``lognormal``; a learned σ starts from half of it.
        predicted: whether the decoder predicts σ (of counts: r) for each datum.
        name: the column's name, for errors.

    Raises:
        ValueError: if there is no such family, or an argument is not one of that family.

    >>> ColumnFamily("normal", location=170.0, scale=9.0, name="height").describe()
    "column 'height' (normal)"
    """

    family: str
    num_classes: int = 0
    location: float = 0.0
    scale: float = 1.0
    predicted: bool = False
    name: str = ""

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(
                f"there is no column family {self.family!r}: there are {', '.join(FAMILIES)}"
            )
        own = f"the {self.describe()}"
        if self.family in CLASSES and self.num_classes < 2:
            raise ValueError(f"{own} needs num_classes, at least 2, got {self.num_classes}")
        if self.family not in CLASSES and self.num_classes:
            raise ValueError(f"{own} has no classes, got num_classes={self.num_classes}")
        if not 0 < self.scale < float("inf") or not abs(self.location) < float("inf"):
            raise ValueError(
                f"{own} needs a finite location, and a scale above 0, got "
                f"location={self.location}, scale={self.scale}"
            )
        if (self.family not in MEASURED and self.scale != 1) or (
            self.family not in (*MEASURED, *COUNTED) and self.location != 0
        ):
            raise ValueError(f"{own} takes no location or scale")
        if self.predicted and self.family not in (*MEASURED, "count"):
            raise ValueError(f"{own} has no scale that could be predicted")

    def describe(self) -> str:
        """The column by name, with its family."""
        classes = f", codes 0 to {self.num_classes - 1}" if self.num_classes > 1 else ""
        return f"column {self.name!r} ({self.family}{classes})".replace(" ''", "")


def as_column_family(column: ColumnFamily | str, number: int) -> ColumnFamily:
    """A column that may be given by the name of its family alone, and is then named by number."""
    return ColumnFamily(column, name=str(number)) if isinstance(column, str) else column


def count_families(columns: Sequence[ColumnFamily]) -> str:
    """How many columns are of each family, in words.

    >>> count_families([ColumnFamily(name) for name in ("normal", "binary", "normal")])
    '2 normal, 1 binary'
    """
    counts = Counter(column.family for column in columns)
    return ", ".join(f"{count} {family}" for family, count in counts.items())
