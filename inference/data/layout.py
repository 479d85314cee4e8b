"""The layout of images: their channels first, as networks take them, or last."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

Layout = Literal["channels_first", "channels_last"]

NUM_CHANNELS = (1, 3, 4)
"""Numbers of channels of an image: grey, colour, colour with transparency."""


def find_layout(event_shape: Sequence[int], layout: Layout | None, name: str) -> Layout:
    """Find where the channels of an image are, by its shape.

    Args:
        event_shape: the shape of a datum; one of three dimensions may be an image with channels.
        layout: the layout, if it is known.
        name: of the data, in an error.

    Raises:
        ValueError: if both the first and the last dimension may be channels; or if the layout is
            unknown, or is given for data without channels.

    >>> find_layout((32, 32, 3), None, "x"), find_layout((3, 32, 32), None, "x")
    ('channels_last', 'channels_first')
    """
    if layout is not None:
        if layout not in get_args(Layout):
            raise ValueError(f"layout must be 'channels_first' or 'channels_last', got {layout!r}")
        if len(event_shape) != 3 and layout == "channels_last":
            raise ValueError(f"{name} has rows of shape {tuple(event_shape)}, without channels")
        return layout
    if len(event_shape) != 3 or event_shape[-1] not in NUM_CHANNELS:
        return "channels_first"
    if event_shape[0] in NUM_CHANNELS:
        raise ValueError(
            f"rows of {name} have shape {tuple(event_shape)}, of which the first and the last may "
            "be the channels: give layout='channels_first' or layout='channels_last'"
        )
    return "channels_last"


def channels_first(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Rows (N, H, W, C) of the layout "channels_last" as (N, C, H, W); other rows as they are."""
    return np.moveaxis(values, -1, 1) if layout == "channels_last" else values


def channels_last(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Undo :func:`channels_first`."""
    return np.moveaxis(values, 1, -1) if layout == "channels_last" else values
