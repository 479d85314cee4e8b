"""Files of named arrays: .npz, .mat, .h5; which of them are the data, their labels and parts."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .archive_files import NamedArray, open_archive
from .array_source import from_array
from .parts import PART_WORDS, PARTS, join_parts
from .source import Source, join_notes, reading
from .sparse import is_sparse, to_dense

DATA_WORDS = ("x", "data", "images", "image", "img", "features", "inputs")
"""Names of data beside a part of the split, as in ``x_train`` and ``train_images``."""
LABEL_WORDS = ("y", "label", "labels", "target", "targets")
"""Names of labels, alone or beside a part of the split."""


@dataclass(frozen=True)
class _Choice:
    """The names of the arrays of data and of labels, by part."""

    data: dict[str, str]
    labels: dict[str, str]


def read_archive(
    path: Path, labels: Any = None, key: str | None = None, *, require: bool = True
) -> Source:
    """Read the data in a file of named arrays, with the split that the names tell.

    The data are the array ``key``; or those of parts (``x_train``, ``train_images``, ``test/x``);
    or ``x``; or the only array apart from labels.

    Args:
        labels: labels (N,), or the name of their array.
        key: the name of the array of data.
        require: whether the arrays that ``labels`` and ``key`` name must be there.

    Raises:
        ValueError: if several arrays may be the data, or the arrays of the parts differ in shape.
    """
    with open_archive(path) as arrays:
        if not require:
            key = key if key in arrays else None
            labels = None if isinstance(labels, str) and labels not in arrays else labels
        choice = _choose(path, arrays, key)
        values = {part: _load(path, arrays, name) for part, name in choice.data.items()}
        _check_alike(path, values, choice)
        note = _describe(path, values, choice, arrays)
        if isinstance(labels, str):
            if labels not in arrays:
                raise ValueError(f"{path} has no array {labels!r}: it holds {_list(arrays)}")
            labels = _flat(_load(path, arrays, labels))
        elif labels is None and choice.labels:
            loaded = [_flat(_load(path, arrays, choice.labels[part])) for part in values]
            labels = np.concatenate(loaded)
    sizes = {part: len(part_values) for part, part_values in values.items()}
    whole = next(iter(values.values())) if len(values) == 1 else np.concatenate([*values.values()])
    made = from_array(str(path), whole, labels, note)
    return replace(made, **join_parts(sizes))


def read_named_array(path: Path, name: str) -> np.ndarray:
    """One array of a file, such as the lengths of sequences.

    Raises:
        ValueError: if the file has no array of that name.
    """
    with open_archive(path) as arrays:
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}: it holds {_list(arrays)}")
        return _flat(_load(path, arrays, name))


def _choose(path: Path, arrays: dict[str, NamedArray], key: str | None) -> _Choice:
    usable = [name for name, array in arrays.items() if array.is_data]
    if key is not None:
        if key not in usable:
            raise ValueError(f"{path} has no array {key!r} of numbers: it holds {_list(arrays)}")
        return _of_key(arrays, key)
    named = list(_named_parts(usable, DATA_WORDS))
    data = dict(named)
    if len(data) < len(named):
        raise ValueError(_several(path, arrays, usable))
    both = [name for name in ("x", "X") if name in usable]
    x = both[0] if len(both) == 1 else None
    if "train" not in data and data and x is not None:
        data["train"] = x
    if "train" in data:
        return _with_labels(arrays, {part: data[part] for part in PARTS if part in data})
    others = [name for name in usable if name.lower() not in LABEL_WORDS]
    if x is None and len(others) != 1:
        raise ValueError(_several(path, arrays, usable))
    return _with_labels(arrays, {"train": x or others[0]})


def _with_labels(arrays: dict[str, NamedArray], data: dict[str, str]) -> _Choice:
    """The choice with the labels of each part, if all parts have labels."""
    by_part = dict(_named_parts(arrays, LABEL_WORDS))
    alone = next((name for name in arrays if name.lower() in LABEL_WORDS), None)
    labels = {}
    for part, name in data.items():
        own = next((word for word, _ in _named_parts([name], DATA_WORDS)), None)
        found = alone if own is None else by_part.get(own)
        if found is not None and found != name:
            labels[part] = found
    return _Choice(data, labels if len(labels) == len(data) else {})


def _of_key(arrays: dict[str, NamedArray], key: str) -> _Choice:
    """The array of a key, with the labels beside it if they are as many."""
    choice = _with_labels(arrays, {"train": key})
    is_beside = all(
        math.prod(arrays[name].shape) == arrays[key].shape[0] for name in choice.labels.values()
    )
    return choice if is_beside else _Choice(choice.data, {})


def _named_parts(names: Any, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(part, name) of names that hold the word of a part and no other than one of the words.

    >>> list(_named_parts(["x_train", "train/X", "testImages", "x_val_2"], DATA_WORDS))
    [('train', 'x_train'), ('train', 'train/X'), ('test', 'testImages')]
    """
    for name in names:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[xyXY])(?=t|v)", "_", name)
        tokens = [token for token in re.split(r"[\W_]+", spaced.lower()) if token]
        parts = [PART_WORDS[token] for token in tokens if token in PART_WORDS]
        others = [token for token in tokens if token not in PART_WORDS]
        is_whole = not others and words is DATA_WORDS
        if len(parts) == 1 and (is_whole or (len(others) == 1 and others[0] in words)):
            yield parts[0], name


