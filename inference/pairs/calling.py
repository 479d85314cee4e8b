"""How a pair's programs are called: rows of data as their arguments, and their plate of data."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch import Size, Tensor

from .programs import Program, WrappedProgram, modules
from .sites import DATA_PLATE

SET_PLATE = "latente_data_set"
"""The plate over data sets, around a program whose data set is one datum."""


@dataclass(frozen=True)
class Argument:
    """One argument of a program: rows of data, or a constant."""

    row: int | None = None
    """Which of the rows (x, *context) it is; ``None``: a constant."""
    rows_dim: int = 0
    """Its dimension along which the rows lie."""
    keyword: str | None = None
    """Its keyword; ``None``: it is given by position."""
    constant: Any = None
    """The value of a constant."""

    def take(self, rows: Sequence[Any], whole: bool) -> Any:
        """The argument for rows of data, each (N, …).

        Args:
            whole: whether a row is a whole data set.
        """
        if self.row is None:
            return self.constant
        value = rows[self.row]
        if whole:
            if len(value) != 1:
                raise ValueError(f"{len(value)} data sets were given at once, instead of one")
            value = value[0]
        return value.movedim(0, self.rows_dim) if self.rows_dim else value

    def arrange(self, part: Any, whole: bool) -> Any:
        """The rows (N, …) of what was given for the argument."""
        part = part.movedim(self.rows_dim, 0) if self.rows_dim else part
        return part[None] if whole else part


@dataclass(frozen=True)
class Calling:
    """How the programs of a pair are called with rows (x, *context).

    Inside the library a pair has one form: ``program(x, *context)`` with x first, which the model
    observes, each argument with one row a datum, and a plate named ``"data"`` over the rows. A pair
    whose programs have another form is called through :meth:`adapt`.
    """

    arguments: tuple[Argument, ...]
    """In the order in which they are given."""
    plate: str | None
    """The name of the plate over the data; ``None``: the whole data set is one datum."""
    guide_plate: str | None = None
    """The name that this plate has in the guide, if another one."""
    nesting: int = 0
    """The number of batch dimensions of the programs' plates, where the data set is one datum."""
    subsample_size: int | None = None
    """How many data the plate draws itself, if it does."""
    taken_whole: tuple[str, ...] = ()
    """Plates that draw a subsample of their own. They are made to take all that they are given: a
    batch of data is drawn by the library."""

    def arrange(self, parts: Sequence[Any]) -> tuple[Any, ...]:
        """Rows (x, *context), each (N, …), from the parts that a user gave, in their order."""
        rows = {
            argument.row: argument.arrange(part, self.plate is None)
            for argument, part in zip(self.arguments, parts, strict=True)
            if argument.row is not None
        }
        return tuple(rows[number] for number in sorted(rows))

    def given(self, rows: Sequence[Any]) -> Any:
        """The data as a user gives them, from one data set as one datum: x, a tuple, or a dict."""
        parts = tuple(part.take(rows, True) for part in self.arguments)
        if any(part.keyword is not None for part in self.arguments):
            return {part.keyword: value for part, value in zip(self.arguments, parts, strict=True)}
        return parts[0] if len(parts) == 1 else parts

    def take(self, rows: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the programs for rows (x, *context), by position and by keyword."""
        whole = self.plate is None
        taken = [(part.keyword, part.take(rows, whole)) for part in self.arguments]
        by_position = [value for keyword, value in taken if keyword is None]
        return by_position, {keyword: value for keyword, value in taken if keyword is not None}

    def give_back(self, rows: Sequence[Any]) -> Any:
        """Rows (x, *context) as the user gives data: a tuple, or a dict of keyword arguments."""
        by_position, by_keyword = [], {}
        for argument in self.arguments:
            value = argument.constant
            if argument.row is not None:
                value = rows[argument.row]
                value = value.movedim(0, argument.rows_dim) if argument.rows_dim else value
            if argument.keyword is None:
                by_position.append(value)
            else:
                by_keyword[argument.keyword] = value
        return by_keyword or tuple(by_position)

    def of_one_datum(self, nesting: int) -> "Calling":
        """The same arguments, with the whole data set as one datum.

        Args:
            nesting: the number of batch dimensions of the programs' plates.
        """
        return replace(self, plate=None, nesting=nesting)

    def adapt(self, program: Program) -> "AdaptedProgram":
        """The program in the form that the library uses."""
        return AdaptedProgram(program, self)


def name_arguments(model: Program, count: int) -> list[str]:
    """A name for each of the rows (x, *context): its keyword, or its position in the user's call.

    >>> name_arguments(print, 2)
    ['context_0', 'context_1']
    """
    names = [f"context_{number}" for number in range(count)]
    if isinstance(model, AdaptedProgram):
        for position, argument in enumerate(model.calling.arguments):
            if argument.row is not None:
                names[argument.row] = argument.keyword or f"context_{position}"
    return names


def name_data_plate(model: Program) -> str:
    """The plate of a model's data in words, by the name that its user gave it.

    >>> name_data_plate(print)
    "the plate 'data'"
    """
    if not isinstance(model, AdaptedProgram):
        return f"the plate {DATA_PLATE!r}"
    plate = model.calling.plate
    return "the plate of data" if plate is None else f"the plate {plate!r}"


class AdaptedProgram(WrappedProgram):
    """A program that is called with rows (x, *context), whatever its own arguments are."""

    def __init__(self, program: Program, calling: Calling):
        super().__init__(program)
        self.calling = calling

    def __call__(self, *rows: Any) -> Any:
        """Run the program on rows of data."""
        calling, whole = self.calling, self.calling.plate is None
        if whole:
            self._set_up(rows)
        by_position, by_keyword = calling.take(rows)
        with ExitStack() as stack:
            names = (SET_PLATE,) if whole else (calling.plate, calling.guide_plate)
            stack.enter_context(_DataPlate(names, len(rows[0])))
            if whole:
                stack.enter_context(_SetPlate(-1 - calling.nesting))
            if calling.taken_whole:
                sizes = {} if calling.plate is None else {calling.plate: len(rows[0])}
                stack.enter_context(taking_all(calling.taken_whole, sizes))
            return self.program(*by_position, **by_keyword)

    def _set_up(self, rows: tuple[Any, ...]) -> None:
        """Run an autoguide that was not run so far outside the plate of data sets.

        It keeps the plates of its first run, and its user knows nothing of that plate.
        """
        parts = [part for root in modules(self, self).values() for part in root.modules()]
        if any(isinstance(part, AutoGuide) and part.prototype_trace is None for part in parts):
            by_position, by_keyword = self.calling.take(rows)
            with poutine.block():
                self.program(*by_position, **by_keyword)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, AdaptedProgram)
            and self.program == other.program
            and self.calling is other.calling
        )

    def __hash__(self) -> int:
        return hash((self.program, id(self.calling)))


def is_one_datum(program: Program) -> bool:
    """Whether a program takes a whole data set as one datum."""
    return isinstance(program, AdaptedProgram) and program.calling.plate is None


def as_written(program: Program) -> Program:
    """The program as its user calls it."""
    return program.program if isinstance(program, AdaptedProgram) else program


class CalledAsWritten(WrappedProgram):
    """A program in the library's form that is called with the arguments of a user's programs."""

    def __init__(self, program: Program, calling: Calling):
        super().__init__(program)
        self.calling = calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on the rows among the arguments."""
        given = iter(args)
        parts = [
            next(given) if argument.keyword is None else kwargs[argument.keyword]
            for argument in self.calling.arguments
        ]
        return self.program(*self.calling.arrange(parts))


def called_as_written(model: Program, program: Program) -> Program:
    """A program in the library's form, so that it goes with the model that its user wrote."""
    if not isinstance(model, AdaptedProgram):
        return program
    return CalledAsWritten(program, model.calling)


class _DataPlate(Messenger):
    """Name a program's plate ``"data"``, and give it its size if it has none."""

    def __init__(self, plates: tuple[str | None, ...], size: int):
        super().__init__()
        self.plates, self.size = plates, size

    def _pyro_sample(self, msg: Any) -> None:
        msg["cond_indep_stack"] = tuple(map(self._name, msg["cond_indep_stack"]))

    def _name(self, frame: CondIndepStackFrame) -> CondIndepStackFrame:
        if frame.name in self.plates:
            size = self.size if frame.size == -1 else frame.size
            return replace_frame(frame, DATA_PLATE, size)
        if frame.name == DATA_PLATE:
            return replace_frame(frame, f"{DATA_PLATE} (not of rows)", frame.size)
        return frame


def replace_frame(frame: CondIndepStackFrame, name: str, size: int) -> CondIndepStackFrame:
    """A frame of another name and size."""
    full_size = None if frame.full_size == -1 else frame.full_size
    return CondIndepStackFrame(name, frame.dim, size, frame.counter, full_size)


class _SetPlate(Messenger):
    """The plate over data sets, with one data set, around a program that does not see it.

    Its dimension is to the left of the program's own plates. Sites have it in a trace, so that a
    data set counts as one datum; the values that the program gets do not, so that a matrix product
    with a vector of weights is what it was.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        frame = CondIndepStackFrame(SET_PLATE, self.dim, 1, 0, 1)
        msg["cond_indep_stack"] = (frame, *msg["cond_indep_stack"])
        shape = msg["fn"].batch_shape
        own = Size((1,) * (-self.dim - len(shape)) + tuple(shape))
        if own != shape:
            msg["fn"] = msg["fn"].expand(own)
        msg["latente_shape"] = Size((*shape, *msg["fn"].event_shape))

    def _pyro_post_sample(self, msg: Any) -> None:
        shape, value = msg.get("latente_shape"), msg["value"]
        # Under a plate of samples, the program gets the values of all of them.
        if shape is not None and not msg["is_observed"] and value.numel() == shape.numel():
            msg["value"] = value.reshape(shape)


@contextmanager
def taking_all(
    plates: Collection[str] | None = None, sizes: Mapping[str, int] | None = None
) -> Iterator[dict[str, int]]:
    """Let plates take all of their data, where they ask for a subsample drawn at random.

    Pyro draws the indices in the plate's constructor, with no statement at which a handler could
    change how many there are.

    Args:
        plates: their names; all plates if not given.
        sizes: how many data a plate stands over, by name.

    Yields:
        The size of the subsample that each of them asked for, by name.

    Raises:
        ValueError: within the program, if a plate has another size than its data.
    """
    original, asked = SubsampleMessenger._subsample, {}

    def whole(
        name: str, size: int | None = None, subsample_size: int | None = None,
        subsample: Tensor | None = None, *args: Any,
    ) -> Any:  # fmt: skip
        if subsample_size is not None and subsample is None and (plates is None or name in plates):
            if sizes and sizes.get(name, size) != size:
                raise ValueError(
                    f"the plate {name!r} has {size} elements whatever data it is given, so that a "
                    f"batch of {sizes[name]} cannot be taken: set batch_size={size}, or take the "
                    "size of the plate from the data"
                )
            asked[name], subsample_size = subsample_size, None
        return original(name, size, subsample_size, subsample, *args)

    SubsampleMessenger._subsample = staticmethod(whole)  # pyright: ignore
    try:
        yield asked
    finally:
        SubsampleMessenger._subsample = staticmethod(original)


def as_one_datum(
    model: Program, guide: Program, rows: Sequence[Any], nesting: int
) -> tuple[Program, Program, tuple[Any, ...]]:
    """The view of a pair in which its whole data set is one datum, with all latent sites its own.

    In this view log p(x) is the evidence of the whole data set, and the posterior that of all
    latent variables together, global ones included.

    Args:
        model: a program in the library's form.
        guide: a program of the same arguments.
        rows: (x, *context), each (N, …).
        nesting: the number of batch dimensions of the pair's plates.

    Returns:
        model, guide, and rows (x, *context), each (1, N, …).
    """
    plain = Calling(tuple(Argument(row=number) for number in range(len(rows))), DATA_PLATE)
    calling = model.calling if isinstance(model, AdaptedProgram) else plain
    one = calling.of_one_datum(nesting)
    model, guide = (one.adapt(as_written(program)) for program in (model, guide))
    return model, guide, tuple(part[: len(part)][None] for part in rows)


def give_back(as_given: Program, model: Program, rows: tuple[Any, ...]) -> Any:
    """Rows (x, *context) in the form in which the user of a model gives data.

    Args:
        as_given: the model that was given; its user calls it with arguments of its own.
        model: the same in the library's form.
        rows: each (N, …).
    """
    if model is as_given or not isinstance(model, AdaptedProgram) or model.calling.plate is None:
        return rows
    return model.calling.give_back(rows)
