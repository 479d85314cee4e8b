"""Sequences of different lengths become padded ones with their lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from .arrays import to_array
from .checks import number_of
from .labels import code_labels
from .lengths import flag_steps, pad_joined, pad_to, read_lengths, with_zero_padding
from .memory import check_memory
from .source import Source, join_notes
from .vocabulary import without_rare


def is_list_of_arrays(source: Any) -> bool:
    """Whether a source is a list of arrays, each of which may be a sequence."""
    is_list = isinstance(source, list) and len(source) > 0
    return is_list and all(hasattr(part, "shape") and len(part.shape) > 0 for part in source)


def is_ragged(source: Any) -> bool:
    """Whether a source is a list of arrays of the same elements and of different lengths."""
    if not is_list_of_arrays(source):
        return False
    shapes = {tuple(part.shape) for part in source}
    return len(shapes) > 1 and len({shape[1:] for shape in shapes}) == 1


def from_sequences(sequences: Sequence[Any], labels: Any = None) -> Source:
    """Make a source of a list of sequences (T, …), padded with zeros at the end.

    Whole numbers become int64 and are not divided, whatever their type.

    Raises:
        ValueError: if a sequence has length 0, or its elements another shape; if they would fill
            too much of the memory.
    """
    name = "the list of sequences"
    arrays = [to_array(part, f"sequence {n} of the list") for n, part in enumerate(sequences)]
    values, lengths = pad_sequences(arrays, name)
    codes, names = code_labels(labels)
    note = describe_lengths(lengths)
    return Source(name, _plain_numbers(values), codes, names, note=note, lengths=lengths)


def pad_sequences(arrays: Sequence[np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences (T, …) with zeros at the end: (N, T, …), and lengths (N,).

    Args:
        arrays: the sequences.
        name: of their list, in errors.

    Raises:
        ValueError: if a sequence has length 0, or its elements another shape; if they would fill
            too much of the memory.

    >>> pad_sequences([np.array([7.0]), np.array([8.0, 9.0])], "x")[0].tolist()
    [[7.0, 0.0], [8.0, 9.0]]
    """
    lengths = np.array([len(array) for array in arrays], np.int64)
    if not lengths.all():
        raise ValueError(
            f"{name} has sequences of length 0 in {name_rows(np.flatnonzero(lengths == 0))}: drop "
            "them"
        )
    for number, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"sequence {number} of the list has elements of shape {array.shape[1:]}, and "
                f"sequence 0 of {arrays[0].shape[1:]}"
            )
    shape = len(arrays), int(lengths.max()), *arrays[0].shape[1:]
    check_memory(name, shape, 8, "give shorter sequences, or fewer")
    return pad_joined(np.concatenate(arrays), lengths), lengths


def with_lengths(source: Source, lengths: Any) -> Source:
    """A source of padded sequences (N, T, …) with the lengths that were given beside it.

    What lies beyond the lengths becomes zero.

    Raises:
        ValueError: if the source is a table, or one number a row; if the lengths are not those of
            its rows.
    """
    if source.lengths is not None or source.columns or source.values.ndim < 2:
        raise ValueError(
            f"lengths= are for padded sequences, an array (N, T, …), and {source.name} is none"
        )
    values = source.values
    whole = read_lengths(lengths, len(values), values.shape[1], source.name)
    padded = with_zero_padding(_plain_numbers(values), whole)
    note = join_notes(source.note, describe_lengths(whole))
    return replace(source, values=padded, lengths=whole, note=note)


def _plain_numbers(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64, real ones of at least 32 bits."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)


def describe_lengths(lengths: np.ndarray) -> str:
    """The number and the lengths of sequences, in words.

    >>> describe_lengths(np.array([2, 5]))
    '2 sequences of 2 to 5 steps, 7 in all'
    """
    return (
        f"{number_of(len(lengths), 'sequence')} of {lengths.min()} to {lengths.max()} steps, "
        f"{lengths.sum()} in all"
    )


def join_sequences(first: Source, second: Source) -> tuple[Source, Source]:
    """Two sources of sequences with as many steps, so that their rows can be joined.

    Raises:
        ValueError: if only one of them has sequences.
    """
    if first.lengths is None and second.lengths is None:
        return first, second
    if first.lengths is None or second.lengths is None:
        has, lacks = (first, second) if second.lengths is None else (second, first)
        raise ValueError(
            f"{has.name} holds sequences of different lengths, and {lacks.name} does not: give "
            "both as lists of sequences"
        )
    steps = max(first.values.shape[1], second.values.shape[1])
    padded = [replace(part, values=pad_to(part.values, steps)) for part in (first, second)]
    return padded[0], padded[1]


def check_sequence_options(source: Source, given: Any, others: Mapping[str, Any]) -> None:
    """Refuse options that sequences cannot have.

    Args:
        given: as for :func:`load_data`.
        others: options that are for data of one shape, by name.

    Raises:
        ValueError: naming the option.
    """
    if source.lengths is None:
        return
    if given is not None and not (isinstance(given, str) and given == "labels"):
        raise ValueError(f"{source.name} holds sequences: only given='labels' can be their context")
    for name, value in others.items():
        if value:
            raise ValueError(
                f"{source.name} holds sequences of different lengths: leave {name}= out"
            )


def limit_words(source: Source, train: np.ndarray, min_count: int) -> Source:
    """A text of words whose vocabulary has those alone that are often enough in training rows.

    Args:
        source: any source; one that is no text of words stays as it is.
        train: the numbers of its training rows.
        min_count: words that are fewer times in these become the token of unknown words.

    Raises:
        ValueError: if ``min_count`` is below 1, or no word is left.
    """
    if min_count < 1:
        raise ValueError(f"min_count must be at least 1, got {min_count}")
    vocabulary, lengths, values = source.vocabulary, source.lengths, source.values
    if vocabulary is None or lengths is None or vocabulary.kind != "words":
        return source
    there = values[train][flag_steps(lengths[train], values.shape[1])]
    limited, numbers = without_rare(vocabulary, there, min_count)
    if len(limited) == limited.first:
        raise ValueError(
            f"no word is {min_count} times in the training lines of {source.name}: give a smaller "
            "min_count="
        )
    words = there[there != 0]
    share = (numbers[words] < limited.first).mean()
    before, after = (f"vocabulary of {len(part)} tokens" for part in (vocabulary, limited))
    note = source.note.replace(before, after)
    told = f"words fewer than {min_count} times in the training lines are unknown, {share:.1%}"
    return replace(
        source,
        values=numbers[values],
        vocabulary=limited,
        note=join_notes(note, f"{told} of them"),
    )
