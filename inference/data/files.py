"""Reading of data sets, files, folders and arrays into rows and labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common.lookup import did_you_mean
from .archive_files import ARCHIVE_SUFFIXES
from .archives import read_archive
from .array_source import from_array
from .arrays import is_table, to_array
from .csv_files import read_csv
from .csv_format import CsvFormat
from .datasets import is_dataset, read_dataset
from .image_folders import IMAGE_SUFFIXES, read_image_folder
from .named_datasets import NAMED_DATASETS
from .source import Source, load_numpy, reading
from .sparse import is_sparse, to_dense
from .table_files import BINARY_TABLES, read_h5ad, read_table_file
from .tables import Kinds, from_table
from .text_lines import TEXT_SUFFIXES

TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Suffixes of tables written as text."""
TABLE_SUFFIXES = (*TEXTS, *BINARY_TABLES)
"""Suffixes of tables."""
SUFFIXES = (".npy", *ARCHIVE_SUFFIXES, *TABLE_SUFFIXES, *TEXT_SUFFIXES)
"""Suffixes of the files that can be read, in upper or lower case."""
KEYED = (*ARCHIVE_SUFFIXES, ".xlsx", ".h5ad")
"""Suffixes of files that may hold several arrays or tables."""


def read(
    source: Any,
    labels: Any = None,
    csv_format: CsvFormat | None = None,
    *,
    aside: Sequence[str] = (),
    require: bool = True,
    key: str | None = None,
    kinds: Kinds = None,
    before: CsvFormat | None = None,
) -> Source:
    """Read a named data set, a file, a folder of images, or data already in memory.

    Args:
        source: one of :data:`NAMED_DATASETS`; a path to a file ending in one of
            :data:`SUFFIXES`, or to a folder of images; a tensor, an array, a sparse matrix, a
            DataFrame, or a data set that is read by length and item.
        labels: labels (N,) beside an array; or the name of their column of a table, array of a
            file, or field of a data set's items.
        csv_format: options for the format of a text; the others are found in the text.
        aside: names of columns of a table that are kept beside the data.
        require: whether what ``labels``, ``aside`` and ``key`` name must be there.
        key: which array, sheet, layer or field holds the data, where there are several.
        kinds: how columns of several kinds are encoded, of a table.
        before: the format that was found in the text of the data of the fit, for new data.

    Raises:
        FileNotFoundError: if the file or data set does not exist.
        ValueError: if the name is unknown, if the file is truncated or of another kind, or if its
            content can be read in two ways or is not data.
    """
    csv_format = csv_format or CsvFormat()
    if csv_format != applicable(csv_format, source):
        raise ValueError(
            f"delimiter=, decimal= and header= are for files ending in {', '.join(TEXTS)}, and "
            "header= for .xlsx"
        )
    if key is not None and not _has_keys(source):
        if require:
            raise ValueError(
                f"key= is for files ending in {', '.join(KEYED)}, and for data sets of named fields"
            )
        key = None
    if isinstance(source, str) and source in NAMED_DATASETS:
        if labels is not None:
            raise ValueError(f"{source} has labels of its own: leave labels= out")
        return NAMED_DATASETS[source]()
    if isinstance(source, str | Path):
        named = _Named(labels, tuple(aside), require, kinds)
        return _read_path(Path(source), named, csv_format, key, before)
    if is_table(source):
        return from_table(
            "the DataFrame", source, labels, aside=aside, require=require, kinds=kinds
        )
    if is_sparse(source):
        labels = _without_columns("the matrix", labels, aside, require)
        dense, note = to_dense(source, "the matrix")
        return from_array("the matrix", dense, labels, note)
    if is_dataset(source):
        _without_columns("the data set", None, aside, require)
        return read_dataset(source, labels, key, require=require)
    if isinstance(source, tuple) and any(hasattr(part, "shape") for part in source):
        raise ValueError("data must be one array, not a tuple: give x, and labels=")
    labels = _without_columns("the array", labels, aside, require)
    return from_array("the array", to_array(source, "the array"), labels)


def applicable(csv_format: CsvFormat, source: Any) -> CsvFormat:
    """The options that go with a source: all with a text, ``header`` with a sheet."""
    name = str(source).lower() if isinstance(source, str | Path) else ""
    if name.endswith(TEXTS):
        return csv_format
    return CsvFormat(header=csv_format.header if name.endswith(".xlsx") else None)


def _has_keys(source: Any) -> bool:
    """Whether a source may hold several arrays or tables."""
    if isinstance(source, str | Path):
        return str(source).lower().endswith(KEYED)
    return not is_table(source) and not is_sparse(source) and is_dataset(source)


@dataclass(frozen=True)
class _Named:
    """What :func:`read` takes by name, or beside the data."""

    labels: Any
    aside: tuple[str, ...]
    require: bool
    kinds: Kinds


def _without_columns(name: str, labels: Any, aside: Sequence[str], require: bool) -> Any:
    """The labels beside an array, which has no columns for them or for others to come from."""
    columns = [*([labels] if isinstance(labels, str) else []), *aside]
    if columns and require:
        raise ValueError(f"{name} has no columns, and {columns[0]!r} names one: give an array")
    return None if isinstance(labels, str) else labels


def _read_path(
    path: Path, named: _Named, csv_format: CsvFormat, key: str | None, before: CsvFormat | None
) -> Source:
    check_path(path)
    labels, aside, require = named.labels, named.aside, named.require
    kind = path.suffix.lower()
    if path.is_dir() or kind == ".npy":
        labels = _without_columns(str(path), labels, aside, require)
        if path.is_dir():
            return read_image_folder(path, labels)
        with reading(path):
            values = load_numpy(path)
        return from_array(str(path), values, labels)
    if kind in ARCHIVE_SUFFIXES:
        _without_columns(str(path), None, aside, require)
        return read_archive(path, labels, key, require=require)
    if kind == ".h5ad":
        return read_h5ad(path, labels, key, aside=aside, require=require)
    found = None
    if kind in BINARY_TABLES:
        table, note = read_table_file(path, key, csv_format.header)
    else:
        table, note, found = read_csv(path, csv_format, before)
    source = from_table(
        str(path), table, labels, note, aside=aside, require=require, kinds=named.kinds
    )
    return replace(source, csv_format=found)


def check_path(path: Path) -> None:
    """Refuse a path that is neither a folder nor a file of a known kind.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is neither the name of a data set nor that of a file of a known kind.
    """
    if path.is_dir():
        return
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        raise ValueError(f"{path} is one image: give the folder that holds the images")
    if not path.name.lower().endswith(SUFFIXES):
        question = did_you_mean(str(path), NAMED_DATASETS)
        raise ValueError(
            f"{str(path)!r} is neither a data set ({', '.join(NAMED_DATASETS)}) nor a file "
            f"ending in {', '.join(SUFFIXES)}, nor a folder of images{question and f': {question}'}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
