"""Data that are given to a fitted pair are held against those of the fit."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pairs.programs import Program, WrappedProgram
from .arrays import is_table
from .load_data import Data
from .tables import from_table
from .transform import Transform, has_context

PROBED_ROWS = 1000
FACTOR = 2.0
"""Values beyond so many times the largest of the fit are levels that were not divided."""
FAR, NEAR = 30.0, 5.0
"""Standardized values are near 0. If the median size of an element is beyond the first number, and
that of the same values, standardized as in the fit, below the second, it was not standardized."""


def transform_of(data: Any) -> Transform | None:
    """How data to fit to were transformed; ``None`` where they are arrays as the model sees them.

    The columns of a DataFrame that is given directly are noted, of several those of the first.
    """
    if isinstance(data, Data):
        return data.transform
    tables = [part for part in _parts(data).values() if is_table(part)]
    if not tables:
        return None
    source = from_table("the DataFrame", tables[0])
    return Transform((len(source.columns),), columns=source.columns, dtypes=source.dtypes)


def _parts(data: Any) -> dict[Any, Any]:
    """The arguments among data, by position or by keyword."""
    if isinstance(data, Mapping):
        return dict(data)
    return dict(enumerate(data if type(data) is tuple else (data,)))


def remember_transform(guide: Program, transform: Transform | None) -> None:
    """Note how the data were transformed that a guide is fitted to; ``None``: not known.

    It is an attribute of the guide, so that a copy has it; of a guide with a private store, it is
    one of the run's guide.
    """
    with contextlib.suppress(AttributeError, TypeError):  # a method has no attributes
        object.__setattr__(guide, _ATTRIBUTE, transform)


_ATTRIBUTE = "_transform_of_fit"


def _remembered(guide: Program) -> Transform | None:
    while True:
        if _ATTRIBUTE in getattr(guide, "__dict__", {}):
            return getattr(guide, _ATTRIBUTE)
        if not isinstance(guide, WrappedProgram):
            return None
        guide = guide.program


def like_the_fit(guide: Program, data: Any, name: str) -> Any:
    """Data as the guide's fit had them: columns in the same order.

    Raises:
        ValueError: if they visibly were not transformed as those of the fit.
    """
    transform = _remembered(guide)
    return data if transform is None else like(transform, data, name)


def like(transform: Transform, data: Any, name: str) -> Any:
    """Data as those that were transformed: columns in the same order.

    Raises:
        ValueError: if they visibly were not transformed so.
    """
    if isinstance(data, Data):
        _check_same(transform, data)
        return data
    parts = _parts(data)
    tables = [place for place, part in parts.items() if is_table(part)]
    if tables:
        parts[tables[0]] = _align(transform, parts[tables[0]], name)
        if isinstance(data, Mapping):
            return parts
        return tuple(parts.values()) if type(data) is tuple else parts[0]
    x = parts.get(0)
    if isinstance(x, Tensor | np.ndarray) and len(x):
        _check_values(transform, torch.as_tensor(np.asarray(x[:PROBED_ROWS])), name)
    return data


_ADVICE = "give run.transform(new), or ask the run itself, as in run.log_evidence(new)"


def _align(transform: Transform, table: Any, name: str) -> Any:
    """The values of a table in the order of the fit's columns."""
    if not transform.columns and not transform.options.pixel_columns:
        return table
    done = _what_was_done(transform)
    if done:
        raise ValueError(
            f"{name} is a table as it was read, and the guide was fitted to data that were "
            f"{done}: {_ADVICE}"
        )
    return transform(table)[0]


def _what_was_done(transform: Transform) -> str:
    """What was done to values, in words; empty if they are as they were given."""
    done = {
        f"divided by {transform.divisor:g}": transform.divisor != 1,
        "standardized": transform.location is not None,
        "split into x and its context": has_context(transform),
        "binarized": transform.binarize != "none",
        "encoded by the kinds of columns": bool(transform.kinds),
        "shaped into pixels": transform.options.shape is not None,
    }
    return " and ".join(words for words, flag in done.items() if flag)


def _check_same(transform: Transform, data: Data) -> None:
    """Refuse a data set that was transformed in another way than that of the fit."""
    other = data.transform
    if transform.columns != other.columns:
        what = "columns" if set(transform.columns) != set(other.columns) else "order of columns"
    elif transform.divisor != other.divisor:
        what = "largest level"
    elif not _equal(transform.location, other.location) or not _equal(transform.scale, other.scale):
        what = "mean and standard deviation"
    elif transform.context_columns != other.context_columns:
        what = "context"
    elif transform.given == "labels" and transform.label_names != other.label_names:
        what = "numbering of labels"
    elif transform.kinds != other.kinds:
        what = "coding of columns"
    else:
        return
    raise ValueError(
        f"{data.name} was loaded with another {what} than the data of the fit: {_ADVICE}"
    )


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _check_values(transform: Transform, x: Tensor, name: str) -> None:
    """Refuse levels where the fit had them divided, and values far from any standardized ones."""
    # What is divided is about as large as in the fit; whole numbers above 1 never are.
    limit = max(1.0, FACTOR * transform.largest / transform.divisor if x.is_floating_point() else 1)
    if transform.divisor != 1 and x.numel() and x.max() > limit:
        raise ValueError(
            f"{name} holds levels up to {x.max():g}, and the guide was fitted to levels divided by "
            f"{transform.divisor:g}: {_ADVICE}"
        )
    location, scale = transform.of_x(transform.location), transform.of_x(transform.scale)
    if location is None or scale is None or x.shape[1:] != location.shape:
        return
    sizes = x.double().abs().median(0).values
    inside = ((x - location) / scale).abs().median(0).values < NEAR
    if ((sizes > FAR) & inside).any():
        raise ValueError(
            f"{name} was not standardized (half of its values are beyond ±{sizes.max():.3g}), and "
            f"the data of the fit were: {_ADVICE}"
        )


def refuse_standardized(transform: Transform, x: Any) -> None:
    """Refuse arrays that are standardized already, where those of the fit were given raw.

    They have a mean near 0 and a standard deviation near 1, and have them no more if they are
    standardized as the fit's data were; or, of few rows, are then far from 0 and were not before.

    Raises:
        ValueError: if they look so.
    """
    location, scale = transform.of_x(transform.location), transform.of_x(transform.scale)
    if location is None or scale is None or not isinstance(x, Tensor | np.ndarray) or not len(x):
        return
    given = torch.as_tensor(np.asarray(x[:PROBED_ROWS])).double()
    if given.shape[1:] != location.shape:
        return
    again = (given - location) / scale
    sizes = (given.abs().median(0).values, again.abs().median(0).values)
    twice = bool(((sizes[0] < NEAR) & (sizes[1] > NEAR)).any())
    if len(given) >= ENOUGH_ROWS:
        twice = twice or (_is_standard(given) and not _is_standard(again))
    if twice:
        raise ValueError(
            "the data are standardized already, and a run standardizes what it is given: give them "
            "raw, or call the function itself, as in log_evidence(run.model, run.guide, x)"
        )


ENOUGH_ROWS = 10
"""Rows from which a mean and a standard deviation say something."""


def _is_standard(x: Tensor) -> bool:
    sd = x.std(0)
    return bool((x.mean(0).abs() < 1).all() and (sd > 0.4).all() and (sd < 2.5).all())