def _load(path: Path, arrays: dict[str, NamedArray], name: str) -> np.ndarray:
    """Read an array; of MATLAB, refuse one whose last axis may count the rows."""
    with reading(path):
        value = arrays[name].load()
    if is_sparse(value):
        return to_dense(value, f"{name} of {path}")[0]
    if arrays[name].is_matlab and value.ndim > 2 and value.shape[-1] > max(value.shape[:-1]):
        raise ValueError(
            f"{name} of {path} has shape {value.shape}, and its last axis may count the rows: save "
            "it as .npy with rows along the first"
        )
    return value


def _flat(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) from a column or a row of them, as MATLAB has them."""
    return labels.ravel() if labels.ndim == 2 and 1 in labels.shape else labels


def _check_alike(path: Path, values: dict[str, np.ndarray], choice: _Choice) -> None:
    first = values["train"]
    for part, array in values.items():
        if array.shape[1:] != first.shape[1:] or array.dtype.kind != first.dtype.kind:
            raise ValueError(
                f"{path}: {choice.data[part]} has shape {array.shape} and type {array.dtype}, and "
                f"{choice.data['train']} {first.shape} and {first.dtype}: rows of the parts must "
                "be alike"
            )


def _describe(
    path: Path, values: dict[str, np.ndarray], choice: _Choice, arrays: dict[str, NamedArray]
) -> str:
    text = f"read {', '.join(f'{choice.data[part]} {v.shape}' for part, v in values.items())}"
    if choice.labels:
        text += f", labels {', '.join(choice.labels.values())}"
    unused = [
        name
        for name, array in arrays.items()
        if array.shape and name not in (*choice.data.values(), *choice.labels.values())
    ]
    left_out = f"left out: {', '.join(unused[:8])}{', …' * (len(unused) > 8)}" if unused else ""
    return join_notes(text, left_out)


def _several(path: Path, arrays: dict[str, NamedArray], usable: list[str]) -> str:
    if not usable:
        return f"{path} holds no array of numbers: {_list(arrays)}"
    return (
        f"{path} holds {_list({name: arrays[name] for name in usable})}: choose the data by key=, "
        "or name the data 'x' (and labels 'y'), or by part, 'x_train', 'x_test'"
    )


def _list(arrays: dict[str, NamedArray], most: int = 8) -> str:
    """Names and shapes of arrays, in words."""
    words = [f"{name} {array.shape}" for name, array in arrays.items()]
    more = f", … ({len(words)} in all)" if len(words) > most else ""
    return (", ".join(words[:most]) or "nothing") + more
