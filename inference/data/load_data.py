"""Data sets for fitting: ``load_data`` and what it returns."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from .binarization import Binarization, binarize_parts, check_unit_interval
from .checks import check_finite
from .contexts import given_elements
from .csv_format import CsvFormat
from .files import read
from .rows import BLOCK_ROWS, Rows, Streamed, as_rows
from .source import Source
from .splits import split_rows
from .tables import check_columns, refuse_wide


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
    train_context: tuple[Rows, ...] = ()
    """What is given beside x, each (N, …): a conditional model's context."""
    validation_context: tuple[Rows, ...] = ()
    test_context: tuple[Rows, ...] = ()
    note: str = ""
    """How a file, table or array was read, in one line."""

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.shape[1:]

    def rows(self, part: Literal["train", "validation", "test"]) -> tuple[Rows, ...]:
        """(x, *context) of one of the three parts: what model and guide are given.

        >>> [len(rows) for rows in load_data("digits", given="labels").rows("test")]
        [180, 180]
        """
        return getattr(self, part), *getattr(self, f"{part}_context")

    def digest(self) -> str:
        """A digest of shapes and values: of all of them in memory, of some rows where streamed."""
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
    """Load data and split them, at random but by the seed, into train, validation and test.

    Named sets and ``uint8`` arrays with values above 1 are divided by their largest level,
    to lie in [0, 1]; other values stay as they are. A data set with a test set of its own
    (MNIST and its kin) keeps it, and ``test`` is then not used. How the text of a CSV file
    was understood stands in the ``note`` of what is returned.

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
        given: what a conditional model is given: ``"labels"``, whole numbers (N,); or flags, of the
            shape of a datum, of the elements that are, or a function of that shape to such, as
            :func:`quadrants` makes them. x is then the other elements, (N, D − G), and the context
            those, (N, G), grey also where x is binarized.
        validation: fraction of the data, the set's own test set aside, to validate on.
        test: fraction to test on.
        stream: keep a ``.npy`` on disk and read it batch by batch; ``None``: if it would
            fill more than half of the memory at hand.
        seed: decides the split and the fixed draws.
        delimiter: what stands between the cells of a CSV file; ``None``: found in its text.
        decimal: the decimal mark of a CSV file, ``"."`` or ``","``; ``None``: found in its text.
        header: whether the first row of a CSV file holds names; ``None``: found in its text.
        keep_degenerate: keep columns of a table that are constant, or copies of another, although
            they have no density.

    Raises:
        FileNotFoundError: if the file or the data set is not there.
        ValueError: if the data are empty, hold NaN or infinity, cannot be binarized, do not
            match their labels or what is given, or have a column that float32 does not hold or
            that has no density; if labels have fractions; if a CSV file may be read in two ways;
            or if the name or the file's kind is not known.

    >>> data = load_data("digits", binarize="dynamic", seed=0)
    >>> data
    Data(digits: 1437 + 180 + 180 of (8, 8), binarize=dynamic)
    >>> data.test.unique()
    tensor([0., 1.])
    """
    _check_arguments(binarize, standardize, seed)
    read_in = read(source, labels, CsvFormat(delimiter, decimal, header))
    mask = given_elements(given, read_in)
    _check_values(read_in, binarize)
    if not standardize:
        refuse_wide(read_in)
    parts = split_rows(len(read_in.values), read_in.num_test, validation, test, seed)
    flags = np.zeros(len(read_in.columns), bool) if mask is None else mask.numpy()
    read_in = check_columns(read_in, parts[0], flags, standardize=standardize, keep=keep_degenerate)
    location = scale = None
    contexts: list[tuple[Rows, ...]] = [(), (), ()]
    if _is_streamed(read_in.values, stream):
        if standardize or mask is not None:
            raise ValueError(
                f"{read_in.name} is streamed from disk: standardize it beforehand, and keep what "
                "is given in an array of its own"
            )
        rows = _stream(read_in, parts, binarize, seed)
    else:
        rows, location, scale = _hold(read_in, parts, standardize)
        if mask is not None:
            contexts = [(part[:, mask],) for part in rows]
            rows = [part[:, ~mask] for part in rows]
            if location is not None and scale is not None:
                location, scale = location[~mask], scale[~mask]
        rows = binarize_parts(rows, parts, binarize, seed)
    labels = read_in.labels
    targets = [None if labels is None else torch.as_tensor(labels[part]) for part in parts]
    if isinstance(given, str):
        contexts = [(target,) for target in targets if target is not None]
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
        train_context=contexts[0],
        validation_context=contexts[1],
        test_context=contexts[2],
        note=read_in.note,
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
    dtype = np.float64 if native == np.float64 else np.float32
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
    seeds = {"static": (seed, seed, seed), "dynamic": (None, seed, seed)}
    return [
        Streamed(source.values, part, source.divisor, bits)
        for part, bits in zip(parts, seeds.get(binarize or "none", (None,) * 3), strict=True)
    ]


def evaluation_rows(data: Any) -> tuple[Rows, ...]:
    """The rows by which a pair is judged: a ``Data``'s test part, or all that is given."""
    return as_rows(data.rows("test") if isinstance(data, Data) else data, "data")
