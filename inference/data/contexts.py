"""Contexts of a conditional model: labels, or flagged elements such as quadrants."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .source import Source


def given_elements(given: Any, source: Source) -> Tensor | None:
    """The flags of the given elements; ``None`` if labels or nothing is given."""
    if isinstance(given, str):
        if given != "labels":
            raise ValueError(f"given must be 'labels' or flags of elements, got {given!r}")
        if source.labels is None:
            raise ValueError(f"{source.name} has no labels that could be given")
    if given is None or isinstance(given, str):
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
