"""What a function of tensors does, written down as PyTorch's operations, and compared."""

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
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from .graphs import VIEWS_IN_PLACE


class CannotRecord(Exception):
    """Why a function cannot be done again from a recording of it, in one line."""


TAKEN_OUT = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__}
"""What takes numbers out of tensors unseen."""


class _KeepTensors(TorchFunctionMode):
    """``tensor.item()`` stays a tensor, exact as the number: Pyro's objectives only add it on."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.item:
            return args[0].detach().double() if args[0].is_floating_point() else args[0]
        if func in TAKEN_OUT:
            raise CannotRecord("it takes numbers out of tensors")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _recordable() -> Iterator[None]:
    """Pyro without the looks at values that no recording survives; all random states kept."""
    with (
        pyro.validation_enabled(False),
        mock.patch.object(pyro_util, "torch_isnan", return_value=False),
        torch.random.fork_rng(),
        _without_other_draws(),
        _KeepTensors(),
    ):
        yield


@contextlib.contextmanager
def _without_other_draws() -> Iterator[None]:
    """Refuse random numbers that are not PyTorch's, and put those back."""
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


def record(function: Callable[..., Any], args: tuple[Tensor, ...]) -> GraphModule:
    """Write down what a function does at tensors of these shapes.

    What it is not given as an argument but uses (parameters, buffers, a schedule's weight) stands
    in the recording as itself, so that it may change from one run to the next.

    Args:
        function: of tensors, to tensors in a tuple, which may be nested or hold ``None``.
        args: what it is run at; the random state is as before afterwards.

    Raises:
        CannotRecord: if the function looks at values of tensors to decide what to do, draws random
            numbers that are not PyTorch's, or does something else than compute.

    >>> graph = record(lambda x: (x.exp() + 1,), (torch.zeros(3),))
    >>> [node.target.__name__ for node in operations(graph)]
    ['exp.default', 'add.Tensor']
    """
    try:
        with _recordable():
            graph = make_fx(lambda *given: function(*given))(*args)
    except CannotRecord:
        raise
    except Exception as error:  # a program may do anything
        raise CannotRecord(_in_one_line(error)) from error
    for node in graph.graph.nodes:
        if node.op == "get_attr" and not isinstance(getattr(graph, node.target), Tensor):
            raise CannotRecord(f"it uses a {type(getattr(graph, node.target)).__name__} of its own")
    for node in operations(graph):
        in_place = torch.Tag.inplace_view in getattr(node.target, "tags", ())
        if in_place and node.target not in VIEWS_IN_PLACE:
            raise CannotRecord(f"{_name(node)} changes the shape of a tensor in place")
        if _depends_on_values(node):
            raise CannotRecord(f"the shape of what {_name(node)} gives depends on values")
    return graph


def _depends_on_values(node: Node) -> bool:
    """Whether the shape of a result is not known from those of its arguments."""
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return False
    # Indexing is of this kind by flags alone, not by numbers.
    dtypes = [arg.meta["val"].dtype for arg in node.all_input_nodes[1:] if "val" in arg.meta]
    flags = torch.bool in dtypes or torch.uint8 in dtypes
    return flags or node.target != torch.ops.aten.index.Tensor


def _in_one_line(error: Exception) -> str:
    text = str(error)
    if "data-dependent" in text or "trying to get a value out of" in text or "aten._local" in text:
        return "what it does depends on values of tensors"
    first = next(iter(text.strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def operations(graph: GraphModule | Graph) -> list[Node]:
    """The operations of a recording, in order."""
    nodes = (graph.graph if isinstance(graph, GraphModule) else graph).nodes
    return [node for node in nodes if node.op == "call_function"]


def difference(first: GraphModule, second: GraphModule) -> str:
    """What two recordings do not have in common, in one line; empty if they are the same.

    >>> one, other = (record(lambda x, n=n: (x * n,), (torch.ones(2),)) for n in (2, 3))
    >>> difference(one, one), difference(one, other)
    ('', 'mul.Tensor is called with other numbers each time')
    """
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    index = {node: place for place, node in enumerate(nodes)}
    index |= {node: place for place, node in enumerate(others)}
    for node, other in zip(nodes, others, strict=False):
        if node.op != other.op or (node.op == "call_function" and node.target != other.target):
            return f"it calls {_name(node)} once and {_name(other)} then"
        if node.op == "get_attr":
            if not _same_tensor(getattr(first, node.target), getattr(second, other.target)):
                return "it makes a tensor of other values each time"
        elif _plain(node, index) != _plain(other, index):
            return f"{_name(node)} is called with other numbers each time"
    if len(nodes) != len(others):
        return f"it makes {len(nodes)} calls once and {len(others)} then"
    return ""


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a is b or (a.data_ptr() == b.data_ptr() != 0 and a.shape == b.shape):
        return True
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


def _plain(node: Node, index: dict[Node, int]) -> Any:
    """The arguments of a call, its nodes replaced by their numbers."""
    mapped = torch.fx.map_arg((node.args, node.kwargs), lambda arg: f"%{index[arg]}")
    return repr(mapped)


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", str(node.target)) if node.op != "output" else "the end"
