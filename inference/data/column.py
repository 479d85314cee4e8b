"""A column of a table as it is modelled: its kind, its categories and its type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CODED = ("binary", "categorical", "ordinal")
"""Kinds whose values are codes of categories."""

CONTINUOUS = ("normal", "student-t", "lognormal")
"""Kinds whose values have a density."""

KINDS = ("normal", "student-t", "lognormal", "count", "poisson", *CODED)
"""All kinds: the families of :class:`latente.models.ColumnFamily`."""


@dataclass(frozen=True)
class Column:
    """How a column of a table is encoded as numbers, and decoded again.

    >>> column = Column("smoker", "binary", categories=("no", "yes"), dtype="str")
    >>> Column.from_json(column.to_json()) == column
    True
    """

    name: str | int
    """Its name in the table."""
    kind: str
    """One of :data:`KINDS`."""
    categories: tuple[str | int | float | bool, ...] = ()
    """The values of codes 0, 1, …, for the kinds in :data:`CODED`."""
    dtype: str = "float64"
    """Its pandas type; for pandas categories ``"category of T"`` or ``"ordered category of T"``,
    with the type T of their values."""
    reason: str = field(default="", compare=False)
    """Why it has this kind, in words."""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        values = {"name": self.name, "kind": self.kind, "dtype": self.dtype, "reason": self.reason}
        return {**values, "categories": list(self.categories)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Column":
        """The column of the values that :meth:`to_json` gave.

        Raises:
            ValueError: if they are not those of a column.
        """
        try:
            column = cls(**{**values, "categories": tuple(values["categories"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no column of a table: {values!r}") from error
        if column.kind not in KINDS:
            raise ValueError(f"column {column.name!r} is of no known kind: {column.kind!r}")
        return column


def describe_columns(columns: Sequence[Column]) -> str:
    """The columns with their kinds and the reasons for them, in a line each.

    >>> print(describe_columns([Column("age", "normal", reason="61 numbers from 18 to 90")]))
    age: normal (61 numbers from 18 to 90)
    """
    return "\n".join(
        f"{column.name}: {column.kind}{column.reason and f' ({column.reason})'}"
        for column in columns
    )
