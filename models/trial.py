"""A trial run of modules, to see whether they fit, that leaves no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def trial(*modules: nn.Module) -> Iterator[None]:
    """Run modules in evaluation mode, without gradients; modes and random state are then restored.

    >>> layer = nn.Dropout()
    >>> with trial(layer):
    ...     layer.training, torch.is_grad_enabled()
    (False, False)
    >>> layer.training
    True
    """
    modes = {part: part.training for module in modules for part in module.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng():
            for module in modules:
                module.eval()
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
