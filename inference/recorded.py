"""Functions of tensors that are run as they are until it pays to record them."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .precision import Precision, multiplying

Compile = Literal["recorded", "inductor", "plain"]

RECORD_AFTER = 1.0
"""Seconds of plain calls after which a recording pays: about as many as it takes."""


@dataclass
class _Shape:
    """What is known of arguments of one shape."""

    seconds: float = 0.0
    """How long plain calls have taken."""
    before: tuple[Tensor, ...] = ()
    """The arguments of the last call but one."""
    recorded: Callable[..., Any] | None = None
    confirmed: bool = False


class Recorded:
    """A function of tensors that is recorded once it pays, and then run from its recording.

    Pyro's handlers take longer than the arithmetic of a small pair. A recording runs the same
    operations of PyTorch on the same numbers without them, and gives the same results, bit for bit
    on a CPU. It is of one shape of arguments, and made once calls of that shape have taken a
    second, so that short work does not wait for it. It is made twice, of two calls, and compared,
    and then held against one more plain call. A function that does not do the same each time, or
    that looks at values to decide what to do, goes on plainly, and :attr:`note` says why.

    Args:
        function: of tensors, to tensors in tuples.
        buffers: what it may write on; neither recording nor comparison leaves a trace there.
        compile: ``"recorded"``; ``"inductor"``: the recording, compiled by PyTorch's Inductor,
            which needs a C++ compiler and some ten seconds or more for each shape; ``"plain"``.
        precision: see :func:`latente.inference.precision.multiplying`.
        record_after: how many seconds of plain calls come first.

    Raises:
        ValueError: if ``compile`` or ``precision`` is another; when called, if Inductor fails.

    >>> double = Recorded(lambda x: (2 * x,), record_after=0)
    >>> [double(torch.tensor([n]))[0].item() for n in (1.0, 2.0, 3.0, 4.0)], double.stays
    ([2.0, 4.0, 6.0, 8.0], True)
    >>> choosy = Recorded(lambda x: (x if x > 2 else -x,), record_after=0)
    >>> [choosy(torch.tensor(n))[0].item() for n in (1.0, 2.0, 3.0, 4.0)], choosy.note
    ([-1.0, -2.0, 3.0, 4.0], 'what it does depends on values of tensors')
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        buffers: Sequence[Tensor] = (),
        compile: Compile = "recorded",
        precision: Precision = "float32",
        record_after: float = RECORD_AFTER,
    ):
        if compile not in get_args(Compile):
            raise ValueError(f"compile is 'recorded', 'inductor' or 'plain', got {compile!r}")
        with multiplying(precision):
            self.function, self.buffers = function, buffers
        self.compile: Compile = compile
        self.precision: Precision = precision
        self.record_after = record_after if compile == "recorded" else 0.0
        self.note = ""
        """Why calls are plain that were to be recorded; empty if they are not."""
        self.stays = False
        """Whether the last result lies in memory that the next of this shape is written to."""
        self._plainly = compile == "plain"
        self._shapes: dict[Any, _Shape] = {}

    def __call__(self, *args: Tensor) -> Any:
        """What the function gives."""
        shape = self._shapes.setdefault(_shapes(args), _Shape())
        self.stays = shape.confirmed and self.compile == "recorded"
        if shape.confirmed:
            assert shape.recorded is not None
            return self._run(shape.recorded, args)
        expected = None if shape.recorded is None else self._try(shape.recorded, args)
        began = time.perf_counter()
        with multiplying(self.precision):
            result = self.function(*args)
        shape.seconds += time.perf_counter() - began
        if expected is not None:
            shape.confirmed = _agree(expected, result)
            if not shape.confirmed:
                self._give_up("a recording of it gave other numbers than it gave itself")
        elif not self._plainly and shape.before and shape.seconds >= self.record_after:
            self._record(shape, args)
        shape.before = args
        return result

    def find(self, *args: Tensor) -> Callable[..., Any] | None:
        """The recording that is run at arguments of these shapes; ``None`` where there is none."""
        shape = self._shapes.get(_shapes(args))
        return shape.recorded if shape is not None and shape.confirmed else None

    def _try(self, recorded: Callable[..., Any], args: tuple[Tensor, ...]) -> Any:
        """What a recording gives, with all that it does undone; ``None`` where it fails."""
        try:
            with self._undone():
                return pytree.tree_map(torch.clone, self._run(recorded, args))
        except RuntimeError as error:
            self._give_up(f"a recording of it fails ({str(error).splitlines()[0]})")
            return None

    def _run(self, recorded: Callable[..., Any], args: tuple[Tensor, ...]) -> Any:
        # Rounding to bfloat16 is part of what was recorded; "medium" is a state of PyTorch.
        if self.precision != "medium":
            return recorded(*args)
        with multiplying("medium"):
            return recorded(*args)

    def _record(self, shape: _Shape, args: tuple[Tensor, ...]) -> None:
        # Loading what records takes a second, which short work is to be spared.
        from .recording import CannotRecord, difference, record
        from .replaying import Replay

        def function(*args: Tensor) -> Any:
            with multiplying(self.precision):
                return self.function(*args)

        try:
            with self._undone():
                recording = record(function, args)
                torch.rand(())  # the second is to meet other random numbers
                differs = difference(recording, record(function, shape.before))
                if differs:
                    raise CannotRecord(differs)
                inductor = self.compile == "inductor"
                shape.recorded = _compiled(recording) if inductor else Replay(recording, args)
        except (CannotRecord, RuntimeError) as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        self.note, self._plainly = why, True
        self._shapes.clear()

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        """Put back random state and buffers as they were."""
        kept = [buffer.clone() for buffer in self.buffers]
        with torch.random.fork_rng():
            yield
        with torch.no_grad():
            for buffer, value in zip(self.buffers, kept, strict=True):
                buffer.copy_(value)


def _shapes(args: tuple[Tensor, ...]) -> Any:
    return tuple((arg.shape, arg.dtype) for arg in args)


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether two results are the same up to rounding, where they are finite."""
    pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
    return all(_close(a, b) if isinstance(b, Tensor) else a is b for a, b in pairs)


def _close(a: Tensor, b: Tensor) -> bool:
    scale = b.detach().abs().max().item() if b.numel() else 0.0
    tolerance = 1e-9 if b.dtype == torch.float64 else 1e-3
    return not math.isfinite(scale) or (a - b).abs().max().item() <= tolerance * scale


def _compiled(recording: GraphModule) -> Callable[..., Any]:
    """A recording, compiled; its random numbers stay those of PyTorch's own operations."""
    from torch._inductor import config
    from torch._inductor.exc import InductorError

    function = torch.compile(recording, fullgraph=True, dynamic=False)

    def call(*args: Tensor) -> Any:
        with config.patch(fallback_random=True), torch.no_grad():
            try:
                return function(*args)
            except InductorError as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(
                    f"Inductor could not compile the recording ({reason}): it takes a C++ "
                    "compiler; leave compile at 'recorded'"
                ) from error

    return call
