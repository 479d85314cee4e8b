"""Reading of data sets, files and arrays into rows and labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.lookup import did_you_mean
from .arrays import check_numbers, is_table, to_array
from .csv_files import read_csv
from .csv_format import CsvFormat
from .labels import code_labels
from .named_datasets import NAMED_DATASETS
from .source import Source, load_numpy, reading
from .tables import from_table

TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Suffixes of tables written as text."""
TABLE_SUFFIXES = (*TEXTS, ".parquet")
"""Suffixes of tables."""
SUFFIXES = (".npy", ".npz", *TABLE_SUFFIXES)
"""Suffixes of the files that can be read, in upper or lower case."""


def read(
    source: Any,
    labels: Any = None,
    csv_format: CsvFormat | None = None,
    *,
    aside: Sequence[str] = (),
    require: bool = True,
) -> Source:
    """Read a named data set, a file, or an array already in memory.

    Args:
        source: one of :data:`NAMED_DATASETS`; a path to a file ending in one of
            :data:`SUFFIXES`; a tensor, an array or a DataFrame.
        labels: labels (N,) beside an array; for a table, also the name of their column.
        csv_format: options for the format of a text; the others are found in the text.
        aside: names of columns of a table that are kept beside the data.
        require: whether the columns that ``labels`` and ``aside`` name must be there.

    Raises:
        FileNotFoundError: if the file or data set does not exist.
        ValueError: if the name is unknown, if the file is truncated or of another kind, or if its
            content can be read in two ways or is not data.
    """
    csv_format = csv_format or CsvFormat()
    path = Path(source) if isinstance(source, str | Path) else None
    if csv_format != CsvFormat() and not is_text(source):
        raise ValueError(
            f"delimiter=, decimal= and header= are for files ending in {', '.join(TEXTS)}"
        )
    if isinstance(source, str) and source in NAMED_DATASETS:
        if labels is not None:
            raise ValueError(f"{source} has labels of its own: leave labels= out")
        return NAMED_DATASETS[source]()
    if path is not None:
        return _read_file(path, labels, csv_format, aside, require)
    if is_table(source):
        return from_table("the DataFrame", source, labels, aside=aside, require=require)
    if isinstance(source, tuple) and any(hasattr(part, "shape") for part in source):
        raise ValueError("data must be one array, not a tuple: give x, and labels=")
    labels = _without_columns("the array", labels, aside, require)
    return _from_array("the array", to_array(source, "the array"), labels)


def is_text(source: Any) -> bool:
    """Whether a source is a file of text."""
    return isinstance(source, str | Path) and str(source).lower().endswith(TEXTS)


def _without_columns(name: str, labels: Any, aside: Sequence[str], require: bool) -> Any:
    """The labels beside an array, which has no columns for them or for others to come from."""
    columns = [*([labels] if isinstance(labels, str) else []), *aside]
    if columns and require:
        raise ValueError(f"{name} has no columns, and {columns[0]!r} names one: give an array")
    return None if isinstance(labels, str) else labels


def _read_file(
    path: Path, labels: Any, csv_format: CsvFormat, aside: Sequence[str], require: bool
) -> Source:
    check_path(path)
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        labels = _without_columns(str(path), labels, aside, require)
    if kind == ".npy":
        with reading(path):
            values = load_numpy(path)
        return _from_array(str(path), values, labels)
    if kind == ".npz":
        return _from_archive(path, labels)
    if kind == ".parquet":
        import pandas as pd  # slow to import, and seldom needed

        with reading(path):
            table, note = pd.read_parquet(path), ""
    else:
        table, note = read_csv(path, csv_format)
    return from_table(str(path), table, labels, note, aside=aside, require=require)


def _from_archive(path: Path, labels: Any) -> Source:
    with reading(path):
        archive = np.load(path, allow_pickle=False)
    with archive:
        names = archive.files
        key = "x" if "x" in names else next((name for name in names if name not in _LABELS), None)
        if key is None or (key != "x" and len(set(names) - set(_LABELS)) > 1):
            raise ValueError(
                f"{path} holds {', '.join(names) or 'nothing'}: name the data 'x' (and labels 'y')"
            )
        beside = next((name for name in _LABELS if name in names), None)
        with reading(path):
            values = archive[key]
            if labels is None and beside is not None:
                labels = archive[beside]
    return _from_array(str(path), values, labels)


_LABELS = ("y", "labels")


def _from_array(name: str, values: np.ndarray, labels: Any) -> Source:
    check_numbers(values, name)
    if values.size == 0 and len(values):
        raise ValueError(f"{name} holds rows without values, of shape {values.shape}")
    is_scaled = values.dtype == np.uint8 and values.size > 0 and values.max() > 1
    codes, names = code_labels(labels)
    note = "levels of 8 bits, divided by 255" if is_scaled else ""
    return Source(name, values, codes, names, divisor=255.0 if is_scaled else 1.0, note=note)


def check_path(path: Path) -> None:
    """Refuse a path that is not a file of a known kind.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is neither the name of a data set nor that of a file of a known kind.
    """
    if not path.name.lower().endswith(SUFFIXES):
        question = did_you_mean(str(path), NAMED_DATASETS)
        raise ValueError(
            f"{str(path)!r} is neither a data set ({', '.join(NAMED_DATASETS)}) nor a file "
            f"ending in {', '.join(SUFFIXES)}{question and f': {question}'}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
