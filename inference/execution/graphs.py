"""Recorded graphs: what lies in the same memory, and the graph without what it does not need."""

import operator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

aten = torch.ops.aten


UNDECLARED_VIEWS = {
    aten._unsafe_view.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
}


UNDECLARED_WRITES = {
    aten.native_batch_norm.default,
    aten.cudnn_batch_norm.default,
    aten.miopen_batch_norm.default,
    aten.rrelu_with_noise.default,
}
"""Operations that write on batch statistics, or on noise, and do not say so."""


VIEWS_IN_PLACE = {
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.t_.default: aten.t.default,
    aten.transpose_.default: aten.transpose.int,
    aten.unsqueeze_.default: aten.unsqueeze.default,
}
"""Operations that give a tensor another shape for good, and what gives a view of that shape."""


WITHOUT_EFFECT = {aten.alias.default, aten.detach.default, aten.lift_fresh.default}


NEUTRAL = {aten.mul.Tensor: 1, aten.div.Tensor: 1, aten.add.Tensor: 0, aten.pow.Tensor_Scalar: 1}


def is_view(node: Node) -> bool:
    """Whether what a call gives lies in the memory of what it is given."""
    op = node.target
    if op is operator.getitem:
        return True
    if not isinstance(op, OpOverload) or op._schema.is_mutable:
        return False
    return op in UNDECLARED_VIEWS or any(
        result.alias_info is not None for result in op._schema.returns
    )


def is_mutable(node: Node) -> bool:
    """Whether a call writes on what it is given."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def counts(node: Node) -> bool:
    """Whether a call that does not say that it writes counts each time: it draws, or does write."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags or node.target in UNDECLARED_WRITES


def _written(node: Node) -> list[Node]:
    """The arguments that a call writes on."""
    if not is_mutable(node):
        return []
    op: Any = node.target
    found = []
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            found += [arg for arg in pytree.tree_leaves(value) if isinstance(arg, Node)]
    return found


class Memory:
    """Which nodes of a graph lie in the same memory, and which memory is written on again."""

    def __init__(self, graph: Graph):
        self.of: dict[Node, Node] = {}
        self.written: set[Node] = set()
        for node in graph.nodes:
            source = node.args[0] if node.op == "call_function" and is_view(node) else None
            written = _written(node)
            if written:
                source = written[0]
            self.of[node] = self.of[source] if isinstance(source, Node) else node
            self.written |= {self.of[arg] for arg in written}

    def is_fixed(self, node: Node) -> bool:
        """Whether a call is of nothing, and gives nothing, that is written on."""
        used = {self.of[node], *(self.of[arg] for arg in node.all_input_nodes)}
        return not used & self.written


def simplify(graph: Graph) -> None:
    """Leave out what has no effect, what is not used, and what was computed before."""
    for node in graph.nodes:
        node.target = VIEWS_IN_PLACE.get(node.target, node.target)
    memory = Memory(graph)
    seen: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            key = node.target
        elif node.op == "call_function" and memory.is_fixed(node) and not counts(node):
            if _does_nothing(node):
                node.replace_all_uses_with(node.args[0])
                continue
            key = f"{node.target} {node.args} {node.kwargs}"
        else:
            continue
        if key in seen:
            node.replace_all_uses_with(seen[key])
        else:
            seen[key] = node
    graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or is_mutable(node) or counts(node)
    )


def _does_nothing(node: Node) -> bool:
    op: Any = node.target
    if op in WITHOUT_EFFECT:
        return True
    if op not in NEUTRAL or node.kwargs or node.args[1] != NEUTRAL[op]:
        return False
    source, result = (part.meta.get("val") for part in (node.args[0], node))  # pyright: ignore
    if not isinstance(source, Tensor) or not isinstance(result, Tensor):
        return False
    return source.dtype == result.dtype and source.shape == result.shape


def ancestors_of_first(graph: Graph) -> set[Node]:
    """What the first result is made of."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    todo, found = output.all_input_nodes[:1], set()
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found
