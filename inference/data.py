"""Data for fitting: splits, binarization, and the minibatches of an epoch."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from .checks import check_finite, check_unit_interval
from .sources import Source, read

Binarization = Literal["none", "static", "dynamic"]


class Rows(Protocol):
    """Rows of data (N, *event_shape) that can be indexed: a tensor, or :class:`Streamed`."""

    @property
    def shape(self) -> torch.Size:
        """(N, *event_shape)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Streamed:
    """Rows of a memory-mapped array, read from disk as they are asked for."""

    values: np.ndarray
    """The map, (≥ N, *event_shape)."""
    index: np.ndarray
    """Which of its rows these are, (N,)."""
    divisor: float = 1.0
    binarize_seed: int | None = None
    """Draw each row's bits from its values, always the same ones; ``None``: do not."""

    @property
    def shape(self) -> torch.Size:
        """(N, *event_shape)."""
        return torch.Size((len(self.index), *self.values.shape[1:]))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        index = self.index[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]
        values = torch.from_numpy(self.values[index].astype(np.float32) / self.divisor)
        return values if self.binarize_seed is None else _bits(values, index, self.binarize_seed)


@dataclass(frozen=True)
class Data:
    """A data set in three parts, each (N, *event_shape), with labels (N,) where there are any.

    ``train``, ``validation`` and ``test`` are tensors, or rows streamed from disk; beside them
    stand ``train_labels``, ``validation_labels`` and ``test_labels``, integers.

    Under dynamic binarization ``train`` keeps the probabilities, of which :func:`fit` draws
    fresh bits each epoch, while ``validation`` and ``test`` hold one fixed draw.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    train_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    """What the labels 0, 1, … stand for, where they were words."""
    binarize: Binarization = "none"
    location: Tensor | None = None
    """What was subtracted from each element to standardize it."""
    scale: Tensor | None = None
    """What each element was divided by to standardize it."""

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.shape[1:]

    def digest(self) -> str:
        """A digest of shapes and values: of all of them in memory, of some rows where streamed."""
        digest = hashlib.blake2b(digest_size=16)
        for rows in (self.train, self.validation, self.test):
            index = torch.linspace(0, len(rows) - 1, min(len(rows), 1000)).round().long()
            values = rows if isinstance(rows, Tensor) else rows[index]
            digest.update(str(tuple(rows.shape)).encode())
            digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        sizes = " + ".join(str(len(rows)) for rows in (self.train, self.validation, self.test))
        return f"Data({self.name}: {sizes} of {tuple(self.event_shape)}, binarize={self.binarize})"


def load_data(
    source: Any = "digits",
    *,
    labels: Any = None,
    binarize: Binarization | None = None,
    standardize: bool = False,
    validation: float = 0.1,
    test: float = 0.1,
    stream: bool | None = None,
    seed: int = 0,
) -> Data:
    """Load data and split them, at random but by the seed, into train, validation and test.

    Named sets and ``uint8`` arrays with values above 1 are divided by their largest level,
    to lie in [0, 1]; other values stay as they are. A data set with a test set of its own
    (MNIST and its kin) keeps it, and ``test`` is then not used.

    Args:
        source: ``"digits"`` (8×8, comes with scikit-learn), ``"mnist"``,
            ``"fashion-mnist"``, ``"kmnist"`` (28×28; read from the folder LATENTE_DATA, or
            downloaded), ``"freyfaces"``; a ``.npy``, ``.npz`` (arrays ``x`` and ``y``),
            ``.csv`` or ``.parquet`` file; a tensor, an array or a DataFrame.
        labels: labels beside an array, (N,); for a table, also the name of their column.
        binarize: ``"static"`` draws each value's bit once; ``"dynamic"`` draws the training
            bits anew each epoch (test figures differ: see the README); ``None`` or
            ``"none"`` leaves grey values.
        standardize: subtract each element's training mean and divide by its training
            standard deviation. Densities are then in standardized units.
        validation: fraction of the data, the set's own test set aside, to validate on.
        test: fraction to test on.
        stream: keep a ``.npy`` on disk and read it batch by batch; ``None``: if it would
            fill more than half of the memory at hand.
        seed: decides the split and the fixed draws.

    Raises:
        FileNotFoundError: if the file or the data set is not there.
        ValueError: if the data are empty, hold NaN or infinity, cannot be binarized, do not
            match their labels, or if the name or the file's kind is not known.

    >>> data = load_data("digits", binarize="dynamic", seed=0)
    >>> data
    Data(digits: 1437 + 180 + 180 of (8, 8), binarize=dynamic)
    >>> data.test.unique()
    tensor([0., 1.])
    """
    if binarize not in (None, "none", "static", "dynamic"):
        raise ValueError(f"binarize must be 'none', 'static' or 'dynamic', got {binarize!r}")
    if standardize and binarize in ("static", "dynamic"):
        raise ValueError("data cannot be both standardized and binarized: choose one")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    read_in = read(source, labels)
    if len(read_in.values) == 0:
        raise ValueError(f"{read_in.name} holds no rows")
    if read_in.labels is not None and len(read_in.labels) != len(read_in.values):
        raise ValueError(
            f"{read_in.name} has {len(read_in.values)} rows but {len(read_in.labels)} labels"
        )
    for start in range(0, len(read_in.values), BLOCK):
        block = read_in.values[start : start + BLOCK]
        check_finite(block, read_in.name, start)
        if binarize in ("static", "dynamic"):
            check_unit_interval(block / read_in.divisor, read_in.name, start)
    parts = _split(len(read_in.values), read_in.num_test, validation, test, seed)
    if _is_streamed(read_in.values, stream):
        if standardize:
            raise ValueError(f"{read_in.name} is streamed from disk: standardize it beforehand")
        rows, location, scale = _stream(read_in, parts, binarize, seed), None, None
    else:
        rows, location, scale = _hold(read_in, parts, binarize, standardize, seed)
    labels = read_in.labels
    targets = [None if labels is None else torch.as_tensor(labels[part]) for part in parts]
    return Data(
        read_in.name,
        *rows,
        train_labels=targets[0],
        validation_labels=targets[1],
        test_labels=targets[2],
        label_names=read_in.label_names,
        binarize=binarize or "none",
        location=location,
        scale=scale,
    )


def _split(
    num_rows: int, num_test: int | None, validation: float, test: float, seed: int
) -> list[np.ndarray]:
    """Row numbers of the train, validation and test parts, each in random order."""
    if min(validation, test) < 0 or validation + test >= 1:
        raise ValueError(
            f"validation={validation} and test={test} must leave something to train on"
        )
    pool = num_rows - (num_test or 0)
    order = np.random.default_rng(seed).permutation(pool)
    own_test = np.arange(pool, num_rows)
    held_out = round(validation * pool), 0 if num_test else round(test * pool)
    first, second = pool - sum(held_out), pool - held_out[1]
    return [order[:first], order[first:second], own_test if num_test else order[second:]]


def _is_streamed(values: np.ndarray, stream: bool | None) -> bool:
    if not isinstance(values, np.memmap):
        if stream:
            raise ValueError("only a .npy file can be streamed: save the data as one")
        return False
    in_memory = values.size * np.dtype(np.float32).itemsize
    return in_memory > psutil.virtual_memory().available / 2 if stream is None else stream


def _hold(
    source: Source,
    parts: list[np.ndarray],
    binarize: Binarization | None,
    standardize: bool,
    seed: int,
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """The parts as tensors in memory, and the location and scale they were standardized by."""
    dtype = np.float64 if source.values.dtype == np.float64 else np.float32
    rows = [
        torch.from_numpy(source.values[part].astype(dtype) / dtype(source.divisor))
        for part in parts
    ]
    location = scale = None
    if standardize:
        location = rows[0].mean(0)
        scale = rows[0].std(0) if len(rows[0]) > 1 else torch.ones_like(location)
        scale = torch.where(scale > 0, scale, 1.0)
        rows = [(part - location) / scale for part in rows]
    if binarize in ("static", "dynamic"):
        kept = 1 if binarize == "dynamic" else 0
        rows[kept:] = [
            _bits(part, index, seed) for part, index in zip(rows[kept:], parts[kept:], strict=True)
        ]
    return rows, location, scale


def _stream(
    source: Source, parts: list[np.ndarray], binarize: Binarization | None, seed: int
) -> list[Streamed]:
    """The parts as rows on disk."""
    seeds = {"static": (seed, seed, seed), "dynamic": (None, seed, seed)}
    return [
        Streamed(source.values, part, source.divisor, bits)
        for part, bits in zip(parts, seeds.get(binarize or "none", (None,) * 3), strict=True)
    ]


BLOCK = 4096
"""Rows looked at together when a whole data set is passed over."""


def _bits(probabilities: Tensor, index: np.ndarray, seed: int) -> Tensor:
    """One Bernoulli draw of each value, by the seed and the row's number alone.

    A row's bits are thus the same in memory and streamed, in any order and any part.
    """
    size = math.prod(probabilities.shape[1:])
    noise = np.empty((len(index), size), dtype=np.float32)
    for position, row in enumerate(index):
        counter = np.random.Philox(key=seed, counter=[0, int(row), 0, 0])
        noise[position] = np.random.Generator(counter).random(size, dtype=np.float32)
    uniform = torch.from_numpy(noise).reshape(probabilities.shape)
    return (uniform < probabilities).to(probabilities.dtype)


def as_rows(data: Any, name: str) -> tuple[Rows, ...]:
    """Data as a tuple of rows: x, which becomes floating, and contexts, which keep their type.

    Args:
        data: rows, an array, a DataFrame, or a tuple (x, *context) of them.
        name: what to call them in an error.

    Raises:
        ValueError: if they are empty, of unequal lengths, or hold NaN or infinity.

    >>> [tuple(part.shape) for part in as_rows((np.zeros((5, 2)), np.arange(5)), "data")]
    [(5, 2), (5,)]
    """
    parts = data if isinstance(data, tuple) else (data,)
    rows: list[Rows] = []
    for position, part in enumerate(parts):
        label = name if position == 0 else f"context {position} of {name}"
        if isinstance(part, str | Path):
            raise ValueError(f"{label} is the name {str(part)!r}: give load_data({str(part)!r})")
        if not isinstance(part, Streamed | Tensor):
            values = read(part).values
            part = (
                Streamed(values, np.arange(len(values)))
                if isinstance(values, np.memmap)
                else torch.from_numpy(np.require(values, requirements="W"))
            )
        if isinstance(part, Tensor):
            if part.dim() == 0 or len(part) == 0:
                raise ValueError(f"{label} holds no rows")
            check_finite(part.detach().cpu(), label)
            if position == 0 and not part.is_floating_point():
                part = part.to(torch.get_default_dtype())
        rows.append(part)
    lengths = [len(part) for part in rows]
    if len(set(lengths)) > 1:
        raise ValueError(f"{name} and its contexts have different lengths: {lengths}")
    return tuple(rows)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch's order and bits: a pure function, so a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def epoch_batches(
    rows: tuple[Rows, ...],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    resample: bool = False,
    device: torch.device | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """The minibatches of one epoch: each datum once, in an order drawn from (seed, epoch).

    N data make ⌈N / batch_size⌉ batches whose sizes differ by one at most, so none is a
    small remainder with a large weight. One batch of all data keeps their order.

    Args:
        rows: data and contexts, each with N rows.
        batch_size: the largest size of a batch.
        resample: replace the first rows, probabilities, by fresh Bernoulli draws.
        device: where the batches go.

    >>> x = torch.arange(10.0)
    >>> [len(batch) for (batch,) in epoch_batches((x,), 4, seed=0, epoch=0)]
    [4, 3, 3]
    """
    seed = epoch_seed(seed, epoch)
    num_rows = len(rows[0])
    order = torch.arange(num_rows)
    if batch_size < num_rows:
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    order = order.to(device)
    noise = torch.Generator(device=device or "cpu").manual_seed(seed)
    for index in order.tensor_split(math.ceil(num_rows / batch_size)):
        batch = tuple(part[index].to(device) for part in rows)
        if resample:
            batch = (torch.bernoulli(batch[0], generator=noise), *batch[1:])
        yield batch
