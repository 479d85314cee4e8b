"""Optimizers by name, and parameter groups: options that depend on the parameter."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

from ..common.lookup import find_named, list_names
from .pyro_optimizers import make_pyro_optimizer

DEFAULT_LEARNING_RATE = 1e-3
"""The learning rate, if not given."""


class GroupRule(Protocol):
    """A rule that gives options of the optimizer by parameter."""

    def __call__(self, named: Mapping[str, Tensor], /) -> Mapping[str, Mapping[str, Any]]:
        """Options by name, such as ``{"guide.encoder.1.weight": {"lr": 1e-4}}``.

        Args:
            named: the parameters, unconstrained, by names such as ``"guide.encoder.1.weight"`` and
                ``"model.prior.means"``; those known only to Pyro's store begin with ``"param."``.
        """
        ...


@dataclass(frozen=True)
class GroupedOptimizer:
    """An optimizer with options by parameter: the argument ``optimizer`` of :func:`fit`.

    Parameters with equal options are one group; groups are in the order of their first parameters.
    If two rules give the same option, the later rule counts. Options that no rule gives are the
    optimizer's defaults, and the learning rate that of :func:`fit`.

    Args:
        optimizer: makes an optimizer from parameters (or groups of them) and ``lr``, as the
            classes of ``torch.optim`` do; or another :class:`GroupedOptimizer`, whose rules come
            first.
        rules: see :class:`GroupRule`; ready-made ones are :func:`decay_weights` and
            :func:`rate_by_prefix`.

    >>> layer = torch.nn.Linear(3, 2)
    >>> make = GroupedOptimizer(torch.optim.AdamW, [decay_weights(0.01)])
    >>> made = make(dict(layer.named_parameters()), lr=1e-3)
    >>> [(len(group["params"]), group["weight_decay"]) for group in made.param_groups]
    [(1, 0.01), (1, 0.0)]
    """

    optimizer: "Callable[..., Optimizer] | GroupedOptimizer"
    rules: Sequence[GroupRule]

    def __call__(self, named: Mapping[str, Tensor], /, *, lr: float) -> Optimizer:
        """The optimizer of these parameters; ``lr`` is the rate where no rule gives another."""
        make, rules = self.optimizer, list(self.rules)
        while isinstance(make, GroupedOptimizer):
            make, rules = make.optimizer, [*make.rules, *rules]
        options: dict[str, dict[str, Any]] = {name: {} for name in named}
        for rule in rules:
            for name, given in rule(named).items():
                if name not in options:
                    raise ValueError(f"no parameter is named {name!r}: there are {_listed(named)}")
                options[name] |= given
        groups: list[dict[str, Any]] = []
        for name, value in named.items():
            same = [group for group in groups if _without_params(group) == options[name]]
            if same:
                same[0]["params"].append(value)
            else:
                groups.append({"params": [value], **options[name]})
        optimizer = call_factory(make, groups, lr)
        for name in {name for group in options.values() for name in group}:
            if name not in optimizer.defaults:
                raise ValueError(
                    f"{type(optimizer).__name__} has no option {name!r}: "
                    f"{list_names(name, optimizer.defaults, 'it has')}"
                )
        return optimizer


def _without_params(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: option for name, option in group.items() if name != "params"}


def make_optimizer(
    optimizer: Callable[..., Optimizer] | GroupedOptimizer | PyroOptim | None,
    named: Mapping[str, Tensor],
    learning_rate: float | None,
    stated: Mapping[str, Tensor] = MappingProxyType({}),
) -> Optimizer:
    """The optimizer that a fit uses: Adam where none is given.

    Args:
        optimizer: the argument of :func:`fit`.
        named: the parameters, unconstrained, by name.
        learning_rate: the rate; Pyro's optimizers have one of their own.
        stated: the parameters by Pyro's names, for Pyro's optimizers.

    Raises:
        ValueError: if no optimizer can be made, or it needs the loss itself, as LBFGS does.
    """
    if isinstance(optimizer, PyroOptim):
        made = make_pyro_optimizer(optimizer, named, stated)
    elif isinstance(optimizer, GroupedOptimizer):
        made = optimizer(named, lr=learning_rate or DEFAULT_LEARNING_RATE)
    else:
        make = OPTIMIZERS["adam"] if optimizer is None else optimizer
        made = call_factory(make, list(named.values()), learning_rate or DEFAULT_LEARNING_RATE)
    closure = inspect.signature(type(made).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"{type(made).__name__} evaluates the loss several times in a step, and must find the "
            "same function each time, but the loss is drawn anew: use Adam, the default"
        )
    if isinstance(made, torch.optim.SparseAdam):
        raise ValueError("SparseAdam needs sparse gradients, and a fit has dense ones: use Adam")
    return made


def call_factory(make: Any, parameters: list[Any], learning_rate: float) -> Optimizer:
    """Make an optimizer from parameters, or groups of them.

    Raises:
        ValueError: if ``make`` is not what makes an optimizer of ``torch.optim``.
    """
    advice = (
        "give a class of torch.optim, a functools.partial of one, or one of Pyro's, such as "
        'pyro.optim.Adam({"lr": 1e-3})'
    )
    if isinstance(make, PyroOptim):
        raise ValueError(
            "a GroupedOptimizer takes no Pyro optimizer, whose options can be a function of "
            "names themselves: give a class of torch.optim"
        )
    if isinstance(make, Optimizer) or not callable(make):
        raise ValueError(
            f"optimizer is a {type(make).__name__}, and a fit makes its own from the pair's "
            f"parameters: {advice}"
        )
    try:
        made = make(parameters, lr=learning_rate)
    except TypeError as error:
        raise ValueError(
            f"optimizer cannot be made from parameters and lr ({error}): {advice}"
        ) from error
    if not isinstance(made, Optimizer):
        raise ValueError(f"optimizer made a {type(made).__name__}: {advice}")
    return made


def decay_weights(weight_decay: float) -> GroupRule:
    """A rule that decays the weights of networks, and no other parameters.

    Weights are the parameters with ``weight`` in their name that have two dimensions or more: the
    matrices of linear and recurrent layers, and the kernels of convolutions. Biases, the scales of
    normalization layers, and the parameters of a distribution (log-scales, mixture means,
    pseudo-inputs) do not decay: for them, zero is not a simpler value than others.

    Args:
        weight_decay: λ; its meaning is the optimizer's. AdamW takes λ times the learning rate of
            each weight off at each step (Loshchilov and Hutter 2019, arXiv 1711.05101); Adam, SGD
            and others add λw to the gradient of the loss, here that of all data.

    Raises:
        ValueError: if it is negative, NaN or infinite.

    >>> decay_weights(0.01)({"guide.1.weight": torch.ones(4, 3), "guide.1.bias": torch.ones(4)})
    {'guide.1.weight': {'weight_decay': 0.01}, 'guide.1.bias': {'weight_decay': 0.0}}
    """
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a number of at least 0, got {weight_decay}")

    def rule(named: Mapping[str, Tensor], /) -> Mapping[str, Mapping[str, Any]]:
        return {
            name: {"weight_decay": weight_decay if _is_weight(name, value) else 0.0}
            for name, value in named.items()
        }

    return rule


def _is_weight(name: str, value: Tensor) -> bool:
    return value.dim() >= 2 and any(part.startswith("weight") for part in name.split("."))


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def _listed(names: Mapping[str, Any], most: int = 6) -> str:
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def rate_by_prefix(rates: Mapping[str, float]) -> GroupRule:
    """A rule that gives learning rates by prefixes of the parameters' names.

    Names start with ``model.``, ``guide.`` or ``param.`` (of Pyro's store), followed by the
    attributes: ``{"guide": 1e-3, "model": 3e-4}`` gives separate rates to encoder and decoder,
    ``{"model.prior": 1e-4}`` one to the prior. If two prefixes fit, the longer one counts; if none
    fits, the rate is the ``learning_rate`` of :func:`fit`. A schedule multiplies each rate.

    Args:
        rates: learning rate by prefix.

    Raises:
        ValueError: if a rate is not positive; when the optimizer is made, if no parameter's name
            begins with a prefix.

    >>> rate_by_prefix({"guide": 1e-3})({"guide.1.bias": torch.ones(4), "model.x": torch.ones(2)})
    {'guide.1.bias': {'lr': 0.001}}
    """
    for prefix, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"the learning rate of {prefix!r} must be positive, got {rate}")

    def rule(named: Mapping[str, Tensor], /) -> Mapping[str, Mapping[str, Any]]:
        for prefix in rates:
            if not any(_begins(name, prefix) for name in named):
                raise ValueError(
                    f"no parameter's name begins with {prefix!r}: there are {_listed(named)}"
                )
        fitting = {name: [part for part in rates if _begins(name, part)] for name in named}
        return {name: {"lr": rates[max(fit, key=len)]} for name, fit in fitting.items() if fit}

    return rule


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True, weight_decay=0.0),
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
"""Optimizers by name, without weight decay; their other settings are PyTorch's."""


def named_optimizer(
    name: str, *, weight_decay: float = 0.0
) -> Callable[..., Optimizer] | GroupedOptimizer:
    """The optimizer of a name: the argument ``optimizer`` of :func:`fit`.

    Args:
        name: one of :data:`OPTIMIZERS`.
        weight_decay: of the weights of networks alone; see :func:`decay_weights`.

    Raises:
        ValueError: if there is no optimizer of that name, or the decay is negative.

    >>> named_optimizer("adamw", weight_decay=0.01).rules[0]({"bias": torch.ones(2)})
    {'bias': {'weight_decay': 0.0}}
    >>> named_optimizer("rmsprp")
    Traceback (most recent call last):
    ValueError: there is no optimizer 'rmsprp': did you mean 'rmsprop'? there are adam, ...
    """
    make, rule = find_named(name, OPTIMIZERS, "optimizer"), decay_weights(weight_decay)
    return GroupedOptimizer(make, [rule]) if weight_decay else make
