"""Whether values that are read fit into memory."""

import math

import psutil

MEMORY_SHARE = 0.25
"""Share of the available memory that values may fill: splitting takes up to four times that."""


def check_memory(name: str, shape: tuple[int, ...], itemsize: int, advice: str) -> None:
    """Refuse values that would fill too much of the memory, before it is taken.

    Args:
        name: of the data, in the error.
        shape: the shape of the values.
        itemsize: the bytes of a value; fewer than 4 become float32.
        advice: what to do instead.

    Raises:
        ValueError: with the size of the values and the available memory.
    """
    size = math.prod(shape) * max(itemsize, 4)
    available = psutil.virtual_memory().available
    if size > MEMORY_SHARE * available:
        raise ValueError(
            f"{name}, {tuple(shape)}, would fill {size / 2**30:.3g} GiB, more than "
            f"{MEMORY_SHARE:.0%} of the {available / 2**30:.3g} GiB of memory that are "
            f"available: {advice}"
        )
