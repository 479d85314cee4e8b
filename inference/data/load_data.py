"""Data sets for fitting: ``load_data`` and its result, ``Data``."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from .binarization import Binarization, binarize_parts, check_unit_interval
from .checks import check_finite, exceeds_float32
from .contexts import given_elements
from .csv_format import CsvFormat
from .files import read
from .rows import BLOCK_ROWS, Rows, Streamed
from .source import Source
from .splits import split_rows
from .tables import check_columns, refuse_wide


@dataclass(frozen=True)
class Data:
    """A data set in three parts, each (N, *event_shape), with labels (N,) where there are any.

    ``train``, ``validation`` and ``test`` are tensors, or rows streamed from disk;
    ``train_labels``, ``validation_labels`` and ``test_labels`` are integers.

    With dynamic binarization, ``train`` holds the probabilities, from which :func:`fit` draws new
    bits in each epoch; ``validation`` and ``test`` hold one fixed draw.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    train_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    label_names: tuple[str, ...] = ()
    """The words that the labels 0, 1, … stand for, if they were words."""
    binarize: Binarization = "none"
    location: Tensor | None = None
    """The value subtracted from each element to standardize it."""
    scale: Tensor | None = None
    """The value by which each element was divided to standardize it."""
    train_context: tuple[Rows, ...] = ()
    """The context of a conditional model, beside x; each (N, …)."""
    validation_context: tuple[Rows, ...] = ()
    test_context: tuple[Rows, ...] = ()
    note: str = ""
    """How a file, table or array was read, in one line."""

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.shape[1:]

    def rows(self, part: Literal["train", "validation", "test"]) -> tuple[Rows, ...]:
        """(x, *context) of one of the three parts: the arguments of model and guide.

        >>> [len(rows) for rows in load_data("digits", given="labels").rows("test")]
        [180, 180]
        """
        return getattr(self, part), *getattr(self, f"{part}_context")

    def digest(self) -> str:
        """A digest of shapes and values: of all rows in memory, of some rows if streamed."""
        digest = hashlib.blake2b(digest_size=16)
        for rows in (*self.rows("train"), *self.rows("validation"), *self.rows("test")):
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
    given: Any = None,
    validation: float = 0.1,
    test: float = 0.1,
    stream: bool | None = None,
    seed: int = 0,
    delimiter: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
    keep_degenerate: bool = False,
) -> Data:
    """Load data, and split them at random, by the seed, into train, validation and test.

    Named data sets and ``uint8`` arrays with values above 1 are divided by their largest level, so
    that they lie in [0, 1]; other values are not changed. A data set that comes with a test set
    (MNIST and similar) keeps it, and ``test`` is not used. ``Data.note`` tells how a file, table
    or array was read.

    Args:
        source: ``"digits"`` (8×8, comes with scikit-learn), ``"mnist"``,
            ``"fashion-mnist"``, ``"kmnist"`` (28×28; read from the folder LATENTE_DATA, or
            downloaded), ``"freyfaces"``; a ``.npy``, ``.npz`` (arrays ``x`` and ``y``),
            ``.csv``, ``.tsv`` (also compressed, ``.csv.gz``) or ``.parquet`` file; a tensor, an
            array or a DataFrame.
        labels: labels beside an array, whole numbers or words, (N,); for a table, also the name
            of their column.
        binarize: ``"static"`` draws each value's bit once; ``"dynamic"`` draws the training
            bits anew each epoch (test figures differ: see docs/results.md); ``None`` or
            ``"none"`` leaves grey values.
        standardize: subtract each element's training mean and divide by its training
            standard deviation. Densities are then in standardized units.
        given: the context of a conditional model: ``"labels"``, whole numbers (N,); or boolean
            flags of the given elements, with the shape of a datum; or a function from that shape to
            flags, such as :func:`quadrants`. With G flags, x is the other elements, (N, D − G), and
            the context the given ones, (N, G), which stay grey if x is binarized.
        validation: fraction of the data, without a test set that comes with them, to validate on.
        test: fraction of the data to test on.
        stream: keep a ``.npy`` file on disk and read it batch by batch; ``None``: if it would fill
            more than half of the available memory.
        seed: seed of the split and of the fixed draws.
        delimiter: the character between the cells of a CSV file; ``None``: found in its text.
        decimal: the decimal mark of a CSV file, ``"."`` or ``","``; ``None``: found in its text.
        header: whether the first row of a CSV file holds names; ``None``: found in its text.
        keep_degenerate: keep columns of a table that are constant, or copies of another, although
            they have no density.

    Raises:
        FileNotFoundError: if the file or the data set does not exist.
        ValueError: if the data are empty, hold NaN or infinity, cannot be binarized, or do not
            match their labels or ``given``; if float32 cannot hold a column, or a column has no
            density; if labels have fractions; if a CSV file can be read in two ways; or if the name
            or the kind of the file is unknown.

    >>> data = load_data("digits", binarize="dynamic", seed=0)
    >>> data
    Data(digits: 1437 + 180 + 180 of (8, 8), binarize=dynamic)
    >>> data.test.unique()
    tensor([0., 1.])
    """
    _check_arguments(binarize, standardize, seed)
    loaded = read(source, labels, CsvFormat(delimiter, decimal, header))
    mask = given_elements(given, loaded)
    _check_values(loaded, binarize)
    if not standardize:
        refuse_wide(loaded)
    parts = split_rows(len(loaded.values), loaded.num_test, validation, test, seed)
    flags = np.zeros(len(loaded.columns), bool) if mask is None else mask.numpy()
    loaded = check_columns(loaded, parts[0], flags, standardize=standardize, keep=keep_degenerate)
    location = scale = None
    contexts: list[tuple[Rows, ...]] = [(), (), ()]
    if _is_streamed(loaded.values, stream):
        if standardize or mask is not None:
            raise ValueError(
                f"{loaded.name} is streamed from disk: standardize it beforehand, and save the "
                "given elements as a separate array"
            )
        rows = _stream(loaded, parts, binarize, seed)
    else:
        rows, location, scale = _hold(loaded, parts, standardize)
        if mask is not None:
            contexts = [(part[:, mask],) for part in rows]
            rows = [part[:, ~mask] for part in rows]
            if location is not None and scale is not None:
                location, scale = location[~mask], scale[~mask]
        rows = binarize_parts(rows, parts, binarize, seed)
    labels = loaded.labels
    targets = [None if labels is None else torch.as_tensor(labels[part]) for part in parts]
    if isinstance(given, str):
        contexts = [(target,) for target in targets if target is not None]
    return Data(
        loaded.name,
        *rows,
        train_labels=targets[0],
        validation_labels=targets[1],
        test_labels=targets[2],
        label_names=loaded.label_names,
        binarize=binarize or "none",
        location=location,
        scale=scale,
        train_context=contexts[0],
        validation_context=contexts[1],
        test_context=contexts[2],
        note=loaded.note,
    )


