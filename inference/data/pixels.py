"""Values that are pixels: their shape, and the level that they are divided by."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .source import Source


def as_pixels(source: Source, scale: float | None, shape: Sequence[int] | None) -> Source:
    """Give the values of each row a shape, and divide them by a level.

    Args:
        scale: the level that is 1 after the division; ``None``: that of the source.
        shape: the shape of a datum; ``None``: as it is.

    Raises:
        ValueError: if a row has not so many values, or the scale is not positive.
    """
    if scale is not None:
        if not (0 < scale < math.inf):
            raise ValueError(f"scale must be positive, got {scale}")
        source = replace(source, divisor=float(scale), note=_replaced_note(source, scale))
    if shape is None:
        return source
    own = tuple(source.values.shape[1:])
    if any(size < 1 for size in shape) or math.prod(shape) != math.prod(own):
        raise ValueError(
            f"shape {tuple(shape)} has {math.prod(shape)} values, and a row of {source.name} has "
            f"{math.prod(own)}"
        )
    values = source.values.reshape(len(source.values), *shape)
    if source.columns and not source.wide_columns:  # an array of float64 stays so, a table not
        values = values.astype(np.float32)
    kind = (_common(source),)
    return replace(source, values=values, columns=(), dtypes=kind, pixel_columns=source.columns)


def _common(source: Source) -> str:
    """The type of all columns, or float64 if they have several."""
    kinds = set(source.dtypes) or {source.values.dtype.newbyteorder("=").name}
    return kinds.pop() if len(kinds) == 1 else "float64"


def _replaced_note(source: Source, scale: float) -> str:
    parts = [part for part in source.note.split("; ") if part and "divided by" not in part]
    return "; ".join([*parts, f"divided by {scale:g}"])
