"""Whether new data are like those of a fit: their columns, shape, levels and labels."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..common.lookup import did_you_mean
from .checks import check_finite, name_columns
from .source import Source

MOST_ONES = 0.1
"""With a larger share of ones, several rows of bytes 0 and 1 are bits, and no levels."""


def align_columns(source: Source, columns: Sequence[str]) -> Source:
    """Bring the columns of a table into an order, by their names.

    An array has no names, and its columns are taken in the order that they have.

    Raises:
        ValueError: naming columns that are missing, or that are not among those asked for.
    """
    if not columns or not source.columns or source.columns == tuple(columns):
        return source
    missing = [name for name in columns if name not in source.columns]
    other = [name for name in source.columns if name not in columns]
    if missing:
        near = did_you_mean(missing[0], other) if len(other) > 1 else ""
        raise ValueError(
            f"{source.name} lacks {name_columns(missing)} of the data of the fit"
            f"{f', and has {name_columns(other)}' if other else ''}{near and f': {near}'}"
        )
    if other:
        raise ValueError(
            f"{source.name} has {name_columns(other)}, which the data of the fit had not: drop "
            f"{'it' if len(other) == 1 else 'them'}"
        )
    if len(source.columns) != len(columns):
        raise ValueError(f"{source.name} has columns of equal names: rename all but one")
    order = [source.columns.index(name) for name in columns]
    dtypes = tuple(source.dtypes[place] for place in order) if source.dtypes else ()
    return replace(source, values=source.values[:, order], columns=tuple(columns), dtypes=dtypes)


def check_label_range(labels: np.ndarray, known: tuple[int, int] | None, name: str) -> None:
    """Refuse whole numbers as labels that are below or above all those of the fit.

    Args:
        labels: (N,).
        known: the least and the greatest of the fit; ``None``: they are not known.

    Raises:
        ValueError: naming a label and its row.
    """
    if known is None or not len(labels):
        return
    bad = np.flatnonzero((labels < known[0]) | (labels > known[1]))
    if len(bad):
        raise ValueError(
            f"{name} has the label {labels[bad[0]]} in row {bad[0]}, and those of the fit were "
            f"from {known[0]} to {known[1]}"
        )


def codes_like(
    source: Source, names: Sequence[str], known: tuple[int, int] | None = None
) -> Source:
    """Number labels as those of the fit, by their words.

    Args:
        source: the new data.
        names: the words of the fit's labels.
        known: the least and the greatest label of the fit, where new ones must not be beyond.

    Raises:
        ValueError: naming a label that the fit had not, or if only one of the two are words.
    """
    if source.labels is None:
        return source
    if source.label_names == tuple(names):
        check_label_range(source.labels, known, source.name)
        return source
    if bool(names) != bool(source.label_names):
        kinds = ("words", "numbers") if names else ("numbers", "words")
        raise ValueError(f"labels were {kinds[0]} in the fit, and are {kinds[1]} in {source.name}")
    unknown = [name for name in source.label_names if name not in names]
    if unknown:
        raise ValueError(
            f"{source.name} has the label {unknown[0]!r}, which the data of the fit had not: they "
            f"had {', '.join(map(repr, names[:10]))}{', …' if len(names) > 10 else ''}"
        )
    places = np.array([list(names).index(name) for name in source.label_names])
    return replace(source, labels=places[source.labels], label_names=tuple(names))


def check_rows(source: Source) -> None:
    """Refuse a source without rows, with other numbers of labels, or with values not finite."""
    if len(source.values) == 0:
        raise ValueError(f"{source.name} holds no rows")
    if source.labels is not None and len(source.labels) != len(source.values):
        raise ValueError(
            f"{source.name} has {len(source.values)} rows but {len(source.labels)} labels"
        )
    check_finite(source.values, source.name, 0, source.columns)


def check_shape(
    source: Source,
    event_shape: tuple[int, ...],
    seen: tuple[int, ...],
    *,
    is_padded: bool = False,
) -> None:
    """Refuse rows of another shape than those of the fit, given or with their channels first.

    Args:
        is_padded: whether the rows are sequences, of which the elements alone must be alike.
    """
    shape = tuple(source.values.shape[1:])
    if is_padded:
        if shape[1:] != event_shape[1:]:
            raise ValueError(
                f"elements of the sequences of {source.name} have shape {shape[1:]}, and those of "
                f"the fit {event_shape[1:]}"
            )
        return
    if shape not in (event_shape, seen):
        raise ValueError(
            f"rows of {source.name} have shape {shape}, and those of the fit {event_shape}"
        )


def check_levels(source: Source, divisor: float, largest: float, dtypes: Sequence[str]) -> None:
    """Refuse values that are levels in the fit but not in the new data, or the other way round.

    Args:
        source: the new data.
        divisor: the divisor of the fit's values.
        largest: the largest absolute value of the fit, before its division.
        dtypes: the types of the fit's values.
    """
    # Digits, whose levels are whole, are kept as floats; other floats may be divided too.
    whole = largest == divisor or all(np.dtype(name).kind in "iub" for name in dtypes)
    values = source.values
    if divisor == 1:
        if source.divisor != 1 and largest <= 1:
            raise ValueError(
                f"{source.name} holds {values.dtype} up to {values.max()}, and the data of the fit "
                f"{dtypes[0]} up to {largest:g}: divide it as those were"
            )
        return
    # Fractions, or nothing beyond 1, are values that were divided already, or bits.
    fractions = values.dtype.kind == "f" and not np.array_equal(values, np.floor(values))
    few = values.size and 0 < values.max() <= 1
    seems_black = len(values) == 1 or (values > 0).mean() < MOST_ONES
    if few and seems_black and values.dtype == np.uint8 and dtypes == ("uint8",):
        warnings.warn(
            f"{source.name} holds bytes up to 1, taken for levels as in the fit, divided by "
            f"{divisor:g}, so it is almost black: if they are bits, multiply them by {divisor:g}",
            stacklevel=2,
        )
        few = False
    if whole and (fractions or few):
        raise ValueError(
            f"{source.name} holds {values.dtype} up to {values.max():g}, and the data of the fit "
            f"were levels up to {largest:g}, divided by {divisor:g}: give levels; or give what the "
            "model sees to functions of (model, guide, x)"
        )
    limit = max(divisor, largest)
    if whole and np.abs(values).max() > limit:
        raise ValueError(
            f"{source.name} holds levels from {values.min():g} to {values.max():g}, beyond the "
            f"{limit:g} of the fit"
        )
