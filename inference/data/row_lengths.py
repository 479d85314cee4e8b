"""Which of a pair's rows are the lengths of its sequences."""

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.arguments import name_rows
from ..pairs.calling import AdaptedProgram, is_one_datum
from ..pairs.programs import Program, unwrapped
from .arrays import to_array
from .fitted_transform import has_sequences
from .lengths import flag_steps, read_lengths
from .rows import Rows
from .sequences import is_ragged
from .vocabulary import check_tokens

ARGUMENT = "lengths"
"""The name of the argument of a program that takes them."""


def find_row_lengths(
    model: Program, rows: tuple[Rows, ...], guide: Program | None = None, data: Any = None
) -> Tensor | None:
    """The lengths (N,) among rows (x, *context) of sequences x (N, T, …); ``None`` for other data.

    They are the argument that the model calls ``lengths``, or the first context where the model
    says so (``takes_lengths``) or the data are sequences of :func:`load_data`, or a list of them.

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
    number = _number_of(model, known=are_known_sequences(guide, data))
    if number is None or not 0 < number < len(rows) or is_one_datum(model):
        return None
    lengths = rows[number]
    if not isinstance(lengths, Tensor) or lengths.dim() != 1 or len(rows[0].shape) < 2:
        return None
    return None if lengths.is_floating_point() else number


def are_known_sequences(guide: Program | None, data: Any) -> bool:
    """Whether data are sequences without doubt: of :func:`load_data`, or a list of them."""
    return is_ragged(data) or has_sequences(guide, data)


def rows_of_lengths(
    model: Program, guide: Program, rows: tuple[Rows, ...], data: Any, lengths: Any, num: int
) -> tuple[Rows, ...]:
    """Rows of sequences of zeros that have given lengths, to be drawn over.

    Args:
        model: the model in the library's form, with its guide and rows.
        data: what the user gave.
        lengths: one for all, or (num,).
        num: how many.

    Raises:
        ValueError: if the pair takes no lengths, or these are no lengths.
    """
    place = find_place_of_lengths(model, rows, guide, data)
    if place is None:
        raise ValueError(
            "lengths= are of sequences with lengths, and these data have none: give data as "
            "(x, lengths), to a model with an argument named lengths"
        )
    each = to_array(np.full(num, lengths) if np.ndim(lengths) == 0 else lengths, "lengths=")
    if each.size and each.min() < 1:
        raise ValueError(f"a sequence has at least 1 step, got lengths={each.min():g}")
    longest = int(each.max()) if each.size else 0
    whole = torch.from_numpy(read_lengths(each, num, longest, "the samples"))
    turns = torch.arange(num) % len(rows[0])
    zeros = torch.zeros(num, longest, *rows[0].shape[2:], dtype=rows[0][:1].dtype)
    return tuple(
        zeros if number == 0 else whole if number == place else part[turns]
        for number, part in enumerate(rows)
    )


def check_row_lengths(model: Program, rows: tuple[Rows, ...], name: str) -> None:
    """Refuse lengths of sequences that are 0, or beyond the padding, where a model takes lengths.

    In a model whose sequences end with a token, a length has to be that up to the first of them.

    Raises:
        ValueError: naming the rows.
    """
    lengths = find_row_lengths(model, rows)
    if lengths is None:
        return
    try:
        whole = read_lengths(lengths, len(rows[0]), rows[0].shape[1], name)
    except ValueError as error:
        raise ValueError(
            f"{error}; they are the model's argument {ARGUMENT!r}: give that another name if it "
            "holds no lengths of sequences"
        ) from error
    end = end_of(model)
    if end is not None and len(rows[0].shape) == 2:
        _check_ends(np.asarray(rows[0][:]), whole, end, name)


def end_of(model: Program) -> int | None:
    """The token that ends each sequence, in a model of sequences of tokens that has one."""
    return getattr(unwrapped(model), "end", None)


def check_row_tokens(model: Program, parts: Sequence[Any], name: str) -> None:
    """Refuse tokens that a model of sequences of tokens does not know, before it is run on them.

    Args:
        parts: x (N, T), and lengths if there are any.

    Raises:
        ValueError: naming a token, and the rows.
    """
    program: Any = unwrapped(model)
    size, x = getattr(program, "num_tokens", None), parts[0]
    if size is None or not isinstance(x, Tensor) or x.dim() != 2:
        return
    tokens, end = x.detach().cpu().numpy(), end_of(model)
    if end is not None:
        is_end = tokens == end
        tokens = np.where(is_end.cumsum(1) - is_end == 0, tokens, end)
    elif len(parts) > 1 and isinstance(parts[1], Tensor) and parts[1].dim() == 1:
        lengths = parts[1].detach().cpu().numpy()
        if len(lengths) == len(tokens):
            tokens = np.where(flag_steps(lengths, tokens.shape[1]), tokens, 0)
    check_tokens(tokens, size, name)


def _check_ends(x: np.ndarray, lengths: np.ndarray, end: int, name: str) -> None:
    """Refuse sequences (N, T) whose first end is not their last step."""
    is_end = x == end
    ends = np.where(is_end.any(1), is_end.argmax(1) + 1, x.shape[1])
    wrong = np.flatnonzero(ends != lengths)
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{name} has sequences whose length is not that up to their end, the token {end}: "
            f"length {lengths[row]} and {ends[row]} steps with the end in {name_rows(wrong)}"
        )


def _number_of(model: Program, *, known: bool) -> int | None:
    """The place of the lengths among the rows of a pair, if its model has them."""
    program: Any = unwrapped(model)
    names: list[str] = []
    with contextlib.suppress(ValueError, TypeError):  # a built-in has no signature
        called = program.forward if isinstance(program, nn.Module) else program
        names = [*inspect.signature(called).parameters]
    known = known or getattr(program, "takes_lengths", False)
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
