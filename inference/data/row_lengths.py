"""Which of a pair's rows are the lengths of its sequences."""

import contextlib
import inspect
from typing import Any

from torch import Tensor, nn

from ..pairs.calling import AdaptedProgram, is_one_datum
from ..pairs.programs import Program, unwrapped
from .fitted_transform import has_sequences
from .lengths import read_lengths
from .rows import Rows
from .sequences import is_ragged

ARGUMENT = "lengths"
"""The name of the argument of a program that takes them."""


def find_row_lengths(
    model: Program, rows: tuple[Rows, ...], guide: Program | None = None, data: Any = None
) -> Tensor | None:
    """The lengths (N,) among rows (x, *context) of sequences x (N, T, …); ``None`` for other data.

    They are the argument that the model calls ``lengths``, or the first context where the data are
    sequences of :func:`load_data`, or a list of them.

    Args:
        model: the model in the library's form, as :func:`open_pair` returns it.
        rows: the rows, likewise.
        guide: the guide, which may have been fitted to sequences.
        data: what the user gave.
    """
    place = find_place_of_lengths(model, rows, guide, data)
    return None if place is None else rows[place][: len(rows[0])]


def find_place_of_lengths(
    model: Program, rows: tuple[Rows, ...], guide: Program | None = None, data: Any = None
) -> int | None:
    """Which of the rows are the lengths, as :func:`find_row_lengths` finds them."""
    known = is_ragged(data) or has_sequences(guide, data)
    number = _number_of(model, known=known)
    if number is None or not 0 < number < len(rows) or is_one_datum(model):
        return None
    lengths = rows[number]
    if not isinstance(lengths, Tensor) or lengths.dim() != 1 or len(rows[0].shape) < 2:
        return None
    return None if lengths.is_floating_point() else number


def check_row_lengths(model: Program, rows: tuple[Rows, ...], name: str) -> None:
    """Refuse lengths of sequences that are 0, or beyond the padding, where a model takes lengths.

    Raises:
        ValueError: naming the rows.
    """
    lengths = find_row_lengths(model, rows)
    if lengths is not None:
        read_lengths(lengths, len(rows[0]), rows[0].shape[1], name)


def _number_of(model: Program, *, known: bool) -> int | None:
    """The place of the lengths among the rows of a pair, if its model has them."""
    program: Any = unwrapped(model)
    names: list[str] = []
    with contextlib.suppress(ValueError, TypeError):  # a built-in has no signature
        called = program.forward if isinstance(program, nn.Module) else program
        names = [*inspect.signature(called).parameters]
    number = names.index(ARGUMENT) if ARGUMENT in names else 1 if known else None
    if not isinstance(model, AdaptedProgram):
        return number
    arguments = model.calling.arguments
    by_name = [part for part in arguments if part.keyword == ARGUMENT]
    if by_name:
        return by_name[0].row
    if number is None or number >= len(arguments) or arguments[number].keyword is not None:
        return None
    return arguments[number].row
