"""Recorded graphs: which nodes share memory, and how a graph is simplified."""

import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

aten = torch.ops.aten


UNDECLARED_VIEWS = {
    aten._unsafe_view.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
}
"""Operations that return views, although their schemas do not say so."""


UNDECLARED_WRITES = {
    aten.native_batch_norm.default,
    aten.cudnn_batch_norm.default,
    aten.miopen_batch_norm.default,
    aten.rrelu_with_noise.default,
}
"""Operations that write to batch statistics or noise, although their schemas do not say so."""


VIEWS_IN_PLACE = {
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.t_.default: aten.t.default,
    aten.transpose_.default: aten.transpose.int,
    aten.unsqueeze_.default: aten.unsqueeze.default,
}
"""Operations that change the shape of a tensor in place, and those that return such a view."""


IDENTITIES = {aten.alias.default, aten.detach.default, aten.lift_fresh.default}
"""Operations that return their argument unchanged."""


NEUTRAL_OPERANDS = {
    aten.mul.Tensor: 1,
    aten.div.Tensor: 1,
    aten.add.Tensor: 0,
    aten.pow.Tensor_Scalar: 1,
}
"""Operations that return their first argument unchanged if the second is this number."""


def is_view(node: Node) -> bool:
    """Whether the result of a call lies in the memory of its first argument."""
    op = node.target
    if op is operator.getitem:
        return True
    if not isinstance(op, OpOverload) or op._schema.is_mutable:
        return False
    return op in UNDECLARED_VIEWS or any(
        result.alias_info is not None for result in op._schema.returns
    )


def is_mutable(node: Node) -> bool:
    """Whether a call writes to its arguments, according to its schema."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def is_impure(node: Node) -> bool:
    """Whether a call draws random numbers, or writes to its arguments although its schema does not
    say so: it cannot be left out or shared."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags or node.target in UNDECLARED_WRITES


def _written(node: Node) -> list[Node]:
    """The arguments that a call writes to."""
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
    """Which nodes of a graph share memory, and which memory is written to after it is made."""

    def __init__(self, graph: Graph):
        self.owner: dict[Node, Node] = {}
        """By node, the first node that lies in its memory."""
        self.written: set[Node] = set()
        """The owners of memory that is written to."""
        for node in graph.nodes:
            source = node.args[0] if node.op == "call_function" and is_view(node) else None
            written = _written(node)
            if written:
                source = written[0]
            self.owner[node] = self.owner[source] if isinstance(source, Node) else node
            self.written |= {self.owner[arg] for arg in written}

    def is_read_only(self, node: Node) -> bool:
        """Whether neither the arguments nor the result of a call are ever written to."""
        used = {self.owner[node], *(self.owner[arg] for arg in node.all_input_nodes)}
        return not used & self.written


def simplify(graph: Graph) -> None:
    """Remove calls without effect, unused calls, and repeated calls, in place."""
    for node in graph.nodes:
        node.target = VIEWS_IN_PLACE.get(node.target, node.target)
    memory = Memory(graph)
    seen: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            key = node.target
        elif node.op == "call_function" and memory.is_read_only(node) and not is_impure(node):
            if _is_identity(node):
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
        lambda node: node.op in ("placeholder", "output") or is_mutable(node) or is_impure(node)
    )


def _is_identity(node: Node) -> bool:
    """Whether a call returns its first argument unchanged."""
    op: Any = node.target
    if op in IDENTITIES:
        return True
    if op not in NEUTRAL_OPERANDS or node.kwargs or node.args[1] != NEUTRAL_OPERANDS[op]:
        return False
    source, result = (part.meta.get("layout") for part in (node.args[0], node))  # pyright: ignore
    if source is None or result is None:
        return False
    return source.dtype == result.dtype and source.shape == result.shape


def ancestors_of_first_result(graph: Graph) -> set[Node]:
    """The nodes that the first result depends on."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    todo, found = output.all_input_nodes[:1], set()
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found
