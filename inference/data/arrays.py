"""Convert data in memory to arrays, or refuse them in one line."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.arguments import name_rows
from .checks import rows_where

ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__buffer__")
"""Attributes by which an object gives NumPy its array."""


def is_table(values: Any) -> bool:
    """Whether the values are a DataFrame of pandas, Polars or Arrow; imports none of them."""
    is_other = hasattr(values, "to_pandas") and hasattr(values, "schema")
    return is_other or (hasattr(values, "select_dtypes") and not hasattr(values, "compute"))


def to_array(values: Any, name: str) -> np.ndarray:
    """Convert values to an array of numbers, in the processor's byte order.

    Args:
        values: an array or tensor, numbers in nested lists, or an object that is an array by
            NumPy's protocol (a Series, a JAX array). bfloat16 and smaller floats become float32.
        name: their name in an error.

    Raises:
        ValueError: if they are not an array (but, for example, a data set that is read item by
            item), have rows of unequal shapes or masked values, or are not real numbers.

    >>> to_array([[1.0, 2.0], [3.0, 4.0]], "data").shape
    (2, 2)
    >>> to_array([[1.0, 2.0], [3.0]], "data")
    Traceback (most recent call last):
    ValueError: data cannot be one array: its rows have unequal shapes, (2,) and (1,)
    """
    array = to_array_or_words(values, name)
    check_numbers(array, name)
    if array.dtype.itemsize > 8:  # torch has no longer floats than these
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_numbers(array: np.ndarray, name: str) -> None:
    """Refuse an array that does not hold real numbers, or holds a single one.

    Raises:
        ValueError: naming the type.
    """
    if array.dtype.kind not in "fiub":
        hint = _first_object(array) if array.dtype.kind == "O" else ""
        raise ValueError(f"{name} holds {array.dtype}, not numbers{hint}")
    if array.ndim == 0:
        raise ValueError(f"{name} holds a single number: give rows of data (N, *event_shape)")


def _first_object(array: np.ndarray) -> str:
    """The first of some objects that is no number, with its row and column, in words."""
    for place in np.ndindex(array.shape):
        value = array[place]
        if not isinstance(value, Real | np.bool_):
            column = f", column {', '.join(map(str, place[1:]))}" if len(place) > 1 else ""
            row = f"row {place[0]}{column}, counted from 0" if place else "it"
            return f" ({str(value)[:40]!r} in {row}): convert them, with .astype(float)"
    return ": convert them, with .astype(float)"


def to_array_or_words(values: Any, name: str) -> np.ndarray:
    """Convert values as :func:`to_array` does, also words and objects; for labels.

    Raises:
        ValueError: as :func:`to_array` does, except for the type.
    """
    if isinstance(values, Tensor):
        dense = to_tensor(values, name).detach().cpu()
        return dense.resolve_conj().resolve_neg().numpy()
    members = values if isinstance(values, list | tuple) else ()
    _check_is_array(values, members, name)
    _check_unmasked(values, members, name)
    try:
        return np.asarray(values)
    except Exception as error:  # NumPy passes on whatever an object's own conversion raises
        shapes = list(dict.fromkeys(np.shape(member) for member in members if _has_shape(member)))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if len(shapes) > 1:
            reason = f"its rows have unequal shapes, {shapes[0]} and {shapes[1]}"
        raise ValueError(f"{name} cannot be one array: {reason}") from error


def to_tensor(values: Tensor, name: str) -> Tensor:
    """Check for a dense tensor of real numbers; convert 8-bit floats and bfloat16 to float32.

    Raises:
        ValueError: if it is sparse, nested, masked, quantized or complex.
    """
    kind = next((word for word, flag in _unusable(values).items() if flag), None)
    if kind is not None:
        other = ", or load_data(x)" if kind == "sparse" else ""
        raise ValueError(f"{name} is a {kind} tensor: give a dense tensor of real numbers{other}")
    small = values.is_floating_point() and values.dtype not in _FLOATS
    return values.float() if small else values


_FLOATS = (torch.float16, torch.float32, torch.float64)


def _unusable(values: Tensor) -> dict[str, bool]:
    return {
        "masked": hasattr(values, "get_mask"),
        "nested": values.is_nested,
        "sparse": values.layout != torch.strided,
        "quantized": values.is_quantized,
        "complex": values.is_complex(),
        "meta": values.is_meta,
    }


def is_array_like(values: Any) -> bool:
    """Whether values are an array, numbers in nested lists, or an array by NumPy's protocol."""
    if isinstance(values, np.ndarray | np.generic | Tensor | Sequence | int | float):
        return True
    return any(hasattr(values, protocol) for protocol in ARRAY_PROTOCOLS)


def _check_is_array(values: Any, members: Sequence[Any], name: str) -> None:
    """Refuse objects that NumPy would read item by item, perhaps without end."""
    if not is_array_like(values):
        kind = type(values).__name__
        raise ValueError(f"{name} is of type {kind}, not an array: {_advice(values)}")
    for member in members:
        if hasattr(member, "__getitem__") and not is_array_like(member):
            kind = type(member).__name__
            raise ValueError(f"{name} holds items of type {kind}, not arrays: {_advice(member)}")


def _advice(other: Any) -> str:
    """What to do with an object that is no array, where data are given directly."""
    if hasattr(other, "toarray"):
        return "give its dense form, load_data(x) or x.toarray()"
    if isinstance(other, torch.utils.data.DataLoader):
        return "give load_data(loader.dataset), or join the x of each batch, with torch.cat"
    is_mapping = isinstance(other, Mapping)
    if is_mapping and other and all(hasattr(part, "features") for part in other.values()):
        parts = ", ".join(map(repr, other))
        return f"it holds the data sets {parts}, so give one of them, and another as test="
    if hasattr(other, "__len__") and hasattr(other, "__getitem__") and not is_mapping:
        return "give load_data(dataset), which reads it item by item"
    if isinstance(other, torch.utils.data.Dataset):
        return "it has no length, so join the x of each item into one tensor, with torch.stack"
    if hasattr(other, "collect") or hasattr(other, "compute"):
        return "it is lazy, so give what it comes to, .collect() or .compute()"
    return "give a tensor, an array or a DataFrame"


def _check_unmasked(values: Any, members: Sequence[Any], name: str) -> None:
    """Refuse masked values: NumPy would silently ignore the mask."""
    flags = [np.ma.is_masked(member) for member in members]
    if np.ma.is_masked(values) and np.ndim(values):
        flags = np.ma.getmaskarray(values)
    bad = rows_where(np.asarray(flags, dtype=bool))
    if len(bad):
        raise ValueError(
            f"there are masked values in {name}, in {name_rows(bad)}: missing values are not "
            "supported, so drop those rows or fill them"
        )


def _has_shape(values: Any) -> bool:
    try:
        np.shape(values)
    except ValueError:  # ragged itself
        return False
    return True
