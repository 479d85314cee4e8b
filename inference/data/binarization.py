"""Binarization of data: fixed bits of each row, drawn from the seed and the row's number."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..common.arguments import name_rows
from .checks import rows_where


def check_unit_interval(
    values: np.ndarray, name: str, first_row: int = 0, *, is_new: bool = False
) -> None:
    """Refuse to binarize values outside [0, 1].

    Args:
        values: rows of values.
        name: their name in an error.
        first_row: the number of the first of them.
        is_new: whether they are new data of a fit, whose options cannot change any more.

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    bad = rows_where((values < 0) | (values > 1))
    if len(bad):
        advice = "rescale them, or leave binarize out (on the command line, take vae-normal)"
        if is_new:
            advice = "rescale them as the data of the fit were"
        raise ValueError(
            f"{name} cannot be binarized: values outside [0, 1] in {name_rows(bad + first_row)}; "
            f"{(not is_new and advise_scale(values)) or advice}"
        )


def advise_scale(values: np.ndarray) -> str:
    """How to divide values that are levels, whole numbers from 0; empty if they are not.

    >>> advise_scale(np.array([0, 17, 254]))
    'whole numbers up to 254 are levels: divide them, scale=255'
    >>> advise_scale(np.array([0.5, 17.0])), advise_scale(np.array([-1, 17]))
    ('', '')
    """
    largest = values.max(initial=0)
    if largest <= 1 or values.min() < 0 or (values != np.floor(values)).any():
        return ""
    # Levels of 8 and of 16 bits seldom lack the upper half; others are divided by the largest.
    scale = next((full for full in (255, 65535) if full / 2 < largest <= full), largest)
    return f"whole numbers up to {largest:g} are levels: divide them, scale={scale:g}"


Binarization = Literal["none", "static", "dynamic"]


def binarize_parts(
    rows: list[Tensor], parts: list[np.ndarray], binarize: Binarization | None, seed: int
) -> list[Tensor]:
    """Draw fixed bits of each part; with dynamic binarization, of all but the first."""
    if binarize not in ("static", "dynamic"):
        return rows
    kept = 1 if binarize == "dynamic" else 0
    bits = [
        draw_bits(part, index, seed) for part, index in zip(rows[kept:], parts[kept:], strict=True)
    ]
    return [*rows[:kept], *bits]


def draw_bits(probabilities: Tensor, index: np.ndarray, seed: int) -> Tensor:
    """Draw each value's bit from the seed and the row's number.

    So the bits of a row are the same in memory and streamed, in any order and in any part.
    """
    size = math.prod(probabilities.shape[1:])
    noise = np.empty((len(index), size), dtype=np.float32)
    for position, row in enumerate(index):
        counter = np.random.Philox(key=seed, counter=[0, int(row), 0, 0])
        noise[position] = np.random.Generator(counter).random(size, dtype=np.float32)
    uniform = torch.from_numpy(noise).reshape(probabilities.shape)
    return (uniform < probabilities).to(probabilities.dtype)
