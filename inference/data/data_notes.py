"""What is said of a data set once it is split: what was set aside, its parts, its levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .source import Source, join_notes

GREY_LEVELS = {255: 255, 65535: 65535}
"""Largest values of whole numbers of 8 and of 16 bits, with the scale that divides them."""


def describe_parts(parts: Sequence[np.ndarray]) -> str:
    """The sizes of the parts, in words.

    >>> describe_parts([np.arange(8), np.arange(0), np.arange(2)])
    '8 to fit, 2 to test'
    """
    words = ("to fit", "to validate", "to test")
    return ", ".join(
        f"{len(part)} {what}" for part, what in zip(parts, words, strict=True) if len(part)
    )


def describe_aside(
    source: Source, roles: Mapping[str, Any], context: Sequence[str], dropped: Sequence[str] = ()
) -> str:
    """The columns that are not modelled, with what each is for, in words.

    Args:
        roles: what was given for labels, groups, order and split; a name of a column or not.
        context: the columns that are the context of a conditional model.
        dropped: the columns that are of no use.
    """
    used: dict[str, list[str]] = {}
    for role, name in roles.items():
        is_column = isinstance(name, str) and (name in source.aside or role == "labels")
        if is_column:
            used.setdefault(name, []).append(role)
    for name in context:
        used.setdefault(name, []).append("context")
    listed = ", ".join(repr(name) for name in dropped)
    return join_notes(
        *(f"{name!r} is set aside as {' and '.join(what)}" for name, what in used.items()),
        f"{listed} dropped" if listed else "",
    )


def describe_groups(source: Source, groups: Any) -> str:
    """A note, where groups were given for the rows before the test set alone."""
    if groups is None or isinstance(groups, str) or not source.num_test:
        return ""
    if len(groups) == len(source.values):
        return ""
    return "the rows of the test set have no groups, so it may share some with the others"


def remark_on_levels(source: Source, largest: float) -> str:
    """A note on whole numbers that look like grey levels, and were not divided."""
    kind, divided = source.values.dtype, source.divisor != 1
    is_image = source.values.ndim > 2 and not source.columns
    if divided or kind.kind not in "iu" or kind == np.uint8:
        return ""
    wide = kind == np.uint16 and largest > 255
    if not wide and not (is_image and largest in GREY_LEVELS):
        return ""
    scale = 65535 if wide else GREY_LEVELS[int(largest)]
    return f"whole numbers up to {largest:g}: give scale={scale} if they are grey levels"
