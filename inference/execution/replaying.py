"""Recorded functions done again and again, in the same memory."""

import contextlib
import operator
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node, map_arg
from torch.utils import _pytree as pytree

from .graphs import Memory, ancestors_of_first, counts, is_mutable, is_view, simplify

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
"""Operations that give the same each time: what they are given counts by its shape alone."""


EMPTY = {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}
"""Operations that give memory to be written on."""


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
"""Operations beside the elementwise ones that can write their result into memory given to them."""


COPIES = {aten.clone.default, aten._to_copy.default}


class Replay:
    """A recording made ready to be run: its memory taken once, its views resolved beforehand.

    What the recording computes twice is computed once, and what is the same each time not at all.
    The numbers are those of the function recorded, bit for bit. The tensors returned are
    overwritten by the next call.

    Args:
        recording: what :func:`latente.inference.recording.record` wrote down; it is changed.
        args: tensors of the shapes it was recorded at, for a first run. It leaves no trace but in
            what the recording writes on, such as batch statistics.

    >>> from latente.inference.execution.recording import record
    >>> x = torch.ones(2)
    >>> replay = Replay(record(lambda x: (2 * x, x.exp() / x.exp()), (x,)), (x,))
    >>> [value.tolist() for value in replay(torch.tensor([1.0, 2.0]))]
    [[2.0, 4.0], [1.0, 1.0]]
    >>> replay
    Replay(3 operations)
    """

    def __init__(self, recording: GraphModule, args: tuple[Tensor, ...]):
        simplify(recording.graph)
        self.inputs = [arg.detach().clone() for arg in args]
        with torch.no_grad(), torch.random.fork_rng():
            plan = _Plan(recording, self.inputs)
        self.calls, self.outputs, self.turn = plan.calls, plan.outputs, plan.turn

    def __call__(self, *args: Tensor) -> Any:
        """What the function gives at these tensors."""
        with torch.no_grad():
            for mine, given in zip(self.inputs, args, strict=True):
                mine.copy_(given)
            for call in self.calls:
                call()
        return self.outputs

    def forward(self) -> None:
        """The calls up to the first result, such as a loss, by themselves."""
        with torch.no_grad():
            for call in self.calls[: self.turn]:
                call()

    def backward(self) -> None:
        """Those after it, such as for its gradient."""
        with torch.no_grad():
            for call in self.calls[self.turn :]:
                call()

    def __repr__(self) -> str:
        return f"Replay({len(self.calls)} operations)"


class _Plan:
    """The run of a recording in which every call is bound to the memory it will always have."""

    def __init__(self, recording: GraphModule, inputs: list[Tensor]):
        graph = recording.graph
        self.memory = Memory(graph)
        self.calls: list[Callable[[], Any]] = []
        self.outputs: Any = None
        self.values: dict[Node, Any] = {}
        self.constant: set[Node] = set()
        self.free: dict[Any, list[Tensor]] = defaultdict(list)
        self.owned: dict[Node, Tensor] = {}
        """By memory, the tensor that it was taken for, where others may have it afterwards."""
        self.turn = 0
        """How many calls come before the first result is there."""
        ends = self._ends(graph)
        first = ancestors_of_first(graph)
        given = iter(inputs)
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(given)
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(node.target)(recording).detach()
            elif node.op == "output":
                self.outputs = self._own(node)
            else:
                self._call(node)
                if node in first:
                    self.turn = len(self.calls)
            for memory in ends[node]:
                if memory in self.owned:
                    tensor = self.owned.pop(memory)
                    self.free[_kind(tensor)].append(tensor)

    def _ends(self, graph: Graph) -> dict[Node, list[Node]]:
        """By node, the memory that nothing uses after it."""
        last: dict[Node, Node] = {}
        for node in graph.nodes:
            for used in (node, *node.all_input_nodes):
                last[self.memory.of[used]] = node
        ends: dict[Node, list[Node]] = defaultdict(list)
        for memory, node in last.items():
            if node.op != "output":
                ends[node].append(memory)
        return ends

    def _own(self, output: Node) -> Any:
        """The results, each in memory of its own: whoever gets them may write on them."""
        taken: set[Node] = set()

        def own(node: Node) -> Any:
            value, memory = self.values[node], self.memory.of[node]
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
        # A view or a sum would notice that what it is given was made smaller.
        if all(map(self._is_elementwise, (node, *node.users))):
            shape, args = _without_repetition(args)
        result = op(*args, **kwargs)
        if is_view(node):
            # Memory stays where it is, and so do views of it.
            if sources[0] in self.constant:
                self.constant.add(node)
        elif is_mutable(node):
            self.calls.append(_bound_in_place(op, args, kwargs))
        elif op in EMPTY:
            self.owned[node] = result
        elif self._stays(node, sources):
            self.constant.add(node)
        else:
            result = self._bind(node, args, kwargs, result, shape)
        self.values[node] = result if shape is None else result.expand(shape)

    def _is_elementwise(self, node: Node) -> bool:
        """Whether a call does the same to each element, by itself, and to nothing else."""
        tags = getattr(node.target, "tags", ())
        return torch.Tag.pointwise in tags and not counts(node) and self.memory.is_fixed(node)

    def _stays(self, node: Node, sources: list[Node]) -> bool:
        """Whether a call gives the same each time."""
        if counts(node) or not self.memory.is_fixed(node):
            return False
        return node.target in FACTORIES or (
            bool(sources) and all(source in self.constant for source in sources)
        )

    def _bind(self, node: Node, args: Any, kwargs: Any, result: Any, shape: Any) -> Any:
        """Let a call put its result into memory that is free, or else keep that of this one."""
        op: Any = node.target
        if not isinstance(result, Tensor):
            self.calls.append(partial(_copy, op, args, kwargs, result))
            return result
        # Laid out as it was recorded: what comes after may depend on it.
        layout = node.meta["val"].stride() if shape is None else result.stride()
        if result.stride() != layout:
            result = torch.empty_strided(
                result.shape, layout, dtype=result.dtype, device=result.device
            ).copy_(result)
        room = self.free[_kind(result)]
        if room:
            result = room.pop().copy_(result)
        self.owned[node] = result
        into = _into_memory(op)
        if op in COPIES and result.layout == args[0].layout:
            self.calls.append(partial(result.copy_, args[0]))
        elif into is None or torch._debug_has_internal_overlap(result):  # pyright: ignore
            self.calls.append(partial(_copy, op, args, kwargs, result))
        elif _out(into) == "out":
            self.calls.append(_bound(into, args, {**kwargs, "out": result}))
        else:
            self.calls.append(partial(into, *args, **kwargs, **{_out(into): result}))
        return result


