"""DataFrames that are given directly: each argument's columns are aligned to those of a fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .arrays import is_table
from .checks import name_columns
from .likeness import align_columns
from .source import Source
from .tables import from_table, refuse_wide

Parts = Mapping[Any, Any]
"""Arguments of a program, by position or by keyword."""


def align_tables(
    known: Mapping[str, Sequence[str]], parts: Parts, name: str, *, by_keyword: bool
) -> dict[Any, Any]:
    """The arguments, of which tables are values with their columns in the order of the fit.

    A table is held against that of the fit at the same position or keyword. Where the fit had
    positions and these are keywords, or the other way round, it is that of the same columns.

    Args:
        known: the columns of each table of the fit, by its position or keyword.
        parts: the arguments.
        name: of the data, in errors.
        by_keyword: whether they are given by keyword.

    Raises:
        ValueError: naming columns that are missing or too many, or if two orders fit a table.
    """
    tables = {
        place: from_table(f"{place!r} of {name}" if by_keyword else _at(place, name), part)
        for place, part in parts.items()
        if is_table(part)
    }
    left, orders = dict(known), {}
    for place in tables:
        if str(place) in left:
            orders[place] = left.pop(str(place))
    if by_keyword == all(key.isdigit() for key in known):
        for place in sorted(tables.keys() - orders.keys(), key=str):
            key = _of_same_columns(tables[place], left)
            orders[place] = left.pop(key) if key is not None else ()
        for place, order in orders.items():
            orders[place] = order or (left.popitem()[1] if left else ())
    return {
        place: _values(tables[place], orders.get(place, ())) if place in tables else part
        for place, part in parts.items()
    }


def _at(position: int, name: str) -> str:
    return name if position == 0 else f"argument {position} of {name}"


def _of_same_columns(table: Source, known: Mapping[str, Sequence[str]]) -> str | None:
    """Where the fit had a table of these columns.

    Raises:
        ValueError: if it had several, in different orders.
    """
    places = [key for key, columns in known.items() if sorted(columns) == sorted(table.columns)]
    if len({tuple(known[key]) for key in places}) > 1:
        raise ValueError(
            f"{table.name} has {name_columns(table.columns)}, as several arguments of the fit had "
            "in different orders: give the arguments as the fit had them, by position or keyword"
        )
    return places[0] if places else None


def _values(table: Source, order: Sequence[str]) -> torch.Tensor:
    """The values of a table as a program is given them."""
    refuse_wide(table)
    return torch.from_numpy(align_columns(table, order).values.astype(np.float32, order="C"))