def _check_arguments(binarize: str | None, standardize: bool, seed: int) -> None:
    if binarize not in (None, "none", "static", "dynamic"):
        raise ValueError(f"binarize must be 'none', 'static' or 'dynamic', got {binarize!r}")
    if standardize and binarize in ("static", "dynamic"):
        raise ValueError("data cannot be both standardized and binarized: choose one")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")


def _check_values(source: Source, binarize: Binarization | None) -> None:
    """Refuse values that are missing, do not match their labels, or cannot be binarized."""
    if len(source.values) == 0:
        raise ValueError(f"{source.name} holds no rows")
    if source.labels is not None and len(source.labels) != len(source.values):
        raise ValueError(
            f"{source.name} has {len(source.values)} rows but {len(source.labels)} labels"
        )
    for start in range(0, len(source.values), BLOCK_ROWS):
        block = source.values[start : start + BLOCK_ROWS]
        check_finite(block, source.name, start, source.columns)
        if binarize in ("static", "dynamic"):
            check_unit_interval(block / source.divisor, source.name, start)


def _is_streamed(values: np.ndarray, stream: bool | None) -> bool:
    if not isinstance(values, np.memmap):
        if stream:
            raise ValueError("only a .npy file can be streamed: save the data as one")
        return False
    in_memory = values.size * np.dtype(np.float32).itemsize
    return in_memory > psutil.virtual_memory().available / 2 if stream is None else stream


def _hold(
    source: Source, parts: list[np.ndarray], standardize: bool
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """The parts as tensors in memory, and the location and scale they were standardized by."""
    native = source.values.dtype.newbyteorder("=")
    exact = native == np.float64 or exceeds_float32(source.values)
    dtype = np.float64 if exact else np.float32
    rows = [
        torch.from_numpy(source.values[part].astype(dtype) / dtype(source.divisor))
        for part in parts
    ]
    if not standardize:
        return rows, None, None
    location = rows[0].mean(0)
    scale = rows[0].std(0) if len(rows[0]) > 1 else torch.ones_like(location)
    scale = torch.where(scale > 0, scale, 1.0)
    rows = [(part - location) / scale for part in rows]
    return [part.float() for part in rows] if source.wide_columns else rows, location, scale


def _stream(
    source: Source, parts: list[np.ndarray], binarize: Binarization | None, seed: int
) -> list[Streamed]:
    """The parts as rows on disk."""
    if exceeds_float32(source.values):
        raise ValueError(
            f"{source.name} holds whole numbers beyond 2^24, which float32 rounds, and rows on "
            "disk are read as float32: subtract an offset or standardize them beforehand"
        )
    seeds = {"static": (seed, seed, seed), "dynamic": (None, seed, seed)}
    return [
        Streamed(source.values, part, source.divisor, bits)
        for part, bits in zip(parts, seeds.get(binarize or "none", (None,) * 3), strict=True)
    ]
