"""The trainable tensors of a pair, and the device and dtype of its data."""

import contextlib
import warnings
from typing import Any
from weakref import WeakSet

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from .programs import Program, StoredProgram, evaluation_mode, modules, private_store, unwrapped

_FITTED: WeakSet[Any] = WeakSet()
"""Functions that were fitted; the values of their ``pyro.param`` statements are in their runs."""


def parameters(model: Program, guide: Program, args: tuple[Any, ...]) -> dict[str, Tensor]:
    """Find all trainable tensors of a pair, unconstrained, by name, each once.

    Parameters of modules are named ``model.…`` and ``guide.…``; those that only Pyro's store has,
    ``param.…``. The pair is run once on ``args`` to find its ``pyro.param`` and ``pyro.module``
    statements, so call this function inside :func:`private_store`.
    """
    named: dict[str, Tensor] = {}
    for role, module in modules(model, guide).items():
        named |= {f"{role}.{name}": value for name, value in module.named_parameters()}
    stated = stated_parameters(model, guide, args)
    named |= {f"param.{name}": value for name, value in stated.items()}
    unique: dict[int, str] = {}
    for name, value in named.items():
        if value.requires_grad:
            unique.setdefault(id(value), name)
    return {name: named[name] for name in unique.values()}


def stated_parameters(model: Program, guide: Program, args: tuple[Any, ...]) -> dict[str, Tensor]:
    """Find the parameters that a pair states to Pyro, unconstrained, by their names in its store.

    The pair is run once on ``args``, so call this function inside :func:`private_store`.
    """
    with (
        torch.no_grad(),
        evaluation_mode(model, guide),
        poutine.trace(param_only=True) as captured,
    ):
        trace = poutine.trace(guide).get_trace(*args)
        poutine.replay(model, trace=trace)(*args)
    values: dict[str, Any] = {n: site.get("value") for n, site in captured.trace.nodes.items()}
    # PyroModules state a module's parameters as they are, pyro.param as constrained ones.
    return {
        name: getattr(value, "unconstrained", lambda value=value: value)()
        for name, value in values.items()
    }


def remember_fitted(*programs: Program) -> None:
    """Note programs whose fitted parameters are kept beside them, in a run."""
    for program in map(unwrapped, programs):
        if not isinstance(program, nn.Module):
            with contextlib.suppress(TypeError):  # no weak reference to it
                _FITTED.add(program)


def warn_of_initial_values(model: Program, guide: Program, rows: tuple[Any, ...]) -> None:
    """Warn of a program that was fitted, and is given with its parameters' initial values."""
    known = set(pyro.get_param_store().keys())  # by a fit in Pyro itself, say
    for role, program in (("model", model), ("guide", guide)):
        if not _is_bare(program):
            continue
        with private_store(), torch.no_grad(), torch.random.fork_rng():
            args = place_all(model, guide, rows)
            run = program
            if role == "model":  # at the guide's draws: a prior need not have any
                run = poutine.replay(model, trace=poutine.trace(guide).get_trace(*args))
            stated = poutine.trace(run, param_only=True).get_trace(*args).nodes
        # What pyro.module states is fitted in place.
        names = [name for name in stated if "$$$" not in name and name not in known]
        names = [repr(name) for name in names if stated[name].get("type") == "param"]
        if names:
            warnings.warn(
                f"the {role} is the function that was given to fit, and its pyro.param "
                f"{', '.join(names)} start anew here: give run.model and run.guide, which have "
                "the fitted values",
                stacklevel=5,
            )


def _is_bare(program: Program) -> bool:
    """Whether a program was fitted, and is not the one of its run."""
    while not isinstance(program, StoredProgram):
        try:
            if program in _FITTED:
                return True
        except TypeError:  # no weak reference to it
            return False
        if program is unwrapped(program):
            return False
        program = program.program  # pyright: ignore[reportFunctionMemberAccess]
    return False


def buffers(model: Program, guide: Program) -> list[Tensor]:
    """All buffers of a pair's modules, such as batch statistics."""
    return [buffer for root in modules(model, guide).values() for buffer in root.buffers()]


def placement(model: Program, guide: Program) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and floating dtype of a pair's modules; (None, None) where it has none."""
    for module in modules(model, guide).values():
        for value in module.parameters():
            if value.is_floating_point():
                return value.device, value.dtype
    return None, None


ROUNDED_SHARE = 0.01
"""Rounding errors of a column above this share of its standard deviation are too large."""


def place(
    args: tuple[Tensor, ...], device: torch.device | None, dtype: torch.dtype | None
) -> tuple[Tensor, ...]:
    """Move a batch to the pair's device, and its floating tensors to the pair's dtype.

    Warns where that dtype is too coarse for a column of the batch: see :func:`is_rounded_away`.
    """
    if dtype is not None and any(is_rounded_away(arg, dtype) for arg in args):
        warnings.warn(
            f"a column of the data varies so little around so large a value that {dtype} rounds "
            "its differences away: subtract its mean, or make the pair .double()",
            stacklevel=1,
        )
    return tuple(
        arg.to(device=device, dtype=dtype if arg.is_floating_point() else None) for arg in args
    )


def is_rounded_away(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether rounding to a coarser dtype loses the differences within a column.

    It does if the rounding errors of a column are more than 1 % of its standard deviation, as for
    times in seconds since 1970 that differ by minutes. It does not for well-scaled float64 data.

    Args:
        values: data (N, *event_shape); a column is one element of an event.
        dtype: what they are rounded to.

    >>> seconds = 1.7e9 + torch.arange(100, dtype=torch.float64)
    >>> is_rounded_away(seconds, torch.float32), is_rounded_away(seconds / 1e9, torch.float64)
    (True, False)
    """
    coarser = values.is_floating_point() and (
        torch.finfo(dtype).eps > torch.finfo(values.dtype).eps
    )
    if not coarser or len(values) < 2:
        return False
    error = (values.to(dtype).to(values.dtype) - values).square().mean(0).sqrt()
    spread = values.std(0)
    return bool(((spread > 0) & (error > ROUNDED_SHARE * spread)).any())


def place_all(model: Program, guide: Program, rows: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """All rows of data and contexts, as the arguments of a pair."""
    return place(tuple(part[: len(part)] for part in rows), *placement(model, guide))
