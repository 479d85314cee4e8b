"""The Pyro programs of a pair: their modules, their parameter stores, and their evaluation."""

import contextlib
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

Program = Callable[..., Any]
"""A Pyro program: ``model(x, *context)`` or ``guide(x, *context)``."""

_DTYPES_DIFFER = re.compile(r"same dtype|expected scalar type|should have the same type")
"""What PyTorch says where the types of two tensors do not go together."""


def check_programs(model: Any, guide: Any) -> None:
    """Refuse what cannot be called as a Pyro program.

    Raises:
        ValueError: if model or guide is missing, a class, or no function.
    """
    for role, program in (("model", model), ("guide", guide)):
        advice = "a function or a module, such as AutoNormal(model)"
        if role == "model":
            advice = "a function or a module"
        if program is None:
            raise ValueError(f"the {role} is None: give a Pyro program, {advice}")
        if isinstance(program, type):
            name = program.__name__
            raise ValueError(f"the {role} is the class {name}: give an object of it, {name}(…)")
        if not callable(program):
            kind = type(program).__name__
            raise ValueError(f"the {role} is of type {kind}: give a Pyro program, {advice}")


class WrappedProgram:
    """A program that runs another one."""

    def __init__(self, program: Program):
        self.program = program

    def __call__(self, *args: Any) -> Any:
        """Run the program."""
        return self.program(*args)


def unwrapped(program: Program) -> Program:
    """The program that its user wrote."""
    while isinstance(program, WrappedProgram):
        program = program.program
    return program


class StoredProgram(WrappedProgram):
    """A program together with the Pyro parameters that belong to it.

    A plain callable keeps its ``pyro.param`` values in Pyro's global store, where a second fit
    would find them. Called through this wrapper, it uses its own.
    """

    def __init__(self, program: Program, store: dict[str, Any]):
        super().__init__(program)
        self.store = store

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program with its own parameters."""
        with pyro.get_param_store().scope(self.store):  # pyright: ignore[reportArgumentType]
            return self.program(*args, **kwargs)

    def __repr__(self) -> str:
        """Name the program and its parameters."""
        return f"StoredProgram({self.program!r}, {sorted(self.store['params'])})"


def modules(model: Program, guide: Program) -> dict[str, nn.Module]:
    """Find the ``nn.Module``s of a pair, each once, by role and, for a part, by name.

    If a program is a module, or a method of one, it is that module; if it is a method of another
    object, the modules among the object's attributes; if it is a plain function, the modules that
    the function refers to, itself or in functions of the same file that it calls. A
    ``functools.partial`` has also those among its arguments; a program within a handler of Pyro's
    (``config_enumerate(guide)``) has its own.

    >>> net = nn.Linear(1, 1)
    >>> modules(net.forward, lambda x: net(x))
    {'model': Linear(in_features=1, out_features=1, bias=True)}
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for role, program in (("model", model), ("guide", guide)):
        for name, module in _modules_within(program, set()).items():
            if id(module) not in seen:
                found[f"{role}.{name}" if name else role] = module
                seen |= {id(part) for part in module.modules()}
    return found


def _modules_within(program: Program, visited: set[int]) -> dict[str, nn.Module]:
    """The modules of a program, by name; ``visited`` holds the functions already looked into."""
    program = unwrapped(program)
    if isinstance(program, functools.partial):
        within_handler = getattr(program, "__wrapped__", None)
        if within_handler is not None:  # as Pyro's handlers wrap a program
            return _modules_within(within_handler, visited)
        bound = inspect.signature(program.func).bind_partial(*program.args, **program.keywords)
        own = _modules_within(program.func, visited)
        return own | _modules_among(bound.arguments, program.func, visited)
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
    return _modules_among(named, function, visited)


def _modules_among(
    named: Mapping[str, Any], function: Any, visited: set[int]
) -> dict[str, nn.Module]:
    """The modules among some values, and those of the programs among them."""
    found = {name: value for name, value in named.items() if isinstance(value, nn.Module)}
    visited.add(id(function))
    for name, value in named.items():
        if _is_part_of(function, value) and id(value) not in visited:
            for inner, module in _modules_within(value, visited).items():
                found.setdefault(inner or name, module)
    return found


def _is_part_of(function: Any, value: Any) -> bool:
    """Whether a value that a function refers to is a program, or a helper from the same file."""
    if isinstance(value, WrappedProgram | functools.partial) or inspect.ismethod(value):
        return True
    return inspect.isfunction(value) and value.__module__ == getattr(function, "__module__", None)


