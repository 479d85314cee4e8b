"""What fitting and evaluating need to know of a pair: its parameters, its modules, its data plate.

A *pair* is a Pyro model and a Pyro guide of the same arguments: plain callables, methods
of an ``nn.Module``, or (Pyro) modules. Everything here works on any of them.
"""

import contextlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

Program = Callable[..., Any]
"""A Pyro program: ``model(x, *context)`` or ``guide(x, *context)``."""

DATA_PLATE = "data"


class StoredProgram:
    """A program together with the Pyro parameters that belong to it.

    A plain callable keeps its ``pyro.param`` values in Pyro's global store, where a second
    fit would meet them. Called through this wrapper, it finds its own.
    """

    def __init__(self, program: Program, store: dict[str, Any]):
        self.program = program
        self.store = store

    def __call__(self, *args: Any) -> Any:
        """Run the program among its own parameters."""
        with pyro.get_param_store().scope(self.store):  # pyright: ignore[reportArgumentType]
            return self.program(*args)

    def __repr__(self) -> str:
        """Name the program and its parameters."""
        return f"StoredProgram({self.program!r}, {sorted(self.store['params'])})"


def modules(model: Program, guide: Program) -> dict[str, nn.Module]:
    """The ``nn.Module``s behind a pair, each once, by role and, where it is a part, by name.

    A module itself, or the one whose method a program is; of another object's method, the
    modules among its attributes; of a plain function, those that it refers to.

    >>> net = nn.Linear(1, 1)
    >>> modules(net.forward, lambda x: net(x))
    {'model': Linear(in_features=1, out_features=1, bias=True)}
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for role, program in (("model", model), ("guide", guide)):
        for name, module in _modules_within(program).items():
            if id(module) not in seen:
                found[f"{role}.{name}" if name else role] = module
                seen |= {id(part) for part in module.modules()}
    return found


def _modules_within(program: Program) -> dict[str, nn.Module]:
    while isinstance(program, StoredProgram):
        program = program.program
    owner = getattr(program, "__self__", program)
    if isinstance(owner, nn.Module):
        return {"": owner}
    named = dict(getattr(owner, "__dict__", {})) if owner is not program else {}
    function = getattr(program, "__func__", program)
    if inspect.isfunction(function):
        referred = inspect.getclosurevars(function)
        named |= {**referred.globals, **referred.nonlocals}
    elif not inspect.isbuiltin(function):
        named |= getattr(program, "__dict__", {})
    return {name: value for name, value in named.items() if isinstance(value, nn.Module)}


@contextlib.contextmanager
def private_store(state: Any = None) -> Iterator[dict[str, Any]]:
    """A parameter store of one's own: what happens inside leaves the global one as it was.

    Args:
        state: what it holds at first; nothing, if not given.
    """
    with pyro.get_param_store().scope(state) as inner, warnings.catch_warnings():
        # Frozen parameters are meant, and a loss that is NaN is reported by the fit itself.
        warnings.filterwarnings("ignore", ".* was not registered in the param store because")
        warnings.filterwarnings("ignore", "Encountered (NaN|[+-]?inf)")
        yield inner  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Cut off the table of shapes that Pyro appends to an error raised inside a program."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        message = re.split(r"\n\s*Trace Shapes:", str(error))[0]
        if message.startswith("Expected parameter"):  # PyTorch prints all of its values
            parameter, law = message.split()[2], re.search(r"of distribution (\w+)", message)
            message = (
                f"{law[1] if law else 'a law'} got NaN, infinite or impossible numbers for its "
                f"{parameter}: the networks overflow on these data; scale them"
            )
        if message == str(error):
            raise
        raise type(error)(message) from error


@contextlib.contextmanager
def _evaluation_mode(model: Program, guide: Program) -> Iterator[None]:
    """Dropout off, batch statistics as they are; each module's own mode is put back after."""
    parts = [part for root in modules(model, guide).values() for part in root.modules()]
    training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, training, strict=True):
            part.training = mode


