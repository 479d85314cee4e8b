"""``Transform``: what was done to data before a model saw them, applied to new data and undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .binarization import Binarization, check_unit_interval, draw_bits
from .column import Column
from .column_values import decode_columns
from .contexts import ContextColumn, encode_context
from .layout import Layout, channels_first, channels_last
from .lengths import cut_to_lengths, flag_steps
from .likeness import align_columns, check_levels, check_rows, check_shape, codes_like
from .log_mel import LogMel
from .reading_options import ReadingOptions
from .source import Source
from .twice_standardized import refuse_standardized
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class Transform:
    """The way from data as they are given to the rows that a model sees, and back.

    Values are divided by ``divisor``; the channels of images come first; each element is
    standardized, (x − ``location``) / ``scale``; the given elements become the context; bits are
    drawn. :func:`load_data` finds these from the training data; a run keeps them. Call it on new
    data, of any kind that :func:`load_data` takes, for the rows (x, *context) that the run's model
    and guide see; :meth:`inverse` leads from x, or from samples of it, to the data's own terms.

    >>> import pandas as pd
    >>> from latente.inference import load_data
    >>> frame = pd.DataFrame({"height": [150.0, 170, 190], "weight": [50.0, 70, 90]})
    >>> data = load_data(frame, standardize=True, validation=0, test=0)
    >>> data.transform(pd.DataFrame({"weight": [70.0], "height": [170.0]}))
    (tensor([[0., 0.]]),)
    >>> data.transform.inverse(torch.zeros(1, 2))
       height  weight
    0   170.0    70.0
    """

    event_shape: tuple[int, ...]
    """Shape of a datum as it was given; of sequences (T, …), with the longest's T steps."""
    columns: tuple[str, ...] = ()
    """Names of a table's columns, in the order of x (before any are given as context)."""
    dtypes: tuple[str, ...] = ("float32",)
    """NumPy's name of the type of the values given; for a table, one for each column."""
    kinds: tuple[Column, ...] = ()
    """The columns of a table of several kinds, as they are encoded."""
    label_names: tuple[str, ...] = ()
    """The words that the labels 0, 1, … stand for, if they were words."""
    options: ReadingOptions = field(default_factory=ReadingOptions)
    divisor: float = 1.0
    largest: float = 1.0
    """The largest absolute value of the data given, before any division."""
    layout: Layout = "channels_first"
    precision: Literal["float32", "float64"] = "float32"
    """The type in which values are standardized."""
    dtype: Literal["float32", "float64", "int64"] = "float32"
    """The type of the rows."""
    location: Tensor | None = None
    """The value subtracted from each element, in the shape of a row before any is given."""
    scale: Tensor | None = None
    """The value by which each element is divided after that."""
    given: Literal["labels", "elements"] | None = None
    given_flags: Tensor | None = None
    """Flags of the elements that are given as context."""
    context_columns: tuple[ContextColumn, ...] = ()
    """Columns that are given as context."""
    binarize: Binarization = "none"
    seed: int = 0
    """Seed of the bits of data that are binarized."""
    label_range: tuple[int, int] | None = None
    """The least and the greatest label, where the labels are the context."""
    argument_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The columns of each DataFrame that :func:`fit` was given, by its position or keyword."""
    log_mel: LogMel | None = None
    """How frames were computed from sound."""
    train_lengths: tuple[tuple[int, int], ...] = ()
    """The lengths of training sequences, each with how many have it."""

    def __call__(self, source: Any, labels: Any = None) -> tuple[Tensor, ...]:
        """Rows (x, *context) of new data, as the run's model and guide see them.

        Args:
            source: a file, an array or a DataFrame, as for :func:`load_data`, in the units and
                types of the data of the fit. The columns of a table may come in another order.
            labels: labels beside an array; for a table, the labels' column of the fit is taken.

        Raises:
            FileNotFoundError: if the file does not exist.
            ValueError: if the data are not like those of the fit: columns of other names, rows of
                another shape, fractions where there were levels, unknown labels; if they seem to
                be standardized already; or if they hold NaN or infinity.
        """
        loaded = self.read(source, labels)
        numbers = np.arange(len(loaded.values))
        x, *elements = self.split(_standardize_new(self, loaded))
        if self.binarize != "none":
            check_unit_interval(x.numpy(), loaded.name, is_new=True)
            x = draw_bits(x, numbers, self.seed)
        context = encode_context(loaded, numbers, self.given, self.context_columns)
        return (x, *lengths_of(loaded), *elements, *context)

    def read(self, source: Any, labels: Any = None) -> Source:
        """Read new data, and check that they are like those of the fit; values are not changed."""
        seen = self.event_shape, self.seen_shape
        loaded = self.options.read_again(source, labels, seen, self.kinds or None)
        loaded = align_columns(loaded, self.columns)
        loaded = codes_like(loaded, self.label_names, self.label_range)
        check_rows(loaded)
        check_shape(loaded, *seen, is_padded=self.has_lengths)
        check_levels(loaded, self.divisor, self.largest, self.dtypes)
        return loaded

    def of_x(self, values: Tensor | None) -> Tensor | None:
        """Those of the values of all elements that are x's, not the context's."""
        flags = self.given_flags
        return values if values is None or flags is None else values[~flags]

    @property
    def has_lengths(self) -> bool:
        """Whether the data are sequences, whose lengths are the first context."""
        return self.options.sequences

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What tokens stand for; ``None`` for data that are no text."""
        return self.options.vocabulary

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Shape of a datum with its channels first."""
        if self.layout == "channels_last":
            return (self.event_shape[-1], *self.event_shape[:-1])
        return self.event_shape

    def divide(self, values: np.ndarray) -> Tensor:
        """Values (N, *event_shape) with the channels first, divided, in the type to work in."""
        return _divided(self, values)

    def standardize(self, rows: Tensor, lengths: np.ndarray | None = None) -> Tensor:
        """Rows in standardized units, if there are any; padding of sequences stays zero."""
        return _standardized(self, rows, lengths)

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows (N, …) as (x,) or, with G given elements, as x (N, D − G) and context (N, G)."""
        flags = self.given_flags
        return (rows,) if flags is None else (rows[:, ~flags], rows[:, flags])

    def inverse(self, x: Any, lengths: Any = None) -> Any:
        """The data's own terms of values x in the model's: data, reconstructions or samples.

        Levels are rounded to their type; whole values of columns of whole numbers become whole.

        Args:
            x: (N, *event_shape) as the model sees them, an array or a tensor; sequences may have
                any number of steps.
            lengths: the lengths of sequences, (N,).

        Returns:
            an array (N, …) with the channels where they were, or a DataFrame. Of sequences with
            lengths, a list of arrays (T, …); of tokens, a list of texts, each up to its end.

        Raises:
            ValueError: if the values have another shape, or tokens are not in the vocabulary.
        """
        return _in_own_terms(self, x, lengths)


