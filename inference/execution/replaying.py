"""Replay of recorded functions, always in the same memory."""

import contextlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node, map_arg
from torch.utils import _pytree as pytree

from .graphs import Memory, ancestors_of_first_result, is_impure, is_mutable, is_view, simplify
from .recorder import Recording

aten = torch.ops.aten


FACTORIES = {
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.eye.default,
    aten.full.default,
    aten.full_like.default,
    aten.lift_fresh_copy.default,
    aten.ones.default,
    aten.ones_like.default,
    aten.scalar_tensor.default,
    aten.zeros.default,
    aten.zeros_like.default,
}
"""Operations whose result depends only on the shapes of their arguments: the same at every run."""


EMPTY = {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}
"""Operations that return uninitialized memory, to be written to."""


INTO_MEMORY = {
    aten._log_softmax.default,
    aten._softmax.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.bmm.default,
    aten.cat.default,
    aten.cumsum.default,
    aten.gather.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.logsumexp.default,
    aten.mean.default,
    aten.mean.dim,
    aten.mm.default,
    aten.prod.dim_int,
    aten.sum.default,
    aten.sum.dim_IntList,
}
"""Operations, besides elementwise ones, that can write their result into given memory."""


COPIES = {aten.clone.default, aten._to_copy.default}
"""Operations that copy their first argument."""


class Replay:
    """A recording prepared to be run again: memory is allocated once, views are made beforehand.

    Repeated computations are done once, and constant ones not at all. The numbers are those of the
    recorded function, bit for bit. The next call overwrites the returned tensors.

    Args:
        recording: a result of :func:`latente.inference.execution.recording.record`; it is changed.
        args: tensors of the recorded shapes, for a first run. That run changes nothing except what
            the recording writes to, such as batch statistics.

    >>> from latente.inference.execution.recording import record
    >>> x = torch.ones(2)
    >>> replay = Replay(record(lambda x: (2 * x, x.exp() / x.exp()), (x,)), (x,))
    >>> [value.tolist() for value in replay(torch.tensor([1.0, 2.0]))]
    [[2.0, 4.0], [1.0, 1.0]]
    >>> replay
    Replay(3 operations)
    """

    def __init__(self, recording: Recording, args: tuple[Tensor, ...]):
        simplify(recording.graph)
        self.inputs = [arg.detach().clone() for arg in args]
        with torch.no_grad(), torch.random.fork_rng():
            plan = _Plan(recording, self.inputs)
        self.calls, self.outputs = plan.calls, plan.outputs
        self.num_forward_calls = plan.num_forward_calls

    def __call__(self, *args: Tensor) -> Any:
        """The result of the function at these tensors."""
        with torch.no_grad():
            for own, given in zip(self.inputs, args, strict=True):
                own.copy_(given)
            for call in self.calls:
                call()
        return self.outputs

    def forward(self) -> None:
        """Run only the calls up to the first result, such as a loss."""
        with torch.no_grad():
            for call in self.calls[: self.num_forward_calls]:
                call()

    def backward(self) -> None:
        """Run only the calls after the first result, such as those for its gradient."""
        with torch.no_grad():
            for call in self.calls[self.num_forward_calls :]:
                call()

    def __repr__(self) -> str:
        return f"Replay({len(self.calls)} operations)"


