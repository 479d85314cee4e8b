"""What a user gives as data becomes rows, and the pair's programs take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..pairs.calling import AdaptedProgram, Calling
from ..pairs.checks import explains_missing
from ..pairs.data_plate import find_calling, has_rows, integers_to_convert, runs_on
from ..pairs.parameters import place, place_all, placement, warn_of_initial_values
from ..pairs.programs import Program, check_programs
from .arrays import ARRAY_PROTOCOLS
from .checks import exceeds_float32
from .fitted_transform import like_the_fit
from .load_data import Data
from .row_lengths import check_row_lengths, check_row_tokens
from .rows import Rows, as_part, check_part, check_same_lengths, name_argument, part_name
from .sequences import is_ragged, pad_sequences

ITEM_PROTOCOLS = ("__len__", "__iter__", "__getitem__", "select_dtypes", *ARRAY_PROTOCOLS)
"""Attributes of objects that may be data; one without any of them is a constant of a program."""


@dataclass(frozen=True)
class Arguments:
    """The arguments that a user gave, in their order."""

    parts: tuple[Any, ...]
    """Rows of data; anything that is no array is a constant."""
    keywords: tuple[str | None, ...]
    """The keyword of each; ``None``: by position."""
    name: str
    """Of the data, in errors."""


def open_pair(
    model: Program, guide: Program, data: Any, *, data_plate: str | None = None, name: str = "data"
) -> tuple[Program, Program, tuple[Rows, ...]]:
    """Bring a pair and its data into the library's form: ``program(x, *context)``, one row a datum.

    A pair that has this form is returned as it is. Otherwise its programs are wrapped, so that
    they are called with their own arguments: by keyword, in another order, with rows along another
    dimension, or with all data at once where there is no plate of data.

    Args:
        data: x, or a tuple (x, *context), in the order of the programs' arguments; a dict of
            keyword arguments; a list of sequences of different lengths, which are padded with
            zeros, and become (padded, lengths). Of a ``Data``, the test part. Arguments that hold
            no items (numbers, ``None``, settings) are given to the programs as they are.
        data_plate: the name of the plate over the data, where two plates fit.
        name: of the data, in errors.

    Raises:
        ValueError: if the data are empty, hold values that the model does not mask and are NaN, or
            infinity; if they visibly were not transformed as those that the guide was fitted to; or
            if two plates of the model may be that of the data.
    """
    data = like_the_fit(guide, data, name)
    if isinstance(data, Data) and len(data.test) == 0:
        raise ValueError(
            f"{data.name} has no test rows, and those are looked at: load it with test=0.1, or "
            'with a test set, test=x; or give other rows, as data.rows("train")'
        )
    given = read_arguments(data.rows("test") if isinstance(data, Data) else data, name)
    model, guide, calling, parts = call_pair(model, guide, given, data_plate)
    rows = arrange(calling, parts, name)
    check_values(model, guide, rows, name)
    warn_of_initial_values(model, guide, rows)
    return model, guide, rows


def called_like(model: Program, program: Program | None) -> Program | None:
    """A further program of a pair, called as :func:`open_pair` has its model called."""
    if not isinstance(model, AdaptedProgram) or program is None:
        return program
    return program if isinstance(program, AdaptedProgram) else model.calling.adapt(program)


def call_pair(
    model: Program, guide: Program, given: Arguments, data_plate: str | None = None, seed: int = 0
) -> tuple[Program, Program, Calling | None, tuple[Any, ...]]:
    """Find how a pair is called; the pair in the library's form, and the parts that it takes."""
    check_programs(model, guide)
    parts = list(given.parts)
    check_row_tokens(model, parts, given.name)
    if not isinstance(model, AdaptedProgram):
        parts = list(_to_float32(model, guide, tuple(parts), given.keywords, seed))
        whole = integers_to_convert(model, guide, tuple(parts), given.keywords, seed)
        for number in whole:
            parts[number] = _to_float(parts[number])
        if whole:  # the programs may have failed for these before
            parts = list(_to_float32(model, guide, tuple(parts), given.keywords, seed))
    parts = [_widened(part) for part in parts]
    calling = find_calling(model, guide, tuple(parts), given.keywords, data_plate, seed)
    if calling is not None:
        model, guide = calling.adapt(model), calling.adapt(guide)
    return model, guide, calling, tuple(parts)


def arrange(calling: Calling | None, parts: tuple[Any, ...], name: str) -> tuple[Rows, ...]:
    """Rows (x, *context) from the parts that a user gave.

    Raises:
        ValueError: if they have different lengths.
    """
    if calling is None:
        for position, part in enumerate(parts):
            if not has_rows(part):
                kind = type(part).__name__
                raise ValueError(f"argument {position} of {name} is a {kind}: give rows of data")
        check_same_lengths({name_argument(n): part for n, part in enumerate(parts)}, name)
        return parts
    if calling.plate is not None:
        own = [(n, part) for n, part in enumerate(calling.arguments) if part.row is not None]
        check_same_lengths(
            {name_argument(n, part.keyword): parts[n] for n, part in own},
            name,
            [part.rows_dim for _, part in own],
        )
    return calling.arrange(parts)


