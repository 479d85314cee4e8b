"""Contexts of a conditional model: labels, or flagged elements such as quadrants."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.arguments import name_rows
from .checks import name_columns
from .some_labels import SOME_LABELS, UNKNOWN
from .source import Source


@dataclass(frozen=True)
class ContextColumn:
    """A column of a table that is given as context: numbers standardized, words as flags."""

    name: str
    categories: tuple[str, ...] = ()
    """The words, if it holds words."""
    location: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        return len(self.categories) or 1

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        """The column as numbers (N, width).

        Raises:
            ValueError: if a value is missing, is a word that the fit had not, or is no number.
        """
        _check_complete(values, f"column {self.name!r} of {name}")
        if not self.categories:
            try:
                numbers = values.astype(np.float64)
            except (TypeError, ValueError):
                raise ValueError(
                    f"column {self.name!r} of {name} held numbers in the fit, and now words"
                ) from None
            return ((numbers - self.location) / self.scale)[:, None].astype(np.float32)
        words = values.astype(str)
        unknown = sorted(set(words.tolist()) - set(self.categories))
        if unknown:
            raise ValueError(
                f"column {self.name!r} of {name} has {unknown[0]!r}, which the data of the fit had "
                "not"
            )
        return (words[:, None] == np.array(self.categories)).astype(np.float32)


def _check_complete(values: np.ndarray, name: str) -> None:
    missing = np.array([row for row, v in enumerate(values.tolist()) if v is None or v != v])
    if len(missing):
        raise ValueError(f"{name} has missing values in {name_rows(missing)}: drop those rows")


def context_names(given: Any) -> tuple[str, ...]:
    """The names of the columns that are given, if it is columns that are."""
    if isinstance(given, str):
        return () if given in ("labels", SOME_LABELS) else (given,)
    is_names = isinstance(given, list | tuple) and given and all(isinstance(n, str) for n in given)
    return tuple(given) if is_names else ()


def fit_context_columns(
    source: Source, names: Sequence[str], rows: np.ndarray
) -> tuple[ContextColumn, ...]:
    """Find how columns become a context: their words, or the mean and deviation of training rows.

    Raises:
        ValueError: if a value is missing, a word is not among the training rows, or a column of
            numbers is constant in them.
    """
    if names and not source.columns:
        raise ValueError(
            f"given must be 'labels', columns of a table or flags of elements, and {source.name} "
            f"is no table with a column {names[0]!r}"
        )
    found = []
    for name in names:
        values = source.aside[name]
        _check_complete(values, f"column {name!r} of {source.name}")
        if values.dtype.kind in "mM":
            raise ValueError(
                f"column {name!r} of {source.name} holds dates or durations, which are no context: "
                "convert it to a number, such as of days, or to words, with .astype(str)"
            )
        if values.dtype.kind in "fiub" or all(isinstance(v, Real | Decimal) for v in values):
            numbers = values[rows].astype(np.float64)
            if not numbers.std() > 0:
                raise ValueError(f"column {name!r} of {source.name} is constant: it tells nothing")
            found.append(ContextColumn(name, (), float(numbers.mean()), float(numbers.std())))
        else:
            words = tuple(sorted(set(values[rows].astype(str).tolist())))
            if len(words) > MAX_WORDS:
                raise ValueError(
                    f"column {name!r} of {source.name} has {len(words)} words, too many for a "
                    f"context: at most {MAX_WORDS}"
                )
            found.append(ContextColumn(name, words))
    return tuple(found)


def encode_context(
    source: Source, rows: np.ndarray, given: str | None, columns: Sequence[ContextColumn]
) -> tuple[Tensor, ...]:
    """The context of some rows that does not come from elements of x: labels, or columns.

    Args:
        given: "labels", if those are given.
        columns: the columns that are given.

    Raises:
        ValueError: if the source has no labels, or lacks a column.
    """
    if given == SOME_LABELS:
        unknown = np.full(len(rows), UNKNOWN)
        return (torch.as_tensor(unknown if source.labels is None else source.labels[rows]),)
    if given == "labels":
        if source.labels is None:
            raise ValueError(
                f"the model is given labels, and {source.name} has none: give them as labels "
                "beside an array, or in the file, as y of an .npz"
            )
        return (torch.as_tensor(source.labels[rows]),)
    if not columns:
        return ()
    lacking = [column.name for column in columns if column.name not in source.aside]
    if lacking:
        raise ValueError(f"{source.name} lacks {name_columns(lacking)}, which the model is given")
    parts = [column.encode(source.aside[column.name][rows], source.name) for column in columns]
    return (torch.from_numpy(np.concatenate(parts, 1)),)


MAX_WORDS = 1000
"""Largest number of different words in a column that is given."""


def given_elements(given: Any, source: Source) -> Tensor | None:
    """The flags of the given elements; ``None`` if labels or nothing is given."""
    if isinstance(given, str) and given == "labels" and source.labels is None:
        raise ValueError(f"{source.name} has no labels that could be given")
    if given is None or isinstance(given, str) or context_names(given):
        return None
    shape = source.values.shape[1:]
    mask = torch.as_tensor(given(shape) if callable(given) else given)
    if mask.dtype != torch.bool or mask.shape != shape or not 0 < mask.sum() < mask.numel():
        raise ValueError(
            "given must flag some elements of a datum, not all, by booleans of shape "
            f"{tuple(shape)}; got {mask.sum().item():g} flags of shape {tuple(mask.shape)} and "
            f"{mask.dtype}"
        )
    return mask


def quadrants(event_shape: Sequence[int], num: int) -> Tensor:
    """Flag the quadrants of an image that are given, as in Sohn, Lee and Yan (2015).

    Args:
        event_shape: (…, H, W).
        num: 1, the lower left; 2, the left half; 3, all but the upper right.

    Raises:
        ValueError: if ``num`` is not 1, 2 or 3, or the shape is not that of an image.

    >>> quadrants((4, 4), 1).int()
    tensor([[0, 0, 0, 0],
            [0, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 0, 0]], dtype=torch.int32)
    """
    if num not in (1, 2, 3) or len(event_shape) < 2:
        raise ValueError(
            f"1, 2 or 3 quadrants of an image (…, H, W) can be given, not {num} of "
            f"{tuple(event_shape)}"
        )
    height, width = event_shape[-2] // 2, event_shape[-1] // 2
    flags = torch.zeros(*event_shape, dtype=torch.bool)
    flags[..., height:, :width] = True
    if num > 1:
        flags[..., :width] = True
    if num > 2:
        flags[..., height:, :] = True
    return flags
