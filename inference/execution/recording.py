"""Recordings: the PyTorch operations of a function of tensors, recorded and compared."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pyro
import torch
from pyro import util as pyro_util
from torch import Tensor
from torch.fx import Node
from torch.overrides import TorchFunctionMode

from .graphs import VIEWS_IN_PLACE
from .recorder import CannotRecord, Recorder, Recording

UNTRACED_READS = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__}
"""Functions that read numbers from tensors without PyTorch's tracing seeing it."""


class _KeepTensors(TorchFunctionMode):
    """``tensor.item()`` returns a tensor as exact as the number; Pyro's objectives only add it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.item and args[0].is_floating_point():
            return args[0].detach().double()
        # A whole number may be looked up in a dictionary, of which a recording sees nothing.
        if func is torch.Tensor.item or func in UNTRACED_READS:
            raise CannotRecord("it takes numbers out of tensors")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _recordable() -> Iterator[None]:
    """Switch off Pyro's reads of values, which cannot be recorded, and keep all random states."""
    with (
        pyro.validation_enabled(False),
        mock.patch.object(pyro_util, "torch_isnan", return_value=False),
        torch.random.fork_rng(),
        _without_other_draws(),
        _without_autocast_cache(),
        _KeepTensors(),
    ):
        yield


@contextlib.contextmanager
def _without_other_draws() -> Iterator[None]:
    """Refuse draws from Python's or NumPy's generators, and restore their states."""
    python, numpy = random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002
    try:
        yield
        now: Any = np.random.get_state(legacy=True)  # noqa: NPY002
        same = all(np.array_equal(a, b) for a, b in zip(now, numpy, strict=True))
        if not same or random.getstate() != python:
            raise CannotRecord("it draws random numbers that are not PyTorch's")
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Have each product round its weights: rounded ones that were kept would be in the recording
    as objects, with their values of now."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def record(function: Callable[..., Any], args: tuple[Tensor, ...]) -> Recording:
    """Record the PyTorch operations of a function at tensors of these shapes.

    Tensors that it uses without getting them as arguments (parameters, buffers, a schedule's
    weight) are kept in the recording as objects, so their values may change between runs.

    Args:
        function: maps tensors to a tuple of tensors, which may be nested and hold ``None``.
        args: the tensors that it is run at. The random state is restored afterwards.

    Raises:
        CannotRecord: if what the function does depends on values of tensors, if it draws random
            numbers that are not PyTorch's, or if it does something else than compute.

    >>> recording = record(lambda x: (x.exp() + 1,), (torch.zeros(3),))
    >>> [node.target.__name__ for node in operations(recording)]
    ['exp.default', 'add.Tensor']
    """
    try:
        with _recordable(), Recorder(args) as recorder:
            result = function(*args)
        recording = recorder.finish(result)
    except CannotRecord:
        raise
    except Exception as error:  # a program may fail in any way
        raise CannotRecord(_in_one_line(error)) from error
    for node in operations(recording):
        in_place = torch.Tag.inplace_view in getattr(node.target, "tags", ())
        if in_place and node.target not in VIEWS_IN_PLACE:
            raise CannotRecord(f"{_name(node)} changes the shape of a tensor in place")
        if _depends_on_values(node):
            raise CannotRecord(f"the shape of what {_name(node)} gives depends on values")
    return recording


def _depends_on_values(node: Node) -> bool:
    """Whether the shape of a result depends on the values of the arguments."""
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return False
    # Indexing has this tag too, but only a mask as index makes the shape depend on values.
    given = node.all_input_nodes[1:]
    dtypes = [arg.meta["layout"].dtype for arg in given if "layout" in arg.meta]
    has_mask = torch.bool in dtypes or torch.uint8 in dtypes
    return has_mask or node.target != torch.ops.aten.index.Tensor


def _in_one_line(error: Exception) -> str:
    text = str(error)
    if "data-dependent" in text or "aten._local" in text:
        return "what it does depends on values of tensors"
    first = next(iter(text.strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def operations(recording: Recording) -> list[Node]:
    """List the operations of a recording, in order."""
    return [node for node in recording.graph.nodes if node.op == "call_function"]


def difference(first: Recording, second: Recording) -> str:
    """Describe the first difference between two recordings in one line; empty if there is none.

    >>> one, other = (record(lambda x, n=n: (x * n,), (torch.ones(2),)) for n in (2, 3))
    >>> difference(one, one), difference(one, other)
    ('', 'mul.Tensor is called with other numbers each time')
    """
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    index = {node: position for position, node in enumerate(nodes)}
    index |= {node: position for position, node in enumerate(others)}
    for node, other in zip(nodes, others, strict=False):
        if node.op != other.op or (node.op == "call_function" and node.target != other.target):
            return f"it calls {_name(node)} in one call and {_name(other)} in the next"
        if node.op == "get_attr":
            if not _same_tensor(first.tensors[node.target], second.tensors[other.target]):  # pyright: ignore
                return "it makes a tensor of other values each time"
        elif _arguments(node, index) != _arguments(other, index):
            return f"{_name(node)} is called with other numbers each time"
    if len(nodes) != len(others):
        return f"it runs {len(nodes)} operations in one call and {len(others)} in the next"
    return ""


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a is b or (a.data_ptr() == b.data_ptr() != 0 and a.shape == b.shape):
        return True
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


def _arguments(node: Node, index: dict[Node, int]) -> Any:
    """The arguments of a call in words, with nodes replaced by their numbers."""
    mapped = torch.fx.map_arg((node.args, node.kwargs), lambda arg: f"%{index[arg]}")
    return repr(mapped)


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", str(node.target)) if node.op != "output" else "the end"