class _Plan:
    """A first run of a recording that binds every call to its memory."""

    def __init__(self, recording: Recording, inputs: list[Tensor]):
        graph = recording.graph
        self.memory = Memory(graph)
        self.calls: list[Callable[[], Any]] = []
        self.outputs: Any = None
        self.values: dict[Node, Any] = {}
        """The result of each node."""
        self.constant: set[Node] = set()
        """Nodes whose result is the same at every run."""
        self.free: dict[Any, list[Tensor]] = defaultdict(list)
        """Tensors that nothing uses any more, by layout."""
        self.owned: dict[Node, Tensor] = {}
        """By owner of memory, the tensor that becomes free after its last use."""
        self.num_forward_calls = 0
        """Number of calls until the first result is complete."""
        ends = self._ends(graph)
        first = ancestors_of_first_result(graph)
        given = iter(inputs)
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(given)
            elif node.op == "get_attr":
                self.values[node] = recording.tensors[node.target].detach()
            elif node.op == "output":
                self.outputs = self._own(node)
            else:
                self._call(node)
                if node in first:
                    self.num_forward_calls = len(self.calls)
            for memory in ends[node]:
                if memory in self.owned:
                    tensor = self.owned.pop(memory)
                    self.free[_layout(tensor)].append(tensor)

    def _ends(self, graph: Graph) -> dict[Node, list[Node]]:
        """By node, the owners of memory that nothing uses after it."""
        last: dict[Node, Node] = {}
        for node in graph.nodes:
            for used in (node, *node.all_input_nodes):
                last[self.memory.owner[used]] = node
        ends: dict[Node, list[Node]] = defaultdict(list)
        for memory, node in last.items():
            if node.op != "output":
                ends[node].append(memory)
        return ends

    def _own(self, output: Node) -> Any:
        """The results, each in its own memory, because the caller may write to them."""
        taken: set[Node] = set()

        def own(node: Node) -> Any:
            value, memory = self.values[node], self.memory.owner[node]
            made_here = memory.op == "call_function" and node not in self.constant
            if (made_here and memory not in taken) or not isinstance(value, Tensor):
                taken.add(memory)
                return value
            copy = value.clone()
            self.calls.append(partial(copy.copy_, value))
            return copy

        return map_arg(output.args[0], own)

    def _values(self, args: Any) -> Any:
        return map_arg(args, lambda arg: self.values[arg])

    def _call(self, node: Node) -> None:
        op: Any = node.target
        args, kwargs = self._values((node.args, node.kwargs))
        sources = node.all_input_nodes
        shape = None
        # A view or a sum would see that its argument was narrowed.
        if all(map(self._is_elementwise, (node, *node.users))):
            shape, args = _without_repetition(args)
        result = op(*args, **kwargs)
        if is_view(node):
            # Memory is never moved, so a view stays valid.
            if sources[0] in self.constant:
                self.constant.add(node)
        elif is_mutable(node):
            self.calls.append(_bind_in_place(op, args, kwargs))
        elif op in EMPTY:
            self.owned[node] = result
        elif self._is_constant(node, sources):
            self.constant.add(node)
        else:
            result = self._bind(node, args, kwargs, result, shape)
        self.values[node] = result if shape is None else result.expand(shape)

    def _is_elementwise(self, node: Node) -> bool:
        """Whether a call is elementwise and has no side effects."""
        tags = getattr(node.target, "tags", ())
        return (
            torch.Tag.pointwise in tags and not is_impure(node) and self.memory.is_read_only(node)
        )

    def _is_constant(self, node: Node, sources: list[Node]) -> bool:
        """Whether a call gives the same result at every run."""
        if is_impure(node) or not self.memory.is_read_only(node):
            return False
        return node.target in FACTORIES or (
            bool(sources) and all(source in self.constant for source in sources)
        )

    def _bind(self, node: Node, args: Any, kwargs: Any, result: Any, shape: Any) -> Any:
        """Bind a call to write its result into free memory, or into that of this first result."""
        op: Any = node.target
        if not isinstance(result, Tensor):
            self.calls.append(partial(_call_and_copy, op, args, kwargs, result))
            return result
        # The strides must be the recorded ones: later operations may depend on them.
        layout = node.meta["layout"].stride if shape is None else result.stride()
        if result.stride() != layout:
            result = torch.empty_strided(
                result.shape, layout, dtype=result.dtype, device=result.device
            ).copy_(result)
        free = self.free[_layout(result)]
        if free:
            result = free.pop().copy_(result)
        self.owned[node] = result
        into = _out_variant(op)
        if op in COPIES and result.layout == args[0].layout:
            self.calls.append(partial(result.copy_, args[0]))
        elif into is None or torch._debug_has_internal_overlap(result):  # pyright: ignore
            self.calls.append(partial(_call_and_copy, op, args, kwargs, result))
        elif _out_name(into) == "out":
            self.calls.append(_bind_out(into, args, {**kwargs, "out": result}))
        else:
            self.calls.append(partial(into, *args, **kwargs, **{_out_name(into): result}))
        return result