def _without_repetition(args: Any) -> tuple[torch.Size | None, Any]:
    """Arguments of an elementwise call without the dimensions along which all are one number.

    A distribution that is expanded over many draws is the same for each: what is computed of it
    need not be computed for each. Returns the shape of the whole result too, if there are such
    dimensions.
    """
    tensors = [arg for arg in pytree.tree_leaves(args) if isinstance(arg, Tensor)]
    whole = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    repeated = [
        dim
        for dim in range(-len(whole), 0)
        if whole[dim] > 1 and all(_is_one_number(tensor, dim) for tensor in tensors)
    ]
    if not repeated:
        return None, args

    def narrowed(arg: Any) -> Any:
        for dim in repeated:
            if isinstance(arg, Tensor) and arg.dim() >= -dim:
                arg = arg.narrow(dim, 0, 1)
        return arg

    return whole, pytree.tree_map(narrowed, args)


def _is_one_number(tensor: Tensor, dim: int) -> bool:
    return tensor.dim() < -dim or tensor.shape[dim] == 1 or tensor.stride(dim) == 0


def _kind(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _bound(op: OpOverload, args: Any, kwargs: Any) -> Callable[[], Any]:
    """A call, by PyTorch's own name for the operation where it has one: half the time is spared.

    What it writes on holds the right values already, and will hold them afterwards.
    """
    function = getattr(torch, op._overloadpacket.__name__, None)
    if isinstance(function, BuiltinFunctionType):
        kept = kwargs["out"].clone()
        for given in (_of_tensors(op, args, kept), args):
            with contextlib.suppress(TypeError):
                function(*given, **kwargs)
                if torch.allclose(kwargs["out"], kept, rtol=0, atol=0, equal_nan=True):
                    return partial(function, *given, **kwargs)
        kwargs["out"].copy_(kept)
    return partial(op, *args, **kwargs)


def _of_tensors(op: OpOverload, args: Any, result: Tensor) -> Any:
    """The arguments, numbers among them as tensors, of which PyTorch would make one each time."""
    types = [str(argument.type) for argument in op._schema.arguments]
    return tuple(
        torch.tensor(arg, dtype=result.dtype)
        if kind == "Tensor" and not isinstance(arg, Tensor) and result.is_floating_point()
        else arg
        for arg, kind in zip(args, types, strict=False)
    )


def _bound_in_place(op: OpOverload, args: Any, kwargs: Any) -> Callable[[], Any]:
    """The same of an elementwise call that writes on its first argument, after it is made."""
    function = getattr(torch, op._overloadpacket.__name__, None)
    if isinstance(function, BuiltinFunctionType) and torch.Tag.pointwise in op.tags:
        copies = [pytree.tree_map(_cloned, (args, kwargs)) for _ in range(2)]
        with contextlib.suppress(TypeError):
            ours, theirs = (
                call(*args, **kwargs)
                for call, (args, kwargs) in zip((function, op), copies, strict=True)
            )
            if torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True):
                return partial(function, *args, **kwargs)
    return partial(op, *args, **kwargs)


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _copy(op: Any, args: Any, kwargs: Any, into: Any) -> None:
    """Make a call that cannot write into memory given to it, and copy what it gives there."""
    result = op(*args, **kwargs)
    for mine, given in zip(pytree.tree_leaves(into), pytree.tree_leaves(result), strict=True):
        if isinstance(mine, Tensor):
            mine.copy_(given)


def _into_memory(op: OpOverload) -> OpOverload | None:
    """The form of an operation that takes the memory for its result, where that spares a copy."""
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


def _out(op: OpOverload) -> str:
    return next(argument.name for argument in op._schema.arguments if argument.is_out)
