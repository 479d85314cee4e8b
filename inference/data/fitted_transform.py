"""Data that are given to a fitted pair are held against those of the fit."""

import contextlib
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..pairs.programs import Program, unwrapped
from .arrays import is_table
from .load_data import Data
from .tables import from_table
from .transform import Transform, has_context

PROBED_ROWS = 1000
FAR, NEAR = 30.0, 5.0
"""Standardized values are near 0. If the median size of an element is beyond the first number, and
that of the same values, standardized as in the fit, below the second, it was not standardized."""

_FITTED: WeakKeyDictionary[Any, Transform] = WeakKeyDictionary()


def transform_of(data: Any) -> Transform | None:
    """How data to fit to were transformed; ``None`` where they are arrays as the model sees them.

    The columns of a DataFrame that is given directly are noted.
    """
    if isinstance(data, Data):
        return data.transform
    x = data[0] if isinstance(data, tuple) and data else data
    if not is_table(x):
        return None
    source = from_table("the DataFrame", x)
    return Transform((len(source.columns),), columns=source.columns, dtypes=source.dtypes)


def remember_transform(guide: Program, transform: Transform | None) -> None:
    """Note how the data were transformed that a guide is fitted to; ``None``: not known."""
    with contextlib.suppress(TypeError):  # no weak reference to it
        _FITTED.pop(unwrapped(guide), None)
        if transform is not None:
            _FITTED[unwrapped(guide)] = transform


def like_the_fit(guide: Program, data: Any, name: str) -> Any:
    """Data as the guide's fit had them: columns in the same order.

    Raises:
        ValueError: if they visibly were not transformed as those of the fit.
    """
    try:
        transform = _FITTED.get(unwrapped(guide))
    except TypeError:  # no weak reference to it
        return data
    if transform is None:
        return data
    if isinstance(data, Data):
        _check_same(transform, data)
        return data
    x, *rest = data if isinstance(data, tuple) and data else (data,)
    if is_table(x):
        x = _align(transform, x, name)
        return (x, *rest) if isinstance(data, tuple) else x
    if isinstance(x, Tensor | np.ndarray):
        _check_values(transform, torch.as_tensor(np.asarray(x[:PROBED_ROWS])), name)
    return data


_ADVICE = "give run.transform(new), or ask the run itself, as in run.log_evidence(new)"


def _align(transform: Transform, table: Any, name: str) -> Any:
    """The values of a table in the order of the fit's columns."""
    if not transform.columns:
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
    if transform.divisor != 1 and not x.is_floating_point() and x.numel() and x.max() > 1:
        raise ValueError(
            f"{name} holds levels up to {x.max()}, and the guide was fitted to levels divided by "
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
