"""Binarization of data: fixed bits of each row, drawn from the seed and the row's number."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..common.arguments import name_rows
from .checks import rows_where


def check_unit_interval(values: np.ndarray, name: str, first_row: int = 0) -> None:
    """Refuse to binarize values outside [0, 1].

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    bad = rows_where((values < 0) | (values > 1))
    if len(bad):
        raise ValueError(
            f"{name} cannot be binarized: values outside [0, 1] in {name_rows(bad + first_row)}; "
            "rescale them, or leave binarize out (on the command line, take vae-normal)"
        )


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
