"""Kinds of parameters of a part: how their text is read, and which values are allowed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

Value = bool | int | float | str | tuple[int, ...] | tuple[str, ...]
"""The value of a parameter of a part."""


@dataclass(frozen=True)
class Kind:
    """A kind of parameter: the allowed values, in words, and the function that reads a text.

    The function raises ``ValueError``, with any message, for text that is not allowed.
    """

    allowed: str
    read: Callable[[str], Value]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a part: its name, its kind and its default.

    >>> Parameter("components", at_least(1), 500).value_of("100", "the prior vamp")
    100
    >>> Parameter("components", at_least(1), 500).value_of("0", "the prior vamp")
    Traceback (most recent call last):
    ValueError: components of the prior vamp must be a whole number of at least 1, got '0'
    """

    name: str
    kind: Kind
    default: Value

    def value_of(self, text: str, owner: str) -> Value:
        """Read the text of a value.

        Raises:
            ValueError: naming the parameter, its owner and the allowed values.
        """
        try:
            return self.kind.read(text)
        except ValueError:
            raise ValueError(
                f"{self.name} of {owner} must be {self.kind.allowed}, got {text!r}"
            ) from None


def at_least(least: int) -> Kind:
    """Whole numbers of at least ``least``."""

    def read(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    return Kind(f"a whole number of at least {least}", read)


def between(least: float, most: float = math.inf) -> Kind:
    """Finite numbers from ``least`` to ``most``."""

    def read(text: str) -> float:
        value = float(text)
        if not (least <= value <= most and math.isfinite(value)):
            raise ValueError
        return value

    of = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
    return Kind(f"a number {of}", read)


def one_of(*words: str) -> Kind:
    """One of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Kind(_listed(words), read)


def word_or_number(*words: str) -> Kind:
    """One of some words, or a positive number."""

    def read(text: str) -> str | float:
        return text if text in words else _positive(text)

    return Kind(f"{', '.join(words)} or a positive number", read)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _read_flag(text: str) -> bool:
    return {"true": True, "false": False}[one_of("true", "false").read(text)]  # pyright: ignore


def _read_widths(text: str) -> tuple[int, ...]:
    widths = tuple(int(width) for width in text.split("-"))
    if min(widths) < 1:
        raise ValueError
    return widths


def _listed(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]])


Count = Annotated[int, at_least(1)]
"""A whole number of at least 1."""

Natural = Annotated[int, at_least(0)]
"""A whole number of at least 0."""

Share = Annotated[float, between(0, 1)]
"""A number from 0 to 1."""

NonNegative = Annotated[float, between(0)]
"""A number of at least 0."""

Positive = Annotated[float, Kind("a positive number", _positive)]
"""A positive number."""

Flag = Annotated[bool, Kind("true or false", _read_flag)]
"""True or false."""

Widths = Annotated[tuple[int, ...], Kind("whole numbers such as 32-64", _read_widths)]
"""Widths of layers, in order."""


def text_of(value: Value) -> str:
    """The text that is read as a value.

    >>> text_of((32, 64)), text_of(True), text_of(4.0)
    ('32-64', 'true', '4')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
