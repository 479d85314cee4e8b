"""Pyro's optimizers and schedulers, made into one optimizer of all parameters of a pair."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro.optim import PyroLRScheduler, PyroOptim
from pyro.params.param_store import (
    module_from_param_with_module_name,
    normalize_param_name,
    user_param_name,
)
from torch import Tensor
from torch.optim import Optimizer

CLIP_ARGS = "clip_args"
"""The entry of a group of parameters that has Pyro's limits of each parameter's gradient."""


def make_pyro_optimizer(
    optimizer: PyroOptim, named: Mapping[str, Tensor], stated: Mapping[str, Tensor]
) -> Optimizer:
    """Make one optimizer that moves each parameter as Pyro's optimizer of that parameter does.

    Pyro makes an optimizer for each parameter. This one has a group for each set of options, which
    gives the same steps, and keeps its state in a checkpoint as other optimizers do. ``clip_args``
    limit the gradient of each parameter by itself, as in Pyro.

    Args:
        optimizer: such as ``pyro.optim.ClippedAdam({"lr": 1e-3, "lrd": 0.999})``. Where its options
            are a function of names, the names are Pyro's (``"decoder.fc.weight"`` for a
            ``pyro.module("decoder", …)``); a parameter that no Pyro statement names has its name in
            the fit (``"guide.encoder.1.weight"``).
        named: the parameters, unconstrained, by their names in the fit.
        stated: those that Pyro's statements name, by Pyro's names.

    Raises:
        ValueError: if it was used before, or is of a class with steps of its own.

    >>> import pyro, torch
    >>> clipped = pyro.optim.ClippedAdam({"lr": 0.1, "clip_norm": 5.0})
    >>> made = make_pyro_optimizer(clipped, {"guide.loc": torch.zeros(2)}, {})
    >>> made.param_groups[0]["lr"], made.param_groups[0]["clip_norm"]
    (0.1, 5.0)
    """
    _check(optimizer)
    names = {id(value): name for name, value in stated.items()}
    groups: list[tuple[dict[str, Any], dict[str, Any], list[Tensor]]] = []
    for name, value in named.items():
        pyro_name = names.get(id(value), name.replace(".", "$$$", 1))
        options = _options(optimizer.pt_optim_args, pyro_name, _takes_whole_names(optimizer))
        limits = _options(optimizer.pt_clip_args, pyro_name, False)
        same = [values for *known, values in groups if known == [options, limits]]
        if same:
            same[0].append(value)
        else:
            groups.append((options, limits, [value]))
    made: list[Optimizer] = []
    for options, limits, values in groups:
        made.append(optimizer.pt_optim_constructor(values, **options))  # pyright: ignore
        if limits:
            made[-1].param_groups[0][CLIP_ARGS] = limits
    whole, *others = made
    for other in others:
        whole.add_param_group(other.param_groups[0])
    if any(limits for _, limits, _ in groups):
        whole.register_step_pre_hook(_clip)
    return whole


def _check(optimizer: PyroOptim) -> None:
    name = type(optimizer).__name__
    if type(optimizer) not in (PyroOptim, PyroLRScheduler):
        raise ValueError(
            f"optimizer is a {name}, whose steps are its own: give a PyroOptim, such as "
            'pyro.optim.Adam({"lr": 1e-3}), or a class of torch.optim'
        )
    if optimizer.optim_objs or optimizer._state_waiting_to_be_consumed:
        raise ValueError(
            "the Pyro optimizer has the state of a former fit, which a fit does not take over: "
            "give a new one (a run in a folder goes on with resume=True)"
        )


def _takes_whole_names(optimizer: PyroOptim) -> bool:
    return getattr(optimizer, "pt_optim_args_argc", 1) == 1


def _options(
    given: dict[str, Any] | Callable[..., dict[str, Any]], name: str, whole: bool
) -> dict[str, Any]:
    """The options of a parameter: a dictionary, or what a function gives for its name."""
    if not callable(given):
        return dict(given)
    if whole:
        return given(normalize_param_name(name))
    # A function of two arguments, and any of clip_args, gets the name in two parts.
    return given(module_from_param_with_module_name(name), user_param_name(name))


def _clip(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for value in group["params"] if CLIP_ARGS in group else ():
            PyroOptim._clip_grad(value, **group[CLIP_ARGS])
