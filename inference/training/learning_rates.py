"""Schedules of the learning rate."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def hold_then_fall(epochs: int, hold: float = 0.6) -> Callable[[Optimizer], LambdaLR]:
    """A schedule: the full rate for a share of the epochs, then half a cosine down to zero.

    Args:
        epochs: number of epochs of the whole fit.
        hold: share of the epochs at the full rate.

    Returns:
        the argument ``schedule`` of :func:`latente.inference.fit`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> schedule = hold_then_fall(10)(optimizer)
    >>> schedule.get_last_lr()
    [0.1]
    """

    def factor(epoch: int) -> float:
        progress = (epoch / epochs - hold) / (1 - hold)
        return 0.5 * (1 + math.cos(math.pi * min(max(progress, 0), 1)))

    return lambda optimizer: LambdaLR(optimizer, factor)