def _divided(transform: Transform, values: np.ndarray) -> Tensor:
    if transform.dtype == "int64":
        return torch.from_numpy(values.astype(np.int64))
    if tuple(values.shape[1:]) == transform.event_shape:
        values = channels_first(values, transform.layout)
    kind = np.dtype(transform.precision).type
    return torch.from_numpy(values.astype(kind, order="C") / kind(transform.divisor))


def _standardized(transform: Transform, rows: Tensor, lengths: np.ndarray | None) -> Tensor:
    if transform.location is not None and transform.scale is not None:
        rows = (rows - transform.location) / transform.scale
        if lengths is not None:
            rows[~torch.from_numpy(flag_steps(lengths, rows.shape[1]))] = 0
    return rows.to(getattr(torch, transform.dtype))


def _in_own_terms(transform: Transform, x: Any, lengths: Any) -> Any:
    values, flags = torch.as_tensor(x).detach().cpu().double(), transform.given_flags
    shape = transform.seen_shape if flags is None else (int((~flags).sum()),)
    known = slice(2 if transform.has_lengths else 1, None)
    if tuple(values.shape[known]) != shape[known.start - 1 :]:
        wanted = ("N", "T", *shape[1:]) if transform.has_lengths else ("N", *shape)
        raise ValueError(
            f"values have shape {tuple(values.shape)}, not ({', '.join(map(str, wanted))})"
        )
    location, scale = transform.of_x(transform.location), transform.of_x(transform.scale)
    if location is not None and scale is not None:
        values = values * scale.double() + location.double()
    array = values.numpy() * transform.divisor
    if transform.vocabulary is not None:
        ends = None if lengths is None else np.asarray(lengths)
        if ends is not None:
            array = np.where(flag_steps(ends, array.shape[1]), array, 0)
        return transform.vocabulary.decode(array)
    if transform.kinds:
        return decode_columns(array, transform.kinds)
    if transform.columns:
        keep = range(len(transform.columns)) if flags is None else np.flatnonzero(~flags.numpy())
        names, kinds = ([part[i] for i in keep] for part in (transform.columns, transform.dtypes))
        return _as_table(array, names, kinds)
    array = array if flags is not None else channels_last(array, transform.layout)
    array = array if transform.divisor == 1 else _as_levels(array, transform)
    if transform.dtype == "int64":
        array = _as_whole(array, "int64")
    if transform.has_lengths and lengths is not None:
        return cut_to_lengths(array, np.asarray(lengths).tolist())
    return array


