"""Data sets that are read by length and item: those of PyTorch, and what is like them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
    default_convert,
)

from .array_source import from_array
from .arrays import check_numbers, is_array_like, to_array, to_array_or_words
from .checks import number_of
from .images import image_values, is_image
from .items import stack_items
from .source import Source, join_notes

LABEL_FIELDS = ("label", "labels", "y", "target", "targets")
"""Names of the field of an item that holds its label."""


def is_dataset(values: Any) -> bool:
    """Whether values are read by length and item, and are neither an array nor a mapping."""
    if isinstance(values, Dataset | DataLoader):
        return True
    if hasattr(values, "compute"):  # a table of Dask
        return False
    if is_array_like(values) or isinstance(values, Mapping | str | type | set | frozenset):
        return False
    return hasattr(values, "__len__") and hasattr(values, "__getitem__")


def read_dataset(
    source: Any, labels: Any = None, key: str | None = None, *, require: bool = True
) -> Source:
    """Read the items of a data set, in their order: x, or (x, label), or named fields.

    A ``DataLoader`` is read through its data set. Items may be arrays, tensors, numbers or images
    of Pillow, all of one shape and type.

    Args:
        labels: labels (N,), if the items have none; or the name of the field that holds them.
        key: name of the field that holds x, if an item has several.
        require: whether the fields that ``labels`` and ``key`` name must be there.

    Raises:
        ValueError: if the length is not known, if an item cannot be read, differs from the first
            or has more parts, or if a ``DataLoader`` chooses or changes items by itself.
    """
    kind, note = f"the {type(source).__name__}", ""
    if isinstance(source, DataLoader):
        _length(source.dataset, kind)
        _check_loader(source)
        source = source.dataset
        note = f"the data set of a DataLoader, a {type(source).__name__}; not its batches"
    num_items = _length(source, kind)
    if not require and num_items:
        first = source[0]
        fields = first if isinstance(first, Mapping) else ()
        key = key if key in fields else None
        labels = None if isinstance(labels, str) and labels not in fields else labels
    if isinstance(source, TensorDataset) and key is None and not isinstance(labels, str):
        parts = list(source.tensors)
        if len(parts) > 2:
            raise ValueError(_too_many_parts(f"an item of {kind}", len(parts)))
        own = parts[1] if len(parts) == 2 else None
        labels = _choose_labels(kind, own, labels)
        note = join_notes(_describe(num_items, source, own is not None), note)
        return from_array(kind, to_array(parts[0], kind), labels, note)
    label_field = labels if isinstance(labels, str) else None
    reader = _Reader(source, kind, key, label_field)
    if num_items and not _is_same(reader.read(0), reader.read(0)):
        reader.notes.add("items change each time that they are read: one reading is kept")
    reader.labels.clear()
    values = stack_items(kind, num_items, reader.read, reader.name_of)
    own = [reader.labels[number] for number in sorted(reader.labels)] or None
    labels = _choose_labels(kind, own, None if isinstance(labels, str) else labels)
    note = join_notes(_describe(num_items, source, own is not None), note, *sorted(reader.notes))
    made = from_array(kind, values, labels, note, are_images=reader.is_image)
    made = replace(made, channels_last=reader.is_image and values.ndim == 4)
    return _with_class_names(made, source, label_field)


class _Reader:
    """Reads x and the label of an item."""

    def __init__(self, source: Any, kind: str, key: str | None, label_field: str | None) -> None:
        self.source, self.kind, self.key, self.label_field = source, kind, key, label_field
        self.labels: dict[int, Any] = {}
        self.notes: set[str] = set()
        self.is_image = False

    def name_of(self, number: int) -> str:
        return f"item {number} of {self.kind}"

    def read(self, number: int) -> np.ndarray:
        name = self.name_of(number)
        try:
            item = self.source[number]
        except Exception as error:  # whatever a data set of the user's raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{name} cannot be read: {reason}") from error
        x, label = self._split(item, name)
        if label is not None:
            is_number = hasattr(label, "item") and np.ndim(label) == 0
            self.labels[number] = label.item() if is_number else label
        if len(self.labels) not in (0, number + 1):
            has = "has no label" if label is None else "has a label"
            raise ValueError(f"{name} {has}, unlike those before it")
        if not is_image(x):
            return _item_values(x, name)
        self.is_image = True
        values, notes = image_values(x, name)
        self.notes.update(notes)
        return values

    def _split(self, item: Any, name: str) -> tuple[Any, Any]:
        """x and the label of an item."""
        if isinstance(item, Mapping):
            return self._choose_fields(item, name)
        if self.key is not None or self.label_field is not None:
            named = f"key={self.key!r}" if self.key is not None else f"labels={self.label_field!r}"
            raise ValueError(f"{name} has no named fields: leave {named} out")
        is_parts = isinstance(item, tuple) or (
            isinstance(item, list) and any(np.ndim(part) or is_image(part) for part in item[:1])
        )
        if not is_parts:
            return item, None
        if len(item) not in (1, 2):
            raise ValueError(_too_many_parts(name, len(item)))
        if all(isinstance(part, int | float) for part in item):
            raise ValueError(
                f"{name} is a tuple of numbers, which may be x or (x, label): give x as an array"
            )
        return item[0], item[1] if len(item) == 2 else None

    def _choose_fields(self, item: Mapping[str, Any], name: str) -> tuple[Any, Any]:
        """x and the label of an item of named fields."""
        for wanted in (self.key, self.label_field):
            if wanted is not None and wanted not in item:
                raise ValueError(f"{name} has no field {wanted!r}, but {', '.join(map(str, item))}")
        label = self.label_field or next((word for word in LABEL_FIELDS if word in item), None)
        others = [field for field in item if field not in (label, self.key)]
        if self.key is None:
            if len(others) != 1:
                table = ", or give a table of them all, .to_pandas()"
                raise ValueError(
                    f"{name} has the fields {', '.join(map(str, item))}: name that of x by key="
                    f"{table if hasattr(self.source, 'to_pandas') else ''}"
                )
            return item[others[0]], None if label is None else item[label]
        if others:
            self.notes.add(f"fields left out: {', '.join(map(str, others))}")
        return item[self.key], None if label in (None, self.key) else item[label]


def _item_values(x: Any, name: str) -> np.ndarray:
    """The values of an item, which may be a single number."""
    if np.ndim(x) if not isinstance(x, torch.Tensor) else x.dim():
        return to_array(x, name)
    array = to_array_or_words(x, name)
    check_numbers(np.atleast_1d(array), name)
    return array


def _check_loader(loader: DataLoader) -> None:
    """Refuse a loader that does not give each item once, as its data set does."""
    batches = loader.batch_sampler
    own = None
    if type(loader.sampler) not in (SequentialSampler, RandomSampler):
        own = f"sampler {type(loader.sampler).__name__} chooses items"
    elif type(batches) not in (BatchSampler, type(None)):
        own = f"batch sampler {type(batches).__name__} chooses items"
    elif loader.collate_fn not in (default_collate, default_convert):
        own = "collate_fn may change items"
    elif isinstance(loader.sampler, RandomSampler) and (
        loader.sampler.replacement or loader.sampler.num_samples != len(loader.sampler.data_source)
    ):
        own = "sampler does not give each item once"
    if own is not None:
        raise ValueError(
            f"the DataLoader's {own}, and load_data reads its data set: give loader.dataset, or a "
            "torch.utils.data.Subset"
        )


def _length(source: Any, kind: str) -> int:
    if not isinstance(source, IterableDataset):
        try:
            return len(source)
        except (TypeError, NotImplementedError):
            pass
    raise ValueError(
        f"{kind} cannot be read by length and item: give a Dataset that has __len__ and "
        "__getitem__, or join its items into one tensor"
    )


def _choose_labels(kind: str, own: Any, given: Any) -> Any:
    if own is not None and given is not None:
        raise ValueError(f"{kind} has labels of its own: leave labels= out")
    return given if own is None else own


def _too_many_parts(name: str, count: int) -> str:
    return f"{name} has {number_of(count, 'part')}: x or (x, label) can be read"


def _describe(num_items: int, source: Any, has_labels: bool) -> str:
    beside = ", labels beside" if has_labels else ""
    return f"read {number_of(num_items, 'item')} of a {type(source).__name__}{beside}"


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def _with_class_names(made: Source, source: Any, label_field: Any) -> Source:
    """The source with the names of its classes, which some data sets have."""
    names = getattr(source, "classes", None)
    features = getattr(source, "features", None)  # of a Dataset of Hugging Face
    if names is None and isinstance(features, Mapping):
        named = [features[name] for name in (label_field, *LABEL_FIELDS) if name in features]
        names = getattr(next(iter(named), None), "names", None)
    if made.labels is None or made.label_names or not isinstance(names, list | tuple):
        return made
    if not all(isinstance(name, str) for name in names) or not len(made.labels):
        return made
    inside = made.labels.min() >= 0 and made.labels.max() < len(names)
    return replace(made, label_names=tuple(names)) if inside else made
