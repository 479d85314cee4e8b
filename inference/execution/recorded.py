"""Functions of tensors that are run as they are until it pays to record them."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .precision import Precision, layer_precision
from .recorder import CannotRecord, Recording
from .recording import difference, record
from .replaying import Replay
from .side_effects import undone

Compile = Literal["recorded", "inductor", "plain"]


RECORD_AFTER = 0.25
"""Seconds of plain calls after which a recording pays: about as many as it takes."""


FIRST_CHECK = 16
"""Calls that a recording is first trusted for; then twice as many, and so on."""


MOST_SHAPES = 8
"""Shapes that are recorded: each takes memory."""


@dataclass
class _Shape:
    """What is known of arguments of one shape."""

    seconds: float = 0.0
    """How long plain calls have taken."""
    before: tuple[Tensor, ...] = ()
    """The arguments of the last plain call."""
    recorded: Callable[..., Any] | None = None
    left: int = 0
    """For how many more calls the recording is trusted."""
    span: int = FIRST_CHECK


class Recorded:
    """A function of tensors that is recorded once it pays, and then run from its recording.

    Pyro's handlers take longer than the arithmetic of a small pair. A recording runs the same
    operations of PyTorch on the same numbers without them, and gives the same results, bit for bit
    on a CPU. It is of one shape of arguments, and made once calls of that shape have taken a
    quarter of a second, so that short work does not wait for it. It is made twice, of two calls,
    and compared, and held against a plain call before it is used, and again after 16, 32, 64 …
    calls. A function that does not do the same each time, or that looks at values to decide what to
    do, goes on plainly, and :attr:`note` says why.

    What changes from call to call has to be in tensors that stay the same objects, as parameters,
    buffers and a schedule's weight do. Of a Python number that changes later a recording knows
    nothing, until it is next held against a plain call.

    Args:
        function: of tensors, to tensors in tuples. From a recording they carry no gradient.
        tensors: what it may write on, beside its results.
        keeping: a context in which it may be run without leaving other traces.
        compile: ``"recorded"``; ``"inductor"``: the recording, compiled by PyTorch's Inductor,
            which needs a C++ compiler and some ten seconds or more for each shape; ``"plain"``.
        precision: see :func:`latente.inference.execution.precision.layer_precision`.
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
        tensors: Sequence[Tensor] = (),
        keeping: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        compile: Compile = "recorded",
        precision: Precision = "float32",
        record_after: float = RECORD_AFTER,
    ):
        if compile not in get_args(Compile):
            raise ValueError(f"compile is 'recorded', 'inductor' or 'plain', got {compile!r}")
        with layer_precision(precision):
            self.function, self.tensors, self.keeping = function, tensors, keeping
        self.compile: Compile = compile
        self.precision: Precision = precision
        self.record_after = record_after if compile == "recorded" else 0.0
        self.note = ""
        """Why calls are plain that were to be recorded; empty if they are not."""
        self.stays = False
        """Whether the last result lies in memory that the next of this shape is written to."""
        self._plainly = compile == "plain"
        self._shapes: dict[Any, _Shape] = {}
        self._calls = 0

    def __call__(self, *args: Tensor) -> Any:
        """What the function gives."""
        self._calls += 1
        shape = self._shapes.setdefault(_shapes(args), _Shape())
        if shape.left and shape.recorded is not None:
            shape.left -= 1
            self.stays = self.compile == "recorded"
            return self._run(shape.recorded, args)
        self.stays = False
        expected = None if shape.recorded is None else self._try(shape.recorded, args)
        began = time.perf_counter()
        with layer_precision(self.precision):
            result = self.function(*args)
        shape.seconds += time.perf_counter() - began
        if expected is not None:
            self._confirm(shape, expected, (result, self.tensors))
        elif not self._plainly and shape.recorded is None:
            if shape.before and shape.seconds >= self.record_after:
                self._record(shape, args)
            shape.before = () if self._plainly else args
        return result

    def find(self, *args: Tensor) -> Callable[..., Any] | None:
        """The recording that is run at arguments of these shapes; ``None`` where there is none."""
        shape = self._shapes.get(_shapes(args))
        return shape.recorded if shape is not None and shape.span > FIRST_CHECK else None

    def _try(self, recorded: Callable[..., Any], args: tuple[Tensor, ...]) -> Any:
        """What a recording gives and writes, all of it undone; ``None`` where it fails."""
        try:
            with undone(self.tensors, self.keeping):
                result = self._run(recorded, args)
                return pytree.tree_map_only(Tensor, torch.clone, (result, self.tensors))
        except (RuntimeError, TypeError) as error:
            self._give_up(f"a recording of it fails ({_first_line(error)})")
            return None

    def _confirm(self, shape: _Shape, expected: Any, given: Any) -> None:
        if _agree(expected, given, exactly=self.compile == "recorded"):
            shape.left, shape.span = shape.span, 2 * shape.span
        elif shape.span == FIRST_CHECK:
            self._give_up("a recording of it gave other numbers than it gave itself")
        else:
            self._give_up(
                f"at call {self._calls} it did something else than it did up to call "
                f"{self._calls - shape.span // 2}: keep what changes in tensors"
            )

    def _run(self, recorded: Callable[..., Any], args: tuple[Tensor, ...]) -> Any:
        # Rounding to bfloat16 is part of what was recorded; "medium" is a state of PyTorch.
        if self.precision != "medium":
            return recorded(*args)
        with layer_precision("medium"):
            return recorded(*args)

    def _record(self, shape: _Shape, args: tuple[Tensor, ...]) -> None:
        if sum(known.recorded is not None for known in self._shapes.values()) >= MOST_SHAPES:
            return

        def function(*args: Tensor) -> Any:
            with layer_precision(self.precision):
                return self.function(*args)

        try:
            with undone(self.tensors, self.keeping):
                recording = record(function, args)
                torch.rand(())  # the second is to meet other random numbers
                differs = difference(recording, record(function, shape.before))
                if differs:
                    raise CannotRecord(differs)
                inductor = self.compile == "inductor"
                shape.recorded = _compiled(recording) if inductor else Replay(recording, args)
        except CannotRecord as error:
            self._give_up(str(error))
        except Exception as error:  # plain calls do without whatever failed here
            self._give_up(f"a recording of it cannot be run ({_first_line(error)})")

    def _give_up(self, why: str) -> None:
        self.note, self._plainly = why, True
        self._shapes.clear()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _shapes(args: tuple[Tensor, ...]) -> Any:
    return tuple((arg.shape, arg.dtype) for arg in args)


def _agree(ours: Any, theirs: Any, exactly: bool) -> bool:
    """Whether two results are the same: on a CPU bit for bit, else up to rounding."""
    pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
    return all(_close(a, b, exactly) if isinstance(b, Tensor) else a is b for a, b in pairs)


def _close(a: Tensor, b: Tensor, exactly: bool) -> bool:
    a, b = a.detach().nan_to_num(), b.detach().nan_to_num()
    # A number that a program takes out of a tensor, and moves a little each time, is as it was in
    # a recording: what is nearly right may be that.
    if exactly and b.device.type == "cpu":
        return torch.equal(a, b)
    tolerance = 1e-9 if b.dtype == torch.float64 else 1e-3
    return not b.numel() or bool((a - b).abs().max() <= tolerance * b.abs().max())


def _compiled(recording: Recording) -> Callable[..., Any]:
    """A recording, compiled; its random numbers stay those of PyTorch's own operations."""
    from torch._inductor import config
    from torch._inductor.exc import InductorError

    function = torch.compile(
        GraphModule(recording.tensors, recording.graph), fullgraph=True, dynamic=False
    )

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
