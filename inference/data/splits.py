"""Splits into train, validation and test."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np

from ..common.arguments import name_rows
from ..common.lookup import did_you_mean
from .arrays import is_table
from .checks import plain
from .source import Source


def check_positions(source: Any, given: Mapping[str, Any]) -> None:
    """Refuse a Series beside a table of another index: values are taken by their place.

    Raises:
        ValueError: naming the argument.
    """
    if not is_table(source) or not hasattr(source, "index"):
        return
    for name, values in given.items():
        index = getattr(values, "index", None)
        if index is not None and hasattr(index, "equals") and not index.equals(source.index):
            raise ValueError(
                f"{name} is a Series with another index than the table, and is taken by its place: "
                f"give {name}.to_numpy() if its order is that of the rows, else .reindex it"
            )


def _sortable(values: np.ndarray | None) -> np.ndarray | None:
    """Numbers and dates; words are dates if they are written year first (ISO 8601).

    Raises:
        ValueError: if they are other words, whose alphabetical order means nothing.
    """
    if values is None or values.dtype.kind in "fiubmM":
        return values
    import pandas as pd  # slow to import, and seldom needed

    series: Any = pd.Series(values)
    with contextlib.suppress(ValueError, TypeError):
        return np.asarray(pd.to_numeric(series))
    with contextlib.suppress(ValueError, TypeError):
        return np.asarray(pd.to_datetime(series, format="ISO8601"))
    raise ValueError(
        f"order holds words, such as {str(values[0])!r}, which would be sorted by their letters: "
        "give numbers, or dates with the year first (2020-12-31)"
    )


SplitName = Literal["random", "by-class", "in-order"]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """How rows are split: the options of :func:`load_data`."""

    validation: float
    test: Any
    """A fraction, or the test set itself."""
    split: Any
    """The name of a way, or one word for each row, or the name of their column."""
    groups: Any
    order: Any
    seed: int

    def __post_init__(self) -> None:
        if self.groups is not None and not self._is_way("random"):
            raise ValueError("groups are split at random: leave split= out, or groups=")
        if self.order is not None and not self._is_way("in-order"):
            raise ValueError("order= sorts the rows of a split in order: give split='in-order'")

    @property
    def has_test_set(self) -> bool:
        """Whether a test set is given, instead of a fraction."""
        return not isinstance(self.test, int | float)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a table that decide the split."""
        named = [self.groups, self.order]
        if isinstance(self.split, str) and self.split not in get_args(SplitName):
            named.append(self.split)
        return tuple(name for name in named if isinstance(name, str))

    def question(self, message: str) -> str:
        """Ask whether a way was meant, where there is no column of the name that an error tells."""
        is_column = isinstance(self.split, str) and self.split in self.columns
        if not is_column or f"{self.split!r}" not in message:
            return ""
        question = did_you_mean(self.split, get_args(SplitName))
        return question and f"; as a way to split, {question}"

    def rows(self, source: Source) -> list[np.ndarray]:
        """The row numbers of the three parts of a source.

        Raises:
            ValueError: as :func:`split_rows` does; if values of the rows are not one for each.
        """
        if not self._is_way(*get_args(SplitName)):
            if source.num_test is not None or source.num_validation is not None:
                part = "validation" if source.num_test is None else "test"
                raise ValueError(f"{source.name} has a {part} set already: leave split= out")
            return split_given(self._values(source, self.split, "split"), source.name)
        return split_rows(
            len(source.values),
            source.num_test,
            self.validation,
            0 if self.has_test_set else self.test,
            self.seed,
            split=self.split,
            labels=source.labels,
            groups=self._values(source, self.groups, "groups"),
            order=_sortable(self._values(source, self.order, "order")),
            num_validation=source.num_validation,
        )

    def _is_way(self, *names: str) -> bool:
        return isinstance(self.split, str) and self.split in names

    def _values(self, source: Source, given: Any, argument: str) -> Any:
        """One value for each row, of a column or as they were given."""
        if given is None:
            return None
        values = source.aside[given] if isinstance(given, str) else np.asarray(given)
        pool = len(source.values) - (source.num_test or 0)
        is_own = self.has_test_set and argument != "split"
        if values.shape not in [(len(source.values),), *[(pool,)] * is_own]:
            which = f"each of {len(source.values)} rows"
            if is_own:
                which = f"each of {pool} rows, or of {len(source.values)} with the test set's"
            raise ValueError(f"{argument} must be one value for {which}, got shape {values.shape}")
        missing = [
            row for row, value in enumerate(values.tolist()) if value is None or value != value
        ]
        if missing:
            raise ValueError(f"values of {argument} are missing in {name_rows(np.array(missing))}")
        return values