@contextlib.contextmanager
def private_store(state: Any = None) -> Iterator[dict[str, Any]]:
    """Use a private parameter store, and leave Pyro's global one as it was.

    Args:
        state: its content at the start; empty if not given.
    """
    with pyro.get_param_store().scope(state) as inner, warnings.catch_warnings():
        # Frozen parameters are intended, and the fit itself reports a loss that is NaN.
        warnings.filterwarnings("ignore", ".* was not registered in the param store because")
        warnings.filterwarnings("ignore", "Encountered (NaN|[+-]?inf)")
        yield inner  # pyright: ignore[reportReturnType]


def first_line(error: BaseException) -> str:
    """The type of an error, and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Remove the table of shapes that Pyro appends to an error raised inside a program."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        message = re.split(r"\n\s*Trace Shapes:", str(error))[0]
        if message.startswith("Expected parameter"):  # PyTorch prints all of its values
            parameter = message.split()[2]
            named = re.search(r"of distribution (\w+)", message)
            whose = named[1] if named else "a distribution"
            constraint = re.search(r"to satisfy the constraint (\S+?),? but found", message, re.S)
            wrong = message.split("but found invalid values:")[-1]
            message = (
                f"{whose} got NaN, infinite or impossible numbers for its {parameter}: the "
                "networks overflow on these data, so scale them"
                if "nan" in wrong or "inf" in wrong or not constraint
                else f"{whose} got impossible numbers for its {parameter}, which must satisfy "
                f"{constraint[1]}: map them there first (exp or softplus for what is positive, "
                "sigmoid for what lies between 0 and 1), or give the latent variables that they "
                "are made from a distribution that stays there"
            )
        if _DTYPES_DIFFER.search(message):
            message += (
                ": the program computes with tensors of two types; NumPy's arrays are float64, and "
                "PyTorch's tensors float32 as a rule, so give the data and the tensors in the "
                "programs one type, by .float() or .double()"
            )
        mismatch = re.match(r"Shape mismatch inside plate\('(.+)'\) at site (\S+) dim", message)
        if mismatch:
            message += (
                f": the distribution of {mismatch[2]!r} must have one row for each element of "
                f"the plate {mismatch[1]!r} there; end it with .to_event(…) where a row has "
                "several numbers"
            )
        if isinstance(error, NotImplementedError) and message.endswith("does not support sampling"):
            message += (
                ", and this draws from it: write a flat prior as a distribution that can be drawn "
                "from, under .mask(False)"
            )
        if message == str(error):
            raise
        raise type(error)(message) from error


@contextlib.contextmanager
def evaluation_mode(model: Program, guide: Program) -> Iterator[None]:
    """Put the modules into evaluation mode (no dropout, fixed batch statistics), and back."""
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
    """Evaluate a pair: no gradients, evaluation mode, a private store; all restored afterwards."""
    # A pair that a user trained has values in the ambient store. Parameters of a PyroModule are
    # left out: values of another module under the same name would overwrite them.
    state: Any = pyro.get_param_store().get_state()
    for root in modules(model, guide).values():
        for part in [part for part in root.modules() if isinstance(part, PyroModule)]:
            for name in part._pyro_params:  # its full name, as Pyro makes it
                name = f"{part._pyro_name}.{name}" if part._pyro_name else name
                state["params"].pop(name, None)
                state["constraints"].pop(name, None)
    with torch.no_grad(), private_store(state), evaluation_mode(model, guide):
        yield


@contextlib.contextmanager
def attributes_kept(model: Program, guide: Program) -> Iterator[None]:
    """Restore the attributes of a pair's modules: counters, tensors, submodules, hooks."""
    parts = [part for root in modules(model, guide).values() for part in root.modules()]
    # Parameters, buffers, submodules and hooks lie in dictionaries among the attributes.
    owned = [
        own
        for part in parts
        for own in (part.__dict__, *(v for v in vars(part).values() if isinstance(v, dict)))
    ]
    kept = [(own, dict(own)) for own in owned]
    parameters = [value for part in parts for value in part.parameters(recurse=False)]
    trained = [(value, value.requires_grad, value.data) for value in parameters]
    tensors = [v for own, _ in kept for v in own.values() if isinstance(v, Tensor)]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for own, before in kept:
            own.clear()
            own.update(before)
        for parameter, requires_grad, storage in trained:
            parameter.requires_grad_(requires_grad)
            if parameter.data_ptr() != storage.data_ptr():
                parameter.data = storage
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


@contextlib.contextmanager
def probing(model: Program, guide: Program) -> Iterator[None]:
    """Run a pair to look at it: nothing that it draws, changes or warns of is left afterwards."""
    with (
        evaluating(model, guide),
        attributes_kept(model, guide),
        torch.random.fork_rng(),
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the user is told where the pair is used
        yield
