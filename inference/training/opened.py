"""A pair and its data as a fit takes them: in the library's form, with the size of a batch."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.arguments import Arguments, arrange, call_pair, check_values, read_arguments
from ..data.fitted_transform import like, transform_of
from ..data.load_data import Data
from ..data.row_lengths import find_place_of_lengths
from ..data.rows import Rows
from ..pairs.parameters import placement
from ..pairs.programs import Program, private_store

DEFAULT_BATCH_SIZE = 128
"""Data in a minibatch, if not given."""


@dataclass(frozen=True)
class Opened:
    """A pair whose programs take rows (x, *context), and these rows."""

    model: Program
    guide: Program
    rows: tuple[Rows, ...]
    """The training rows."""
    validation: tuple[Rows, ...] | None
    """The rows to validate on, if there are any."""
    test: tuple[Rows, ...] | None
    """The rows of the test part of a data set, whose values are checked."""
    resample: bool
    """Whether the training rows are probabilities, whose bits are drawn in each epoch."""
    batch_size: int
    """The default size of a batch: that of the program's own subsample, if it draws one."""
    place_of_lengths: int | None = None
    """Which of the rows are the lengths of sequences, if any are."""


def open_fit(
    model: Program, guide: Program, data: Any, validation: Any, data_plate: str | None, seed: int
) -> Opened:
    """Bring a pair, its training data and its validation data into the library's form.

    Raises:
        ValueError: as :func:`latente.inference.data.arguments.open_pair` does.
    """
    resample, test_set, transform = False, None, transform_of(data)
    if transform is not None and validation is not None:
        validation = like(transform, validation, "validation")
    if isinstance(data, Data):
        resample = data.binarize == "dynamic"
        test_set = data.rows("test") if len(data.test) else None
        if validation is None and len(data.validation):
            validation = data
        given = read_arguments(data.rows("train"), data.name)
    else:
        given = read_arguments(data, "data")
    if isinstance(validation, Data):
        validation = validation.rows("validation")
    with private_store():
        model, guide, calling, parts = call_pair(model, guide, given, data_plate, seed)
        rows = arrange(calling, parts, given.name)
        check_values(model, guide, rows, given.name)
        held_out = None
        if validation is not None:
            parts = _in_order_of(given, read_arguments(validation, "validation"))
            held_out = arrange(calling, parts, "validation")
            own = placement(model, guide)[1] is not None
            held_out = tuple(
                _typed_like(*pair, own_dtype=own) for pair in zip(held_out, rows, strict=True)
            )
            check_values(model, guide, held_out, "validation")
        test = None if test_set is None else arrange(calling, test_set, given.name)
    batch_size = min(DEFAULT_BATCH_SIZE, len(rows[0]))
    if calling is not None and calling.subsample_size is not None:
        batch_size = min(calling.subsample_size, len(rows[0]))
    place = find_place_of_lengths(model, rows, data=data)
    return Opened(model, guide, rows, held_out, test, resample, batch_size, place)


def _typed_like(part: Rows, like: Rows, *, own_dtype: bool) -> Rows:
    """Held-out rows as whole or real numbers, as the training rows are.

    Args:
        own_dtype: whether the pair has a dtype of its own, to which real numbers are brought later.
    """
    if not isinstance(part, Tensor) or not isinstance(like, Tensor):
        return part
    if like.is_floating_point():
        return part if part.is_floating_point() and own_dtype else part.to(like.dtype)
    whole = part.is_floating_point() and bool((part == part.round()).all())
    return part.to(like.dtype) if whole else part  # fractions are for the support's check


def _in_order_of(given: Arguments, other: Arguments) -> tuple[Any, ...]:
    """The other's arguments in the order of those given: a dict may have another order."""
    if sorted(map(str, given.keywords)) != sorted(map(str, other.keywords)):
        raise ValueError(
            f"validation has the arguments {other.keywords}, and the data have {given.keywords}: "
            "give both in the same form"
        )
    if None in given.keywords:
        return other.parts
    by_keyword = dict(zip(other.keywords, other.parts, strict=True))
    return tuple(by_keyword[keyword] for keyword in given.keywords)
