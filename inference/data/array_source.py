"""Arrays as data: their levels and labels."""

from typing import Any

import numpy as np

from .arrays import check_numbers
from .labels import code_labels
from .source import Source, join_notes


def from_array(
    name: str, values: np.ndarray, labels: Any = None, note: str = "", *, are_images: bool = False
) -> Source:
    """Make a source of an array and its labels.

    ``uint8`` values above 1 are levels, to be divided by 255; so are ``uint16`` values of image
    files, by 65535. Other integers are left as they are.

    Args:
        note: how the array was read.
        are_images: whether the values come from image files.

    Raises:
        ValueError: if the array does not hold real numbers, or the labels are no classes.
    """
    if isinstance(labels, str):
        raise ValueError(
            f"{name} has no columns: labels={labels!r} names one; give an array instead"
        )
    check_numbers(values, name)
    if values.size == 0 and len(values):
        raise ValueError(f"{name} holds rows without values, of shape {values.shape}")
    divisor, levels = 1.0, ""
    is_level = values.dtype == np.uint8 or (are_images and values.dtype == np.uint16)
    if is_level and values.size > 0 and (largest := int(values.max())) > 1:
        divisor = float(np.iinfo(values.dtype).max)
        levels = f"levels of {8 * values.dtype.itemsize} bits, divided by {divisor:.0f}"
        if are_images and values.dtype == np.uint16:
            levels += f", of which the largest is {largest}"
    codes, names = code_labels(labels)
    return Source(name, values, codes, names, divisor=divisor, note=join_notes(note, levels))