def _standardize_new(fitted: Transform, new: Source) -> Tensor:
    """Rows of new data in standardized units, which they must not have already."""
    given = fitted.divide(new.values)
    rows = fitted.standardize(given, new.lengths)
    location, scale = fitted.location, fitted.scale
    if fitted.has_lengths:
        return rows
    if location is not None and scale is not None and fitted.divisor == 1:
        is_table = bool(new.columns)
        refuse_standardized(given, rows, location, scale, new.name, is_table=is_table)
    return rows


def _as_levels(values: np.ndarray, fitted: Transform) -> np.ndarray:
    """Levels in their type, rounded if that is for whole numbers."""
    kind, largest = fitted.dtypes[0], max(fitted.divisor, fitted.largest)
    if np.dtype(kind).kind not in "iu":
        return values
    limits = np.iinfo(kind)
    return np.clip(values.round(), limits.min, min(largest, limits.max)).astype(kind)


def _as_table(values: np.ndarray, names: Sequence[str], kinds: Sequence[str]) -> Any:
    import pandas as pd  # slow to import, and seldom needed

    columns = {place: _as_whole(values[:, place], kind) for place, kind in enumerate(kinds)}
    table = pd.DataFrame(columns)
    table.columns = list(names)
    return table


def _as_whole(values: np.ndarray, kind: str) -> np.ndarray:
    """A column in its type, if that is for whole numbers and the values are whole to rounding."""
    if np.dtype(kind).kind not in "iub":
        return values
    whole = values.round()
    size = np.abs(whole).max(initial=0)
    if np.abs(values - whole).max(initial=0) > 1e-6 * max(1, size):
        return values
    if kind == "bool":
        return whole.astype(bool) if np.isin(whole, (0, 1)).all() else whole
    limits = np.iinfo(kind)  # a type that does not hold a value would give another one
    holds = limits.min <= whole.min(initial=0) and whole.max(initial=0) <= limits.max
    return whole.astype(kind if holds else np.int64)


def has_context(transform: Transform, *, beside_lengths: bool = False) -> bool:
    """Whether the model is given a context beside x; or beside the lengths of sequences x."""
    columns = bool(transform.context_columns)
    given = transform.given is not None or transform.given_flags is not None
    return (transform.has_lengths and not beside_lengths) or given or columns


def draw_lengths(transform: Transform | None, num: int, seed: int = 0) -> np.ndarray:
    """Draw lengths from those of the training sequences, (num,).

    Raises:
        ValueError: if they are not known: the data are no sequences, or the run is older.
    """
    if transform is None or not transform.train_lengths:
        raise ValueError("the lengths of training sequences are not known: give lengths=")
    values, counts = np.array(transform.train_lengths).T
    return np.random.default_rng(seed).choice(values, num, p=counts / counts.sum())


def lengths_of(source: Source, rows: np.ndarray | None = None) -> tuple[Tensor, ...]:
    """The lengths of some rows of sequences, (N,), as a context; of other data none."""
    if source.lengths is None:
        return ()
    return (torch.from_numpy(source.lengths if rows is None else source.lengths[rows]),)


def fit_standardization(
    transform: Transform, train: Tensor, lengths: np.ndarray | None = None
) -> Transform:
    """The transform with the location and the scale of training rows as :meth:`divide` has them.

    Those of sequences are of the elements of a step, over all steps that are there.
    """
    if lengths is not None:
        train = train[torch.from_numpy(flag_steps(lengths, train.shape[1]))]
    location = train.mean(0)
    scale = train.std(0) if len(train) > 1 else torch.ones_like(location)
    return replace(transform, location=location, scale=torch.where(scale > 0, scale, 1.0))
