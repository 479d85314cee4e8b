"""A mode of PyTorch that writes down the operations that are run under it."""

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


CONTAINERS = list, tuple, dict


PLAIN_TYPES = (
    bool, int, float, complex, str, type(None),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
"""Arguments of operations that are written into a recording as they are."""


class CannotRecord(Exception):
    """A function cannot be run from a recording; the message says why, in one line."""


@dataclass(frozen=True)
class Layout:
    """What a recording knows of a tensor, as ``node.meta["layout"]``."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Recording:
    """The operations of a function, and the tensors that it uses without getting them."""

    graph: Graph
    tensors: dict[str, Tensor]
    """By the target of their ``get_attr`` nodes; their values may change between runs."""


class Recorder(TorchDispatchMode):
    """Writes each operation of PyTorch, below automatic differentiation, into a graph.

    Operations are those that a backend runs, so a gradient taken under the mode is written down
    too. Tensors that no recorded operation has made, and that are no argument, are kept in the
    recording as objects.

    It does what ``torch.fx.experimental.proxy_tensor.make_fx`` does on real tensors, without what
    that has for symbolic shapes: it takes a fifth of the time.

    Args:
        args: the arguments, each a placeholder of the graph.

    Raises:
        CannotRecord: under the mode, if a number is taken out of a computed tensor.

    >>> x = torch.zeros(3)
    >>> with Recorder((x,)) as recorder:
    ...     y = x.exp() + 1
    >>> [node.op for node in recorder.finish((y,)).graph.nodes]
    ['placeholder', 'call_function', 'call_function', 'output']
    """

    def __init__(self, args: tuple[Tensor, ...]):
        super().__init__()
        self.graph = Graph()
        self._tensors: dict[str, Tensor] = {}
        """Those that are kept as objects, by their name in the recording."""
        self._names: dict[int, str] = {}
        """Those names, by the identity of the tensor."""
        self._nodes: MutableMapping[Tensor, Node] = WeakTensorKeyDictionary()
        """The latest node that made or changed a tensor."""
        self._constants: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        """Of tensors of one number that follow from ``torch.tensor(number)`` alone, the value."""
        for number, arg in enumerate(args):
            self._track(arg, self.graph.placeholder(f"arg_{number}"))

    def finish(self, result: Any) -> Recording:
        """End the recording with what it returns: tensors, in tuples."""
        self.graph.output(self._noded(result))
        return Recording(self.graph, self._tensors)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [*_tensors(args), *_tensors(kwargs.values())]
        if not all(type(value) in (Tensor, nn.Parameter) for value in given):
            return NotImplemented  # a subclass first does what it does by other operations
        if _is_composite(func, given[0].device.type if given else "cpu"):  # in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        known = all(value in self._constants for value in given if value in self._nodes)
        if torch.Tag.data_dependent_output in func.tags:
            if not known:
                raise CannotRecord("what it does depends on values of tensors")
            return func(*self._with_constants(args), **self._with_constants(kwargs))
        if func is aten.lift_fresh.default:
            # torch.tensor(…): what is written on it later is not written on what is kept.
            func = aten.lift_fresh_copy.default
        node = self.graph.call_function(func, self._noded(args), self._noded(kwargs))
        constant = None
        if func is aten.lift_fresh_copy.default:
            constant = args[0].clone() if args[0].numel() <= 1 else None
        elif (
            known
            and any(value in self._constants for value in given)
            and torch.Tag.nondeterministic_seeded not in func.tags
        ):
            constant = func(*self._with_constants(args), **self._with_constants(kwargs))
        result = func(*args, **kwargs)
        self._track_all(result, node, constant)
        return result

    def _track_all(self, result: Any, node: Node, constant: Any) -> None:
        """Note that a node made a result, and its parts the nodes that take them out of it."""
        if isinstance(result, Tensor):
            self._track(result, node)
            if isinstance(constant, Tensor) and result.numel() <= 1:
                self._constants[result] = constant
            else:
                self._constants.pop(result, None)
        elif isinstance(result, list | tuple):
            for place, part in enumerate(result):
                self._track_all(
                    part, self.graph.call_function(operator.getitem, (node, place)), None
                )

    def _track(self, value: Tensor, node: Node) -> None:
        node.meta["layout"] = Layout(value.shape, value.stride(), value.dtype)
        self._nodes[value] = node

    def _noded(self, value: Any) -> Any:
        """Arguments, with nodes in the place of tensors."""
        if isinstance(value, Tensor):
            node = self._nodes.get(value)
            return self._kept(value) if node is None else node
        if not isinstance(value, CONTAINERS) and not isinstance(value, PLAIN_TYPES):
            raise CannotRecord(f"it uses a {type(value).__name__} of its own")
        return _map_parts(self._noded, value)

    def _kept(self, value: Tensor) -> Node:
        """A node that stands for a tensor that is kept as an object."""
        name = self._names.setdefault(id(value), f"tensor_{len(self._names)}")
        self._tensors[name] = value
        return self.graph.get_attr(name)

    def _with_constants(self, value: Any) -> Any:
        """Arguments, with constants in the place of tensors that have them."""
        if isinstance(value, Tensor):
            return self._constants.get(value, value)
        return _map_parts(self._with_constants, value)


def _map_parts(function: Callable[[Any], Any], value: Any) -> Any:
    """Map the parts of a container; anything else stays."""
    if isinstance(value, list):
        return [*map(function, value)]
    if isinstance(value, tuple):
        return tuple(map(function, value))
    return {n: function(part) for n, part in value.items()} if isinstance(value, dict) else value


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments of an operation, and in lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@functools.cache
def _is_composite(func: OpOverload, device: str) -> bool:
    """Whether an operation is done by others on a device: in inference mode it comes as it is."""
    key: Any = torch._C._parse_dispatch_key(torch._C._dispatch_key_for_device(device))
    own = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
    return func._can_decompose() and not own
