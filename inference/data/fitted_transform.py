"""Data that are given to a fitted pair are held against those of the fit."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Never

import numpy as np
import torch
from torch import Tensor

from ..pairs.calling import AdaptedProgram
from ..pairs.programs import Program, WrappedProgram
from .arrays import is_array_like, is_table, to_array
from .known_rows import transform_of_rows
from .known_tables import align_tables
from .likeness import check_label_range
from .load_data import Data
from .same_transform import difference
from .tables import from_table
from .transform import Transform, has_context
from .vocabulary import check_tokens

PROBED_ROWS = 1000
FACTOR = 2.0
"""Values beyond so many times the largest of the fit are levels that were not divided."""
FAR, NEAR = 30.0, 5.0
"""Standardized values are near 0. If the median size of an element is beyond the first number, and
that of the same values, standardized as in the fit, below the second, it was not standardized."""


def transform_of(data: Any, model: Program | None = None, rows: Any = None) -> Transform | None:
    """How data to fit to were transformed; ``None`` where they are arrays as the model sees them.

    The columns of DataFrames that are given directly are noted, by argument. Those of draws are the
    columns of the argument that the model observes, the y of ``model(X, y)``.

    Args:
        model: the model as :func:`open_pair` returns it, where it has been opened.
        rows: x as the model sees it, (N, *event_shape).
    """
    if isinstance(data, Data):
        return data.transform
    parts = _parts(data)
    tables = {
        str(place): from_table("the DataFrame", part)
        for place, part in parts.items()
        if is_table(part)
    }
    if not tables:
        return None
    columns = {place: source.columns for place, source in tables.items()}
    x = next(iter(tables.values())) if rows is None else tables.get(_place_of_x(model, parts))
    shape = tuple(rows.shape[1:]) if rows is not None else (len(columns[next(iter(columns))]),)
    if x is None or shape != (len(x.columns),):  # rows along columns, or one datum of all rows
        return Transform(shape, argument_columns=columns)
    return Transform(shape, columns=x.columns, dtypes=x.dtypes, argument_columns=columns)


def _place_of_x(model: Program | None, parts: Mapping[Any, Any]) -> str:
    """The position or keyword of the argument that the model observes."""
    if isinstance(model, AdaptedProgram):
        for number, argument in enumerate(model.calling.arguments):
            if argument.row == 0:
                return str(number if argument.keyword is None else argument.keyword)
    return str(next(iter(parts)))


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


def has_sequences(guide: Program | None, data: Any) -> bool:
    """Whether data are sequences of :func:`load_data`, or the guide was fitted to such."""
    if isinstance(data, Data):
        return data.transform.has_lengths
    fitted = None if guide is None else _remembered(guide)
    return fitted is not None and fitted.has_lengths


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
        _check_same(transform, data.transform, data.name)
        return data
    parts, by_keyword = _parts(data), isinstance(data, Mapping)
    tables = [place for place, part in parts.items() if is_table(part)]
    if not transform.argument_columns:  # it is of load_data
        _check_arrays(transform, parts, name)
        if tables:
            parts[tables[0]] = _align(transform, parts[tables[0]], name)
    elif tables:
        parts = align_tables(transform.argument_columns, parts, name, by_keyword=by_keyword)
    if not tables or by_keyword:
        return parts if tables else data
    return tuple(parts.values()) if type(data) is tuple else parts[0]


_ADVICE = "give run.transform(new), or ask the run itself, as in run.log_evidence(new)"


def _align(transform: Transform, table: Any, name: str) -> Any:
    """The values of a table in the order of the columns that were loaded."""
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
        "split into x and its context": has_context(transform) and not transform.has_lengths,
        "binarized": transform.binarize != "none",
        "encoded by the kinds of columns": bool(transform.kinds),
        "shaped into pixels": transform.options.shape is not None,
    }
    return " and ".join(words for words, flag in done.items() if flag)


def _check_same(transform: Transform, other: Transform, name: str) -> None:
    """Refuse data that were transformed in another way than those of the fit."""
    what = difference(transform, other)
    if what:
        raise ValueError(f"{name} was loaded with {what} than the data of the fit: {_ADVICE}")


def _check_arrays(transform: Transform, parts: dict[Any, Any], name: str) -> None:
    """Refuse arrays that visibly were not transformed, among the arguments that may be x.

    By position, x is the first; by keyword, it may be any that has the shape of x.
    """
    place_of_labels = 2 if transform.has_lengths else 1
    if transform.given == "labels" and place_of_labels in parts:
        labels = _head(parts[place_of_labels], None)
        if labels is not None and labels.dim() == 1 and not labels.is_floating_point():
            where = f"context {place_of_labels} of {name}"
            check_label_range(labels.numpy(), transform.label_range, where)
    for place, part in parts.items():
        if place == 0 or isinstance(place, str):
            head = _head(part)
            if head is None or (place != 0 and head.shape[1:] != _shape_of_x(transform)):
                continue
            known = transform_of_rows(part)
            if known is None:
                _check_values(transform, head, name if place == 0 else f"{place!r} of {name}")
            else:
                _check_same(transform, known, name if place == 0 else f"{place!r} of {name}")


def _shape_of_x(transform: Transform) -> tuple[int, ...]:
    flags = transform.given_flags
    return transform.seen_shape if flags is None else (int((~flags).sum()),)


def _head(values: Any, num: int | None = PROBED_ROWS) -> Tensor | None:
    """The first rows of an array, or of what is read like one; ``None`` if it is none."""
    if is_table(values) or not is_array_like(values) or isinstance(values, str):
        return None
    is_array = isinstance(values, Tensor | np.ndarray) and values.ndim > 0
    some = values[:num] if is_array or isinstance(values, list) else values
    with contextlib.suppress(ValueError):  # it is refused where it is read
        head = torch.from_numpy(to_array(some, "x")[:num].copy())
        return head if len(head) else None
    return None


def _check_values(transform: Transform, x: Tensor, name: str) -> None:
    """Refuse levels where the fit had them divided, and values far from any standardized ones."""
    if transform.vocabulary is not None:
        check_tokens(x.numpy(), len(transform.vocabulary), name)
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


def refuse_transformed(transform: Transform, x: Any) -> None:
    """Refuse rows that were transformed already, where a run transforms what it is given.

    The parts of a data set of :func:`load_data` are known; of others the transform looks at the
    values.

    Raises:
        ValueError: if they are known to be.
    """
    known = transform_of_rows(x)
    if known is not None and not difference(transform, known):
        done = _done_to_values(transform)
        if done:
            _refuse_twice(done)
        return


def _done_to_values(transform: Transform) -> str:
    """What was done that must not be done twice, in words."""
    kept = replace(transform, given=None, given_flags=None, context_columns=(), binarize="none")
    return _what_was_done(replace(kept, options=replace(kept.options, shape=None)))


def _refuse_twice(done: str) -> Never:
    raise ValueError(
        f"the data are {done} already, as the run does it to what it is given: give them raw, or "
        "call the function itself, as in log_evidence(run.model, run.guide, x)"
    )