def _without_repetition(args: Any) -> tuple[torch.Size | None, Any]:
    """Narrow the arguments of an elementwise call along dimensions where all of them repeat.

    A distribution that is expanded over many draws has the same parameters for each draw, and what
    is computed from them is computed once.

    Returns:
        the shape of the whole result, or ``None`` if no dimension repeats; and the arguments.
    """
    tensors = [arg for arg in pytree.tree_leaves(args) if isinstance(arg, Tensor)]
    whole = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    repeated = [
        dim
        for dim in range(-len(whole), 0)
        if whole[dim] > 1 and all(_repeats(tensor, dim) for tensor in tensors)
    ]
    if not repeated:
        return None, args

    def narrowed(arg: Any) -> Any:
        for dim in repeated:
            if isinstance(arg, Tensor) and arg.dim() >= -dim:
                arg = arg.narrow(dim, 0, 1)
        return arg

    return whole, pytree.tree_map(narrowed, args)


def _repeats(tensor: Tensor, dim: int) -> bool:
    """Whether a tensor has the same values all along a dimension, by its shape and strides."""
    return tensor.dim() < -dim or tensor.shape[dim] == 1 or tensor.stride(dim) == 0


def _layout(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _bind_out(op: OpOverload, args: Any, kwargs: Any) -> Callable[[], Any]:
    """Bind a call that writes to ``out``, by the builtin of that name in ``torch`` if there is one.

    The builtin takes half the time. ``out`` holds the right values before and afterwards.
    """
    function = getattr(torch, op._overloadpacket.__name__, None)
    if isinstance(function, BuiltinFunctionType):
        expected = kwargs["out"].clone()
        for given in (_numbers_to_tensors(op, args, expected), args):
            with contextlib.suppress(TypeError):
                function(*given, **kwargs)
                if torch.allclose(kwargs["out"], expected, rtol=0, atol=0, equal_nan=True):
                    return partial(function, *given, **kwargs)
        kwargs["out"].copy_(expected)
    return partial(op, *args, **kwargs)


def _numbers_to_tensors(op: OpOverload, args: Any, result: Tensor) -> Any:
    """Turn numbers in the arguments into tensors, which PyTorch would do anew at each call."""
    types = [str(argument.type) for argument in op._schema.arguments]
    return tuple(
        torch.tensor(arg, dtype=result.dtype)
        if kind == "Tensor" and not isinstance(arg, Tensor) and result.is_floating_point()
        else arg
        for arg, kind in zip(args, types, strict=False)
    )


def _bind_in_place(op: OpOverload, args: Any, kwargs: Any) -> Callable[[], Any]:
    """Bind a call that writes to its first argument, likewise; it has been made once already."""
    function = getattr(torch, op._overloadpacket.__name__, None)
    if isinstance(function, BuiltinFunctionType) and torch.Tag.pointwise in op.tags:
        copies = [pytree.tree_map(_clone_tensor, (args, kwargs)) for _ in range(2)]
        with contextlib.suppress(TypeError):
            ours, theirs = (
                call(*args, **kwargs)
                for call, (args, kwargs) in zip((function, op), copies, strict=True)
            )
            if torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True):
                return partial(function, *args, **kwargs)
    return partial(op, *args, **kwargs)


def _clone_tensor(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _call_and_copy(op: Any, args: Any, kwargs: Any, into: Any) -> None:
    """Make a call that cannot write into given memory, and copy its result into ``into``."""
    result = op(*args, **kwargs)
    for own, given in zip(pytree.tree_leaves(into), pytree.tree_leaves(result), strict=True):
        if isinstance(own, Tensor):
            own.copy_(given)


def _out_variant(op: OpOverload) -> OpOverload | None:
    """The overload of an operation that takes memory for its result; ``None`` if it saves nothing
    or does not exist."""
    if op not in INTO_MEMORY and torch.Tag.pointwise not in op.tags:
        return None
    packet = op._overloadpacket
    wanted = [(argument.name, str(argument.type)) for argument in op._schema.arguments]
    for name in packet.overloads():
        other = getattr(packet, name)
        arguments = other._schema.arguments
        plain = [(arg.name, str(arg.type)) for arg in arguments if not arg.is_out]
        if len(arguments) == len(wanted) + 1 and plain == wanted:
            return other
    return None


def _out_name(op: OpOverload) -> str:
    """The name of the argument that takes the memory for the result."""
    return next(argument.name for argument in op._schema.arguments if argument.is_out)