@contextlib.contextmanager
def evaluating(model: Program, guide: Program) -> Iterator[None]:
    """Evaluate a pair: no gradients, evaluation mode, a private store; all undone after."""
    # A pair trained by hand has values in the ambient store. What a PyroModule holds itself
    # is left out: under the same name another module's values would overwrite its own.
    state: Any = pyro.get_param_store().get_state()
    for root in modules(model, guide).values():
        for name, _ in root.named_pyro_params() if isinstance(root, PyroModule) else ():
            state["params"].pop(name, None)
            state["constraints"].pop(name, None)
    with torch.no_grad(), private_store(state), _evaluation_mode(model, guide):
        yield


def parameters(model: Program, guide: Program, args: tuple[Any, ...]) -> dict[str, Tensor]:
    """All trainable tensors of a pair, unconstrained, by name, each once.

    Module parameters are named ``model.…`` and ``guide.…``; those known only to Pyro's
    store, ``param.…``. The pair is run once on ``args`` to meet its ``pyro.param`` and
    ``pyro.module`` statements, so call it inside :func:`private_store`.
    """
    named: dict[str, Tensor] = {}
    for role, module in modules(model, guide).items():
        named |= {f"{role}.{name}": value for name, value in module.named_parameters()}
    with (
        torch.no_grad(),
        _evaluation_mode(model, guide),
        poutine.trace(param_only=True) as captured,
    ):
        trace = poutine.trace(guide).get_trace(*args)
        poutine.replay(model, trace=trace)(*args)
    for name, site in captured.trace.nodes.items():
        value: Any = site.get("value")
        # PyroModules state a module's parameters as they are, pyro.param as constrained ones.
        named[f"param.{name}"] = getattr(value, "unconstrained", lambda value=value: value)()
    unique: dict[int, str] = {}
    for name, value in named.items():
        if value.requires_grad:
            unique.setdefault(id(value), name)
    return {name: named[name] for name in unique.values()}


def buffers(model: Program, guide: Program) -> list[Tensor]:
    """All buffers of a pair's modules, such as batch statistics."""
    return [buffer for root in modules(model, guide).values() for buffer in root.buffers()]


@contextlib.contextmanager
def attributes_kept(model: Program, guide: Program) -> Iterator[None]:
    """Put back the attributes of a pair's modules: counters, and tensors that are no buffers."""
    parts = [part for root in modules(model, guide).values() for part in root.modules()]
    kept = [(own, dict(own)) for part in parts for own in (part.__dict__, part._buffers)]
    tensors = [v for own, _ in kept for v in own.values() if isinstance(v, Tensor)]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for own, before in kept:
            own.clear()
            own.update(before)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


def placement(model: Program, guide: Program) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and floating dtype of a pair's modules; (None, None) where it has none."""
    for module in modules(model, guide).values():
        for value in module.parameters():
            if value.is_floating_point():
                return value.device, value.dtype
    return None, None


def place(
    args: tuple[Tensor, ...], device: torch.device | None, dtype: torch.dtype | None
) -> tuple[Tensor, ...]:
    """Move a batch to the pair's device, and its floating tensors to the pair's dtype."""
    return tuple(
        arg.to(device=device, dtype=dtype if arg.is_floating_point() else None) for arg in args
    )


def place_all(model: Program, guide: Program, rows: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """All rows of data and contexts, as the arguments of a pair."""
    return place(tuple(part[: len(part)] for part in rows), *placement(model, guide))


class ScaleData(Messenger):
    """Scale each site of the data plate by N/M, so that M of N data stand for all.

    Sites outside the plate (a global latent variable) keep their weight, which makes
    minibatch losses unbiased for the whole data's. A plate that the user already
    subsamples carries its own scale and is left alone.
    """

    def __init__(self, num_data: int):
        super().__init__()
        self.num_data = num_data

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == DATA_PLATE and frame.full_size in (None, frame.size):
                msg["scale"] = msg["scale"] * (self.num_data / frame.size)
