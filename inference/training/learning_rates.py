"""Schedules of the learning rate."""

import math
from collections.abc import Callable, Mapping
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ..common.lookup import find_named

PLATEAU_EPOCHS = 10
"""After so many epochs without a new best validation loss, the schedule ``plateau`` lowers the
rate."""


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


RateSchedule = Callable[[Optimizer], LRScheduler]
"""The argument ``schedule`` of :func:`latente.inference.fit`."""


def _fall_on_plateaus(epochs: int) -> RateSchedule:
    # PyTorch lowers the rate in the epoch after ``patience`` of them without a new best. Its own
    # threshold, a share of the loss, would take slightly worse values for better ones where the
    # loss is negative, as with densities above 1.
    waited = PLATEAU_EPOCHS - 1
    return partial(ReduceLROnPlateau, patience=waited, threshold=0.0, threshold_mode="abs")


SCHEDULES: Mapping[str, Callable[[int], RateSchedule | None]] = {
    "hold-then-fall": hold_then_fall,
    "constant": lambda epochs: None,
    "plateau": _fall_on_plateaus,
}
"""Schedules by name, each made from the number of epochs; ``None`` for no schedule."""


def named_schedule(name: str, epochs: int, *, patience: int | None = None) -> RateSchedule | None:
    """The schedule of a name: the argument ``schedule`` of :func:`latente.inference.fit`.

    Args:
        name: one of :data:`SCHEDULES`.
        epochs: number of epochs of the whole fit.
        patience: that of the fit, which must be longer than a plateau.

    Raises:
        ValueError: if there is no schedule of that name, or the fit would stop before the rate ever
            falls.

    >>> named_schedule("plato", 50)
    Traceback (most recent call last):
    ValueError: there is no schedule 'plato': did you mean 'plateau'? there are hold-then-fall, ...
    """
    make = find_named(name, SCHEDULES, "schedule")
    if name == "plateau" and patience is not None and patience <= PLATEAU_EPOCHS:
        raise ValueError(
            f"the schedule plateau lowers the learning rate after {PLATEAU_EPOCHS} epochs without "
            f"a better validation loss, and with --patience {patience} the fit stops before: take "
            f"--patience {PLATEAU_EPOCHS + 1} or more"
        )
    return make(epochs)
