"""A test set that is given beside the data."""

from dataclasses import replace
from typing import Any

import numpy as np

from .likeness import align_columns, codes_like
from .reading_options import ReadingOptions
from .sequences import join_sequences
from .source import Source


def append_test_set(source: Source, test: Any, labels: Any, options: ReadingOptions) -> Source:
    """Append a test set to the data, to be their test part.

    Args:
        source: the data to train and to validate on.
        test: the test set, as the argument of :func:`load_data`.
        labels: the labels that were given beside the data.
        options: the options that the data were read with.

    Raises:
        ValueError: if the data have a test set already, or the given one is not like them.
    """
    if source.num_test is not None:
        raise ValueError(f"{source.name} has a test set already: leave test= out")
    if source.lengths is not None and isinstance(test, tuple):
        raise ValueError(
            "a test set of sequences is a list of them, or a text: give test=[one[:length], …], "
            "without padding"
        )
    if isinstance(test, tuple) and len(test) == 2:
        test, labels = test
    elif labels is not None and not isinstance(labels, str):
        raise ValueError("labels beside an array: give those of the test set too, test=(x, labels)")
    try:
        other = options.read(test, labels, source.kinds or None)
        other = codes_like(align_columns(other, source.columns), source.label_names)
    except ValueError as error:
        raise ValueError(f"in the test set, {error}") from error
    source, other = join_sequences(source, other)
    if other.values.shape[1:] != source.values.shape[1:]:
        raise ValueError(
            f"rows of the test set {other.name} have shape {other.values.shape[1:]}, and those of "
            f"{source.name} {source.values.shape[1:]}"
        )
    if other.divisor != source.divisor or (other.labels is None) != (source.labels is None):
        what = "levels" if other.divisor != source.divisor else "labels"
        raise ValueError(f"only one of {source.name} and its test set {other.name} has {what}")
    joined = {
        name: np.concatenate([values, other.aside[name]]) for name, values in source.aside.items()
    }
    pair = source.labels, other.labels
    if source.lengths is not None and other.lengths is not None:
        source = replace(source, lengths=np.concatenate([source.lengths, other.lengths]))
    labels = None if pair[0] is None or pair[1] is None else pair
    return replace(
        source,
        values=np.concatenate([source.values, other.values]),
        labels=None if labels is None else np.concatenate(labels),
        num_test=len(other.values),
        wide_columns=tuple(dict.fromkeys([*source.wide_columns, *other.wide_columns])),
        aside=joined,
    )
