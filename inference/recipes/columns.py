"""From the columns of a table to the families that they are modelled by."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...models import ColumnFamily
from ..data.column import Column
from ..data.rows import BLOCK_ROWS, Rows
from ..data.tables import LOST_SPREAD_SHARE

LEAST_MEAN = 0.01
"""Counts that are almost always 0 start from this mean."""


def column_kinds(text: str | None, data_kind: str) -> dict[str, str] | None:
    """The kinds of columns that a text gives, for a likelihood of tables; ``None`` for others.

    Args:
        text: kinds by name; the others are inferred.
        data_kind: the kind of data that the likelihood is for.

    Raises:
        ValueError: if the text is not of that form, or is given with another likelihood.

    >>> column_kinds("age=count,site=categorical", "columns")
    {'age': 'count', 'site': 'categorical'}
    """
    if data_kind != "columns":
        if text is not None:
            raise ValueError("kinds of columns are for the likelihood columns: leave --kinds out")
        return None
    pairs = [item.rpartition("=") for item in (text or "").split(",") if item.strip()]
    if not all(name and kind for name, _, kind in pairs):
        raise ValueError(f"--kinds takes NAME=KIND,… as in age=count,site=ordinal, not {text!r}")
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def column_families(columns: Sequence[Column], rows: Rows) -> tuple[ColumnFamily, ...]:
    """The family of each column, with location and scale of its training rows.

    Mean and standard deviation; of the logarithms for ``lognormal``; the median and 0.74 times the
    distance of the quartiles, which outliers do not move, for ``student-t``. The first
    :data:`BLOCK_ROWS` rows are looked at.

    Args:
        columns: the columns, in the order of the rows' elements.
        rows: training rows (N, D), encoded.

    Raises:
        ValueError: if there are more or fewer columns than elements of a row; or naming a column
            whose spread is lost in float32, where the rows are.
    """
    if tuple(rows.shape[1:]) != (len(columns),):
        raise ValueError(f"{len(columns)} columns do not fit rows of shape {tuple(rows.shape[1:])}")
    block = rows[:BLOCK_ROWS]
    values, dtype = block.double().cpu().numpy(), block.dtype
    families = tuple(
        _family(column, of_column) for column, of_column in zip(columns, values.T, strict=True)
    )
    rounding = torch.finfo(dtype).eps / 2 if dtype.is_floating_point else 0.0
    for one in families:
        is_measured = one.family in ("normal", "student-t")
        if is_measured and rounding * abs(one.location) > LOST_SPREAD_SHARE * one.scale:
            raise ValueError(
                f"column {one.name!r} is at {one.location:.6g} with a spread of {one.scale:.3g}: "
                f"{str(dtype).removeprefix('torch.')} has too few digits, so subtract an "
                "offset first, which does not change densities"
            )
    return families


def _family(column: Column, values: np.ndarray) -> ColumnFamily:
    name = str(column.name)
    if column.kind in ("categorical", "ordinal"):
        return ColumnFamily(column.kind, num_classes=len(column.categories), name=name)
    if column.kind == "binary":
        return ColumnFamily("binary", name=name)
    if column.kind in ("count", "poisson"):
        location = math.log(max(values.mean(), LEAST_MEAN))
        return ColumnFamily(column.kind, location=location, name=name)
    if column.kind == "lognormal":
        values = np.log(values)
    location, scale = float(values.mean()), float(values.std())
    if column.kind == "student-t":
        lower, location, upper = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        scale = 0.7413 * (upper - lower) or scale
    return ColumnFamily(column.kind, location=location, scale=scale or 1.0, name=name)
