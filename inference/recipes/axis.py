"""An axis of a composition: its parts by name, and how a text chooses one."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..common.lookup import find_named, list_names
from .parameters import Kind, Parameter, Value, text_of


@dataclass(frozen=True)
class Part:
    """A part of an axis, such as the prior ``vamp``: its name, its paper and its builder.

    The keyword-only arguments of ``build`` are the part's parameters: each is annotated with its
    :class:`Kind`, and has a default. Do not change a default: a run folder has only the values that
    were given.
    """

    name: str
    summary: str
    paper: str
    build: Callable[..., Any]
    sequences: bool = field(default=False, kw_only=True)
    """Whether it is for sequences alone, each of a length of its own."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters, in order."""
        signature = inspect.signature(self.build, eval_str=True)
        return tuple(
            Parameter(name, _kind_of(argument.annotation), argument.default)
            for name, argument in signature.parameters.items()
            if argument.kind is argument.KEYWORD_ONLY
        )


def _kind_of(annotation: Any) -> Kind:
    (kind,) = [part for part in annotation.__metadata__ if isinstance(part, Kind)]
    return kind


P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class Choice(Generic[P]):
    """A part with the values of its parameters, read from a text and printed as that text.

    Choices are equal if part and values are equal: ``iwae`` and ``iwae:k=5`` are.
    """

    part: P
    values: tuple[tuple[str, Value], ...]
    """All parameters in order, each with its value."""
    text: str = field(compare=False)

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name

    def __getitem__(self, parameter: str) -> Any:
        """The value of a parameter."""
        return dict(self.values)[parameter]

    def build(self, *inputs: Any) -> Any:
        """Build the part from the inputs of its axis."""
        return self.part.build(*inputs, **dict(self.values))

    def __str__(self) -> str:
        return self.text


class Axis(Mapping[str, P]):
    """The parts of an axis by name.

    Args:
        name: the name of its parts in errors, such as ``"prior"``.
        *parts: the parts, in the order of the list.

    >>> from latente.inference.recipes.parameters import Count
    >>> def flow(*, transforms: Count = 3): ...
    >>> axis = Axis("prior", Part("flow", "a flow", "Chen et al. 2017", flow))
    >>> axis.parse("flow:transforms=5")["transforms"]
    5
    >>> axis.parse("flow:transform=5")
    Traceback (most recent call last):
    ValueError: the prior flow has no parameter 'transform': did you mean 'transforms'? ...
    """

    def __init__(self, name: str, *parts: P):
        self.name = name
        self._parts = {part.name: part for part in parts}

    def __getitem__(self, name: str) -> P:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def parse(self, text: str) -> Choice[P]:
        """Read the text of a choice: ``NAME`` or ``NAME:VALUE,…,PARAMETER=VALUE,…``.

        Values without a name are those of the first parameters, in order.

        Raises:
            ValueError: if there is no such part or parameter, with the nearest name; or if a value
                is not allowed, or is given twice.
        """
        text = text.strip()
        name, colon, listed = text.partition(":")
        part = find_named(name, self, self.name)
        if colon and not listed:
            raise ValueError(f"{text!r} ends in a colon: {self._usage(part)}")
        given = self._read(part, listed.split(",") if listed else [])
        values = [(known.name, given.get(known.name, known.default)) for known in part.parameters]
        return Choice(part, tuple(values), text)

    def _read(self, part: P, items: list[str]) -> dict[str, Value]:
        """Read the values that are given, by parameter."""
        known = {parameter.name: parameter for parameter in part.parameters}
        owner, given = f"the {self.name} {part.name}", {}
        for position, item in enumerate(items):
            first, equals, rest = item.partition("=")
            if not equals and any("=" in former for former in items[:position]):
                raise ValueError(f"values of {owner} without a name come first, unlike {item!r}")
            if not equals and position >= len(known):
                raise ValueError(f"{owner} has no parameter for {item!r}: {self._usage(part)}")
            name, value = (first.strip(), rest) if equals else (list(known)[position], first)
            if name not in known:
                hint = list_names(name, known, "it takes") if known else self._usage(part)
                raise ValueError(f"{owner} has no parameter {name!r}: {hint}")
            if name in given:
                raise ValueError(f"{name} of {owner} is given twice")
            given[name] = known[name].value_of(value.strip(), owner)
        return given

    def _usage(self, part: P) -> str:
        """Describe how to write a part with its parameters."""
        parameters = part.parameters
        if not parameters:
            return f"it takes no parameters, write {part.name}"
        listed = ",".join(f"{known.name}={text_of(known.default)}" for known in parameters)
        return f"write {part.name}, or {part.name}:{listed} with other values"
