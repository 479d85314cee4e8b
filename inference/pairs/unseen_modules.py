"""Layers of a pair that differ in training and evaluation, and that cannot be switched."""

import contextlib
import warnings
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from .programs import Program, modules


@contextlib.contextmanager
def warning_of_unseen_modules(model: Program, guide: Program) -> Iterator[None]:
    """Warn of batch normalization and dropout that run here and are not found in the programs.

    They lie in a list, say, and stay in training mode: the figures of a datum would depend on the
    data beside it, and the running moments would be in no checkpoint.
    """
    seen = {id(part) for root in modules(model, guide).values() for part in root.modules()}
    unseen: set[str] = set()

    def look(part: nn.Module, inputs: object) -> None:
        if part.training and isinstance(part, _BatchNorm | _DropoutNd) and id(part) not in seen:
            unseen.add(type(part).__name__)

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
    if unseen:
        warnings.warn(
            f"the pair runs {', '.join(sorted(unseen))} in a module that cannot be found in its "
            "programs, so that it stays in training mode in evaluation, where the figures of a "
            "datum then depend on the other data or on chance, and its buffers are not saved: let "
            "the programs refer to the module by a name of its own, or be modules (an "
            "nn.ModuleList or nn.ModuleDict in place of a list or dict)",
            stacklevel=2,
        )
