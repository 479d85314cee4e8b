"""Whether two data sets were transformed in the same way."""

import torch

from .some_labels import SOME_LABELS
from .transform import Transform

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""Means and deviations of the same values, from float32 and from float64, differ by less."""
NEGLIGIBLE = 1e-5
"""Likewise, as a share of the standard deviation."""


def difference(transform: Transform, other: Transform) -> str:
    """What differs between two transforms, in words; empty if rows mean the same after both.

    A table has names of columns, and an array of the same values has none: then the numbers alone
    decide, up to the rounding of float32, in which a table is standardized.
    """
    names, theirs = _names(transform), _names(other)
    alike = bool(names) == bool(theirs)
    if alike and names != theirs:
        return "other columns" if set(names) != set(theirs) else "another order of columns"
    if not alike and transform.seen_shape != other.seen_shape:
        return "another shape of a datum"
    if transform.divisor != other.divisor:
        return "another largest level"
    if not _same_units(transform, other, rounded=not alike):
        return "another mean and standard deviation"
    if transform.has_lengths != other.has_lengths:
        return "other lengths of sequences"
    if transform.vocabulary != other.vocabulary:
        return "another vocabulary"
    if transform.context_columns != other.context_columns:
        return "another context"
    if transform.given in ("labels", SOME_LABELS) and transform.label_names != other.label_names:
        return "another numbering of labels"
    if transform.given == "labels" and not _within(other.label_range, transform.label_range):
        return "another range of labels"
    return "another coding of columns" if transform.kinds != other.kinds else ""


def _names(transform: Transform) -> tuple[str, ...]:
    """The names of the columns, also of those that became pixels."""
    return transform.columns or transform.options.pixel_columns


def _within(inner: tuple[int, int] | None, outer: tuple[int, int] | None) -> bool:
    if inner is None or outer is None:
        return True
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _same_units(transform: Transform, other: Transform, *, rounded: bool) -> bool:
    """Whether both subtract the same mean and divide by the same deviation, if they do so."""
    location, scale = transform.location, transform.scale
    other_location, other_scale = other.location, other.scale
    if location is None or scale is None or other_location is None or other_scale is None:
        return location is other_location
    if not rounded:
        return torch.equal(location, other_location) and torch.equal(scale, other_scale)
    if location.shape != other_location.shape:
        return False
    room = ROUNDING * location.double().abs() + NEGLIGIBLE * scale.double()
    pairs = (location, other_location), (scale, other_scale)
    return all(((mine.double() - theirs).abs() <= room).all() for mine, theirs in pairs)
