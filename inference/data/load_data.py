"""Data sets for fitting: ``load_data`` and its result, ``Data``."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from .binarization import Binarization, binarize_parts, check_unit_interval
from .checks import check_finite, exceeds_float32, plain
from .column import CONTINUOUS
from .contexts import context_names, encode_context, fit_context_columns, given_elements
from .csv_format import CsvFormat
from .data_notes import (
    describe_aside,
    describe_groups,
    describe_parts,
    remark_on_levels,
)
from .known_rows import remember_rows
from .layout import Layout, channels_first, find_layout
from .lengths import count_lengths
from .reading_options import ReadingOptions
from .rows import BLOCK_ROWS, Rows, Streamed
from .sequences import check_sequence_options, limit_words
from .some_labels import SOME_LABELS, UNKNOWN, SomeLabels
from .source import Source, join_notes
from .splits import Split, check_positions
from .tables import check_columns, refuse_wide
from .test_set import append_test_set
from .transform import Transform, fit_standardization, lengths_of
from .vocabulary import TokenKind


def _no_rows() -> np.ndarray:
    return np.arange(0)


@dataclass(frozen=True)
class Data:
    """A data set in three parts, each (N, *event_shape), with labels (N,) where there are any.

    ``train``, ``validation`` and ``test`` are tensors, or rows streamed from disk;
    ``train_labels``, ``validation_labels`` and ``test_labels`` are integers; ``train_index``,
    ``validation_index`` and ``test_index`` are the numbers of the rows in what was loaded (those of
    a test set of its own follow the others), counted from 0.

    With dynamic binarization, ``train`` holds the probabilities, from which :func:`fit` draws new
    bits in each epoch; ``validation`` and ``test`` hold one fixed draw.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    transform: Transform
    """What was done to the data, and is to be done to new ones: ``data.transform(new)``."""
    train_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    train_context: tuple[Rows, ...] = ()
    """The context of a conditional model, beside x; each (N, …)."""
    validation_context: tuple[Rows, ...] = ()
    test_context: tuple[Rows, ...] = ()
    train_index: np.ndarray = field(default_factory=_no_rows, repr=False)
    validation_index: np.ndarray = field(default_factory=_no_rows, repr=False)
    test_index: np.ndarray = field(default_factory=_no_rows, repr=False)
    note: str = ""
    """How a file, table or array was read, in one line."""

    def __post_init__(self) -> None:
        for rows in (self.train, self.validation, self.test):
            remember_rows(rows, self.transform)

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.shape[1:]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The words that the labels 0, 1, … stand for, if they were words."""
        return self.transform.label_names

    @property
    def binarize(self) -> Binarization:
        """How the bits of x are drawn."""
        return self.transform.binarize

    @property
    def location(self) -> Tensor | None:
        """The value subtracted from each element of x to standardize it."""
        return self.transform.of_x(self.transform.location)

    @property
    def scale(self) -> Tensor | None:
        """The value by which each element of x was divided to standardize it."""
        return self.transform.of_x(self.transform.scale)

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
    test: Any = 0.1,
    split: Any = "random",
    groups: Any = None,
    order: Any = None,
    drop: Sequence[str] = (),
    stream: bool | None = None,
    seed: int = 0,
    delimiter: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
    scale: float | None = None,
    shape: Sequence[int] | None = None,
    layout: Layout | None = None,
    kinds: Mapping[str, str] | None = None,
    key: str | None = None,
    keep_degenerate: bool = False,
    lengths: Any = None,
    tokens: TokenKind | None = None,
    min_count: int = 2,
) -> Data:
    """Load data, and split them at random, by the seed, into train, validation and test.

    Named data sets and ``uint8`` arrays with values above 1 are divided by their largest level, so
    that they lie in [0, 1]; other values are not changed. Images with their channels last, told by
    their shape, get them first. A data set that comes with a test set (MNIST and similar) keeps it,
    and the fraction ``test`` is not used. ``Data.note`` tells how a file, table or array was read;
    ``Data.transform`` does the same to new data, and undoes it.

    Args:
        source: ``"digits"`` (8×8, comes with scikit-learn), ``"mnist"``,
            ``"fashion-mnist"``, ``"kmnist"`` (28×28; read from the folder LATENTE_DATA, or
            downloaded), ``"freyfaces"``, ``"jsb-chorales"``, ``"spoken-digits"``; a text in
            ``.txt`` or ``.txt.gz``, or a list of strings; a list of sequences; an array in a
            ``.npy``, ``.npz``, ``.mat`` or ``.h5`` file; a table in ``.csv``, ``.tsv`` (also
            compressed, ``.csv.gz``), ``.xlsx``, ``.parquet``, ``.feather`` or ``.h5ad``; a folder
            of images (PNG, JPEG, TIFF); a tensor, an array, a sparse matrix or a DataFrame; a
            ``Dataset`` of x or (x, label), which is read item by item, or a ``DataLoader`` of one.
        labels: labels beside an array, whole numbers or words, (N,); or the name of their column of
            a table, array of a file, or field of a data set's items.
        binarize: ``"static"`` draws each value's bit once; ``"dynamic"`` draws the training
            bits anew each epoch (test figures differ: see docs/results.md); ``None`` or
            ``"none"`` leaves grey values.
        standardize: subtract each element's training mean and divide by its training
            standard deviation. Densities are then in standardized units.
        given: the context of a conditional model: ``"labels"``, whole numbers (N,);
            :class:`SomeLabels`, of which few are known; names of
            columns of a table, which become one context (N, G), words as G flags and numbers
            standardized; or boolean flags of the given elements, with the shape of a datum; or a
            function from that shape to flags, such as :func:`quadrants`. With G flags, x is the
            other elements, (N, D − G), and the context the given ones, (N, G), which stay grey if x
            is binarized.
        validation: fraction of the data, without a test set that comes with them, to validate on.
        test: fraction of the data to test on; or the test set itself, a source like the first.
        split: ``"random"``; ``"by-class"``, with the same share of each label in each part;
            ``"in-order"``, the last rows are the test part, and those before them validate; or,
            for each row, ``"train"``, ``"validation"`` or ``"test"``: N words, or the name of a
            column of them.
        groups: a value for each row, or the name of a column: rows of equal values are in the same
            part. ``validation`` and ``test`` are then fractions of the groups.
        order: a value for each row, or the name of a column, such as a date, that sorts the rows of
            a split in order.
        drop: names of columns of a table that are not modelled, such as identifiers and dates. New
            data may have them, or not.
        stream: keep a ``.npy`` file on disk and read it batch by batch; ``None``: if it would fill
            more than half of the available memory.
        seed: seed of the split and of the fixed draws.
        delimiter: the character between the cells of a CSV file; ``None``: found in its text.
        decimal: the decimal mark of a CSV file, ``"."`` or ``","``; ``None``: found in its text.
        header: whether the first row of a CSV file holds names; ``None``: found in its text.
        scale: what values are divided by, as 255 or 65535 for grey levels.
        shape: the shape of a datum whose values are the columns of a table, or of one row, as
            (28, 28) for images with a column for each pixel.
        layout: ``"channels_first"`` or ``"channels_last"``, if the shape of images leaves it open.
        kinds: model a table of several kinds of columns: their kinds by name, in place of those
            that :func:`infer_columns` finds; ``{}``: all as found. x then holds codes of
            categories, and other columns in their own units.
        key: which array of an ``.npz``, ``.mat`` or ``.h5`` file, sheet of ``.xlsx``, layer of
            ``.h5ad``, or field of a data set's items holds the data, where there are several.
        keep_degenerate: keep columns of a table that are constant, or copies of another, although
            they have no density.
        lengths: the lengths of padded sequences, an array (N, T, …), or the name of their array in
            the file that holds both; what lies beyond them becomes zero.
        tokens: what the tokens of the lines of a text are, ``"characters"`` or ``"words"``.
        min_count: words of a text that are fewer times in its training lines are unknown.

    The data may be **sequences of different lengths**: a list of arrays (T, …), padded sequences
    with ``lengths``, or the lines of a text. x is then padded with zeros at the end, (N, T, …), and
    its lengths, (N,), are the first context. Whole numbers keep their type.

    Columns of a table that ``split``, ``groups``, ``order``, ``given`` or ``drop`` name are not
    modelled.

    Raises:
        FileNotFoundError: if the file or the data set does not exist.
        ValueError: if the data are empty, hold NaN or infinity, cannot be binarized, or do not
            match their labels or ``given``; if float32 cannot hold a column, or a column has no
            density; if labels have fractions; if a CSV file, or a shape, can be read in two ways;
            if the data cannot be split so; or if the name or the kind of the file is unknown.

    >>> data = load_data("digits", binarize="dynamic", seed=0)
    >>> data
    Data(digits: 1437 + 180 + 180 of (8, 8), binarize=dynamic)
    >>> data.test.unique()
    tensor([0., 1.])
    """
    validation, test, seed, scale = map(plain, (validation, test, seed, scale))
    _check_arguments(binarize, standardize, seed)
    check_positions(source, {"labels": labels, "split": split, "groups": groups, "order": order})
    if kinds is not None and (standardize or binarize not in (None, "none") or shape or scale):
        raise ValueError(
            "columns of several kinds are in their own units: leave standardize=, binarize=, "
            "scale= and shape= out, or kinds="
        )
    hiding = given if isinstance(given, SomeLabels) else None
    given = SOME_LABELS if hiding else given
    division = Split(validation, test, split, groups, order, seed)
    names, dropped = context_names(given), _names_of(drop)
    options = ReadingOptions(
        CsvFormat(delimiter, decimal, header),
        label_column=labels if isinstance(labels, str) else None,
        aside=tuple(dict.fromkeys([*division.columns, *names, *dropped])),
        scale=scale,
        shape=None if shape is None else tuple(map(plain, shape)),
        key=key,
        tokens=tokens,
        lengths=lengths if isinstance(lengths, str) else None,
    )
    try:
        loaded = options.read(source, labels, kinds, None if options.lengths else lengths)
    except ValueError as error:
        question = division.question(str(error))
        if not question:
            raise
        raise ValueError(f"{error}{question}") from error
    check_sequence_options(loaded, given, {"shape": shape, "layout": layout, "stream": stream})
    options = options.remember(loaded)
    if division.has_test_set:
        loaded = append_test_set(loaded, test, labels, options)
    mask = given_elements(given, loaded)
    _check_values(loaded, binarize)
    if not standardize:
        refuse_wide(loaded)
    parts = division.rows(loaded)
    loaded = limit_words(loaded, parts[0], min_count)
    flags = np.array([column.kind not in CONTINUOUS for column in loaded.kinds], bool)
    if not loaded.kinds:
        flags = np.zeros(len(loaded.columns), bool) if mask is None else mask.numpy()
    if kinds is not None and not loaded.kinds:
        raise ValueError(f"kinds= is for tables, and {loaded.name} is none")
    loaded = check_columns(loaded, parts[0], flags, standardize=standardize, keep=keep_degenerate)
    transform = replace(
        _describe(loaded, layout, standardize, binarize),
        options=replace(options, vocabulary=loaded.vocabulary),
        given=given if isinstance(given, str) and given in ("labels", SOME_LABELS) else None,
        given_flags=mask,
        context_columns=fit_context_columns(loaded, names, parts[0]),
        binarize=binarize or "none",
        seed=seed,
        train_lengths=count_lengths(loaded.lengths, parts[0]),
    )
    if transform.given is not None and loaded.labels is not None:
        of_labels = int(loaded.labels.min()), int(loaded.labels.max())
        if hiding:
            of_labels = UNKNOWN, of_labels[1]
        transform = replace(transform, label_range=of_labels)
    roles = {"labels": labels, "groups": groups, "order": order, "split": split}
    told = [
        describe_aside(loaded, roles, names, dropped) if loaded.note.startswith("read ") else "",
        describe_groups(loaded, groups),
        describe_parts(parts) if loaded.note.startswith("read ") else "",
    ]
    loaded = replace(loaded, note=join_notes(loaded.note, *told))
    data = _assemble(loaded, parts, transform, stream=stream, standardize=standardize)
    return hiding.hide(data, seed) if hiding else data


def _names_of(drop: Sequence[str]) -> Sequence[str]:
    """The names of columns to drop; one alone is not taken for a sequence of letters."""
    return (drop,) if isinstance(drop, str) else drop


def _describe(
    loaded: Source, layout: Layout | None, standardize: bool, binarize: Binarization | None
) -> Transform:
    """The transform of what was read, before anything is fitted."""
    values, native = loaded.values, loaded.values.dtype.newbyteorder("=")
    exact = exceeds_float32(values) or bool(loaded.wide_columns)
    exact = exact or (native == np.float64 and not loaded.columns)
    wide = exact and not (standardize and loaded.wide_columns)
    shape = tuple(values.shape[1:])
    largest = [float(np.abs(block.astype(np.float64)).max()) for block in loaded.blocks()]
    changed = loaded.divisor != 1 or standardize or binarize in ("static", "dynamic")
    whole = loaded.lengths is not None and native.kind in "iu" and not changed
    if loaded.lengths is None:
        layout = find_layout(shape, layout or _own_layout(loaded), loaded.name)
    return Transform(
        event_shape=shape,
        columns=loaded.columns,
        kinds=loaded.kinds,
        dtypes=loaded.dtypes or (native.name,),
        label_names=loaded.label_names,
        divisor=loaded.divisor,
        largest=max(largest),
        layout=layout or "channels_first",
        precision="float64" if exact else "float32",
        dtype="int64" if whole else "float64" if wide else "float32",
        log_mel=loaded.log_mel,
    )


def _own_layout(loaded: Source) -> Layout | None:
    """The layout, if the files say it."""
    return "channels_last" if loaded.channels_last else None


def _assemble(
    loaded: Source,
    parts: list[np.ndarray],
    transform: Transform,
    *,
    stream: bool | None,
    standardize: bool,
) -> Data:
    """The data set in its parts, standardized by its training rows and with its bits drawn."""
    labels = loaded.labels
    targets = [None if labels is None else torch.as_tensor(labels[part]) for part in parts]
    contexts: list[tuple[Rows, ...]] = [
        encode_context(loaded, part, transform.given, transform.context_columns) for part in parts
    ]
    note = loaded.note
    note = join_notes(note, remark_on_levels(loaded, transform.largest))
    if transform.layout == "channels_last":
        note = join_notes(note, "channels moved from the last place to the first")
    if _is_streamed(loaded.values, stream):
        if standardize or transform.given_flags is not None:
            raise ValueError(
                f"{loaded.name} is streamed from disk: standardize it beforehand, and save the "
                "given elements as a separate array"
            )
        rows = _stream(loaded, parts, transform)
    else:
        held = [transform.divide(loaded.values[part]) for part in parts]
        steps = [None if loaded.lengths is None else loaded.lengths[part] for part in parts]
        if standardize:
            transform = fit_standardization(transform, held[0], steps[0])
        split = [
            transform.split(transform.standardize(part, of))
            for part, of in zip(held, steps, strict=True)
        ]
        rows = [x for x, *_ in split]
        contexts = [
            (*lengths_of(loaded, part), *given, *more)
            for part, (_, *given), more in zip(parts, split, contexts, strict=True)
        ]
        rows = binarize_parts(rows, parts, transform.binarize, transform.seed)
    return Data(
        loaded.name,
        rows[0],
        rows[1],
        rows[2],
        transform,
        **dict(zip(("train_labels", "validation_labels", "test_labels"), targets, strict=True)),
        **dict(zip(("train_context", "validation_context", "test_context"), contexts, strict=True)),
        **dict(zip(("train_index", "validation_index", "test_index"), parts, strict=True)),
        note=note,
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
    for number, block in enumerate(source.blocks()):
        start = number * BLOCK_ROWS
        with np.errstate(over="ignore"):
            # What float32 cannot hold is infinite in it.
            seen = block.astype(np.float32) if source.columns else block
        check_finite(seen if not source.wide_columns else block, source.name, start, source.columns)
        if binarize in ("static", "dynamic"):
            check_unit_interval(block / source.divisor, source.name, start)


def _is_streamed(values: np.ndarray, stream: bool | None) -> bool:
    if not isinstance(values, np.memmap):
        if stream:
            raise ValueError("only a .npy file can be streamed: save the data as one")
        return False
    in_memory = values.size * np.dtype(np.float32).itemsize
    return in_memory > psutil.virtual_memory().available / 2 if stream is None else stream


def _stream(source: Source, parts: list[np.ndarray], transform: Transform) -> list[Streamed]:
    """The parts as rows on disk."""
    if exceeds_float32(source.values):
        raise ValueError(
            f"{source.name} holds whole numbers beyond 2^24, which float32 rounds, and rows on "
            "disk are read as float32: subtract an offset or standardize them beforehand"
        )
    seed, values = transform.seed, channels_first(source.values, transform.layout)
    seeds = {"static": (seed, seed, seed), "dynamic": (None, seed, seed)}
    return [
        Streamed(values, part, source.divisor, bits)
        for part, bits in zip(parts, seeds.get(transform.binarize, (None,) * 3), strict=True)
    ]
