"""Reading files and arrays into rows and labels."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .named_datasets import NAMED_DATASETS
from .source import Source, load_numpy

TABLES = (".csv", ".parquet")


SUFFIXES = (".npy", ".npz", *TABLES)


def read(source: Any, labels: Any = None) -> Source:
    """Read a named data set, a file, or an array already in memory.

    Args:
        source: one of :data:`NAMED_DATASETS`; a path to a ``.npy``, ``.npz``, ``.csv`` or
            ``.parquet`` file; a tensor, an array or a DataFrame.
        labels: labels (N,) beside an array; for a table, also the name of their column.

    Raises:
        FileNotFoundError: if the file or data set is not there.
        ValueError: if the name is unknown, or the file is truncated or of another kind.
    """
    if isinstance(source, str) and source in NAMED_DATASETS:
        if labels is not None:
            raise ValueError(f"{source} brings its own labels: leave labels out")
        return NAMED_DATASETS[source]()
    if isinstance(source, str | Path):
        return _read_file(Path(source), labels)
    if hasattr(source, "select_dtypes"):  # a DataFrame, without importing pandas to know
        return _from_table("the DataFrame", source, labels)
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    return _from_array("the array", np.asarray(source), labels)


def _read_file(path: Path, labels: Any) -> Source:
    check_path(path)
    try:
        if path.suffix == ".npy":
            return _from_array(str(path), load_numpy(path), labels)
        if path.suffix == ".npz":
            return _from_archive(path, labels)
        import pandas as pd

        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        if path.suffix == ".csv" and len(table.columns) and all(map(_is_number, table.columns)):
            raise _Refused(f"the first row of {path} holds numbers: give it names of columns")
    except _Refused:
        raise
    except Exception as error:  # each reader has errors of its own for a foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as {path.suffix}: it is truncated, empty or of another "
            f"kind ({reason})"
        ) from error
    return _from_table(str(path), table, labels)


def _is_number(name: Any) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


class _Refused(ValueError):
    """A file that was read, but whose content cannot be used."""


def _from_archive(path: Path, labels: Any) -> Source:
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        key = "x" if "x" in names else next((name for name in names if name not in _LABELS), None)
        if key is None or (key != "x" and len(set(names) - set(_LABELS)) > 1):
            raise _Refused(
                f"{path} holds {', '.join(names) or 'nothing'}: name the data 'x' (and labels 'y')"
            )
        beside = next((name for name in _LABELS if name in names), None)
        if labels is None and beside is not None:
            labels = archive[beside]
        return _from_array(str(path), archive[key], labels)


_LABELS = ("y", "labels")


def _from_array(name: str, values: np.ndarray, labels: Any) -> Source:
    if isinstance(labels, str):
        raise _Refused(f"{name} has no columns: labels={labels!r} names one; give an array instead")
    if values.dtype.kind not in "fiub":
        raise _Refused(f"{name} holds {values.dtype}, not numbers")
    if values.ndim == 0:
        raise _Refused(f"{name} holds a single number: give rows of data (N, *event_shape)")
    divisor = 255.0 if values.dtype == np.uint8 and values.size and values.max() > 1 else 1.0
    codes, names = _codes(labels)
    return Source(name, values, codes, names, divisor=divisor)


def _from_table(name: str, table: Any, labels: Any) -> Source:
    if isinstance(labels, str):
        if labels not in table.columns:
            near = difflib.get_close_matches(labels, map(str, table.columns), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name} has no column {labels!r}{hint}")
        labels, table = table[labels].to_numpy(), table.drop(columns=labels)
    if len(table) == 0:
        raise ValueError(f"{name} holds no rows")
    other = [str(column) for column in table.columns if table[column].dtype.kind not in "fiub"]
    if other:
        raise ValueError(
            f"column {other[0]!r} of {name} is not numeric: drop it, or name it as the labels"
        )
    return Source(name, table.to_numpy(dtype=np.float32), *_codes(labels))


def _codes(labels: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as integers: whole numbers stay what they are, others are numbered in order."""
    if labels is None:
        return None, ()
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise _Refused(f"labels are one a row, (N,), not of shape {labels.shape}")
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64), ()
    if bool((labels != labels).any()) or any(label is None for label in labels.tolist()):
        raise _Refused("labels are missing (NaN or None) in some rows: drop those rows")
    if labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels)):
        return labels.astype(np.int64), ()
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    return codes, tuple(names.tolist())


def check_path(path: Path) -> None:
    """Refuse a path that is no file of a known kind.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its name is neither that of a data set nor of a file of a known kind.
    """
    if path.suffix not in SUFFIXES:
        near = difflib.get_close_matches(str(path), NAMED_DATASETS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{str(path)!r} is neither a data set ({', '.join(NAMED_DATASETS)}) nor a file "
            f"ending in {', '.join(SUFFIXES)}{hint}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