def check_values(model: Program, guide: Program, rows: tuple[Rows, ...], name: str) -> None:
    """Refuse rows that hold infinity, or NaN where the model does not mask it; wrong lengths.

    Raises:
        ValueError: naming the rows.
    """
    check_row_tokens(model, rows, name)
    check_row_lengths(model, rows, name)
    in_memory = [part for part in rows if isinstance(part, Tensor)]
    if all(part.isfinite().all() for part in in_memory if part.is_floating_point()):
        return
    infinite = any(part.isinf().any() for part in in_memory if part.is_floating_point())
    if infinite or not explains_missing(model, guide, place_all(model, guide, rows)):
        for position, part in enumerate(rows):
            check_part(part, name, position)


def read_arguments(data: Any, name: str) -> Arguments:
    """The arguments that a user gave, with arrays as tensors of their own type.

    Raises:
        ValueError: if there are none, or one is no array.
    """
    if isinstance(data, Mapping):
        if not data:
            raise ValueError(f"{name} is an empty dict: give the arguments of the programs by name")
        parts = tuple(_read(part, f"{key!r} of {name}") for key, part in data.items())
        return Arguments(parts, tuple(map(str, data)), name)
    if is_ragged(data):
        parts = _pad(data, name)
        return Arguments(parts, (None, None), name)
    given = data if type(data) is not PackedSequence and isinstance(data, tuple) else (data,)
    if not given:
        raise ValueError(f"{name} is an empty tuple: give x, or (x, *context)")
    parts = tuple(_read(part, part_name(name, number)) for number, part in enumerate(given))
    if not any(map(has_rows, parts)):
        parts = (as_part(given[0], name), *parts[1:])  # refuses it by its name
    return Arguments(parts, (None,) * len(parts), name)


def _read(part: Any, name: str) -> Any:
    """An array as rows; a constant as it is."""
    if isinstance(part, PackedSequence):
        raise ValueError(
            f"{name} is a PackedSequence, which has no rows: give the padded sequences and their "
            "lengths, and pack them in the program, by pack_padded_sequence(padded, lengths, "
            "batch_first=True, enforce_sorted=False)"
        )
    return part if _is_constant(part) else as_part(part, name)


def _is_constant(part: Any) -> bool:
    """Whether an argument is no data: a number, ``None``, or an object that holds no items."""
    if part is None or isinstance(part, bool | int | float | complex):
        return True
    if isinstance(part, Tensor):
        return part.dim() == 0
    return not any(hasattr(part, protocol) for protocol in ITEM_PROTOCOLS)


def _pad(data: list[Any], name: str) -> tuple[Tensor, Tensor]:
    """Sequences of different lengths, padded with zeros at the end (N, T, …), and lengths (N,)."""
    parts = [part if len(part) == 0 else as_part(part, f"sequence {number} of {name}")
             for number, part in enumerate(data)]  # fmt: skip
    arrays = [
        part.cpu().numpy() if isinstance(part, Tensor) else np.asarray(part) for part in parts
    ]
    padded, lengths = pad_sequences(arrays, name)
    return torch.from_numpy(padded), torch.from_numpy(lengths)


def _widened(part: Any) -> Any:
    """Small whole numbers as int64: sums of bytes beyond 255 would start again at 0."""
    small = isinstance(part, Tensor) and part.dtype in (torch.uint8, torch.int8, torch.int16)
    return part.long() if small else part


def _to_float32(
    model: Program,
    guide: Program,
    parts: tuple[Any, ...],
    keywords: tuple[str | None, ...],
    seed: int,
) -> tuple[Any, ...]:
    """Parts in float64 as float32, where the programs fail on the former and not on the latter.

    A pair with modules has a dtype of its own, and its data are placed there. Tensors that are
    written in the programs, or in ``pyro.param``, are float32 as a rule; NumPy's are float64.
    """
    default = torch.get_default_dtype()
    double = [n for n, part in enumerate(parts) if getattr(part, "dtype", None) == torch.float64]
    if not double or default == torch.float64 or placement(model, guide)[1] is not None:
        return parts
    if runs_on(model, guide, parts, keywords, seed):
        return parts
    rounded = tuple(part.to(default) if n in double else part for n, part in enumerate(parts))
    if not runs_on(model, guide, rounded, keywords, seed):
        return parts  # they fail for another reason, which is told where they are used
    place(tuple(parts[n] for n in double), None, default)  # warns where it is too coarse
    return rounded


def _to_float(part: Tensor) -> Tensor:
    exceeds = exceeds_float32(part.cpu().numpy())
    return part.to(torch.float64 if exceeds else torch.get_default_dtype())
