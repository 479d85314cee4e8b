"""Optimizers by name."""

import difflib
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.optim import Optimizer

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True, weight_decay=0.0),
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}
"""Optimizers by name."""


def named_optimizer(name: str, *, weight_decay: float = 0.0) -> Callable[..., Optimizer]:
    """The optimizer of that name, as :func:`fit` takes it for ``optimizer``.

    Raises:
        ValueError: if there is no optimizer of that name, or the decay is negative.
    """
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name.lower(), OPTIMIZERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(OPTIMIZERS)}"
        raise ValueError(f"there is no optimizer {name!r}: {hint}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a number of at least 0, got {weight_decay}")
    return (
        partial(OPTIMIZERS[name], weight_decay=weight_decay) if weight_decay else OPTIMIZERS[name]
    )