def split_rows(
    num_rows: int,
    num_test: int | None,
    validation: float,
    test: float,
    seed: int,
    *,
    split: SplitName = "random",
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    order: np.ndarray | None = None,
    num_validation: int | None = None,
) -> list[np.ndarray]:
    """Find the row numbers of the train, validation and test parts.

    Args:
        num_rows: N, with the data set's own test set at the end.
        num_test: the size of that; ``None``: it has none.
        validation: fraction of the data to validate on.
        test: fraction of the data to test on, without a test set of their own.
        seed: seed of the random ones.
        split: ``"random"``; ``"by-class"``, random with the same share of each label in each part;
            or ``"in-order"``, the last rows are the test part and those before them validate.
        labels: labels of the rows, for ``"by-class"``.
        groups: rows of the same group are in the same part; fractions are then of the groups.
        order: values that rows are sorted by first, for ``"in-order"``.
        num_validation: the size of the data set's own validation set, before its test set;
            ``None``: it has none, and the fraction is drawn.

    Raises:
        ValueError: if no rows would be left to train on, or the split does not go with the data.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise ValueError(f"validation={validation} and test={test} must leave data to train on")
    pool = num_rows - (num_test or 0) - (num_validation or 0)
    first_test = num_rows - (num_test or 0)
    own = [np.arange(0), np.arange(pool, first_test), np.arange(first_test, num_rows)]
    validation = 0 if num_validation else validation
    if groups is not None:
        _check_comparable(groups, pool)
        shared = sorted(set(groups[:pool].tolist()) & set(groups[pool:].tolist()), key=str)
        if shared:
            raise ValueError(
                f"the test set has rows of the group {shared[0]!r}, which is among the other data "
                "too: drop them there, or leave groups= out"
            )
        parts = _by_group(groups[:pool], validation, 0 if num_test else test, seed)
        return _with_own(parts, own)
    held_out = round(validation * pool), 0 if num_test else round(test * pool)
    if split == "by-class":
        parts = _by_class(labels, pool, held_out, seed)
    else:
        if split == "random":
            rows = np.random.default_rng(seed).permutation(pool)
        else:
            rows = np.arange(pool) if order is None else np.argsort(order[:pool], kind="stable")
        first, second = pool - sum(held_out), pool - held_out[1]
        parts = [rows[:first], rows[first:second], rows[second:]]
    return _with_own(parts, own)


def _check_comparable(groups: np.ndarray, pool: int) -> None:
    """Refuse groups that are numbers in some rows and words in others: "1" would be no 1.

    Raises:
        ValueError: naming two of them.
    """
    if groups.dtype.kind != "O":
        return
    kinds = {}  # the kind of a value, and the first row that has it
    for row, value in enumerate(groups.tolist()):
        kinds.setdefault("number" if isinstance(value, Real) else type(value).__name__, row)
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        where = "in the test set" if second >= pool else f"in row {second}, counted from 0"
        raise ValueError(
            f"groups must be of one type to be compared, and are {plain(groups[first])!r} in row "
            f"{first} and {plain(groups[second])!r} {where}: convert them, with .astype(str)"
        )


def _with_own(parts: list[np.ndarray], own: list[np.ndarray]) -> list[np.ndarray]:
    """The parts, of which those that come with the data are these."""
    return [rows if len(rows) else part for part, rows in zip(parts, own, strict=True)]


def _by_class(
    labels: np.ndarray | None, pool: int, held_out: tuple[int, int], seed: int
) -> list[np.ndarray]:
    """Draw parts that have, up to rounding, the same share of each label."""
    from sklearn.model_selection import train_test_split  # slow to import, and seldom needed

    if labels is None:
        raise ValueError("a split by class needs labels: give labels=")
    counts = np.unique(labels[:pool], return_counts=True)[1]
    num_parts = 1 + sum(size > 0 for size in held_out)
    if counts.min() < num_parts:
        raise ValueError(
            f"a split by class needs a datum of each class in each of {num_parts} parts, and the "
            f"smallest class has {counts.min()}"
        )
    left: Any = np.arange(pool)
    parts: list[Any] = []
    for number, size in enumerate(reversed(held_out)):
        part = left[:0]
        if size:
            left, part = train_test_split(
                left, test_size=size, stratify=labels[left], random_state=seed + number
            )
        parts.append(part)
    return [left, *reversed(parts)]


def _by_group(groups: np.ndarray, validation: float, test: float, seed: int) -> list[np.ndarray]:
    """Draw the groups of each part."""
    names, codes = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = [round(fraction * len(names)) for fraction in (validation, test)]
    if (validation > 0) > sizes[0] or (test > 0) > sizes[1] or sum(sizes) >= len(names):
        wanted = [name for name, of in (("validation", validation), ("test", test)) if of > 0]
        enough = " and ".join(f"{name}={1 / len(names):.2g}" for name in wanted)
        advice = f": give {enough}" if len(names) > len(wanted) else ""
        raise ValueError(
            f"{len(names)} groups cannot be split with validation={validation} and test={test}: "
            f"fractions are of the groups, and each part needs one at least{advice}"
        )
    of_part = [order[sum(sizes) :], order[: sizes[0]], order[sizes[0] : sum(sizes)]]
    return [np.flatnonzero(np.isin(codes, chosen)) for chosen in of_part]


def split_given(words: Sequence[Any] | np.ndarray, name: str) -> list[np.ndarray]:
    """The row numbers of each part where each row says its part, in a word.

    Raises:
        ValueError: naming a word that is no part, or if no row is for training.

    >>> split_given(["train", "test", "train"], "the rows")
    [array([0, 2]), array([], dtype=int64), array([1])]
    """
    parts = np.asarray([str(word).strip().lower() for word in words])
    known = np.isin(parts, [*PARTS, "val", "valid"])
    if not known.all():
        other = min(str(word) for word, right in zip(words, known, strict=True) if not right)
        raise ValueError(
            f"split= names a column whose rows say {', '.join(PARTS)}, and one row of {name} says "
            f"{other!r}: to keep rows of one value in one part, give that column as groups="
        )
    parts[np.isin(parts, ["val", "valid"])] = "validation"
    found = [np.flatnonzero(parts == part) for part in PARTS]
    if len(found[0]) == 0:
        raise ValueError(f"no row of {name} is for training")
    return found
