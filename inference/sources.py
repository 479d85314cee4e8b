"""Where data come from: named data sets, files, and arrays, each read into rows and labels."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TABLES = (".csv", ".parquet")
SUFFIXES = (".npy", ".npz", *TABLES)


@dataclass(frozen=True)
class Source:
    """What was read: rows of values, their labels, and the test set they came with."""

    name: str
    values: np.ndarray
    """(N, *event_shape), a memory map where the file was not read."""
    labels: np.ndarray | None = None
    """(N,), integers."""
    label_names: tuple[str, ...] = ()
    """What the integers 0, 1, … stand for, where the labels were words."""
    num_test: int | None = None
    """The last so many rows are the data set's own test set; ``None``: it has none."""
    divisor: float = 1.0
    """What the values are divided by to lie in [0, 1]."""


def data_root() -> Path:
    """Where data sets are kept: the variable LATENTE_DATA, or ``~/.cache/latente``."""
    return Path(os.environ.get("LATENTE_DATA") or Path.home() / ".cache" / "latente")


def _digits() -> Source:
    from sklearn.datasets import load_digits  # slow to import, and seldom all needed

    digits: Any = load_digits()
    return Source("digits", digits.images.astype(np.float32), digits.target, divisor=16.0)


def _torchvision(name: str, class_name: str) -> Source:
    from torchvision import datasets

    kind, root = getattr(datasets, class_name), data_root()
    parts = []
    for train in (True, False):
        try:
            try:
                parts.append(kind(root, train=train, download=False))
            except RuntimeError:  # torchvision's word for "not there"
                parts.append(kind(root, train=train, download=True))
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"{name} is not in {root / class_name / 'raw'} and could not be downloaded: put "
                f"its idx files there, or set LATENTE_DATA to a folder that has {class_name}/raw"
            ) from error
        except (ValueError, AssertionError) as error:
            raise ValueError(
                f"{name} in {root / class_name / 'raw'} cannot be read; its files may be "
                f"truncated: delete them to download them anew ({error})"
            ) from error
    values = torch.cat([part.data for part in parts]).numpy()
    labels = torch.cat([part.targets for part in parts]).numpy()
    return Source(name, values, labels, num_test=len(parts[1].data), divisor=255.0)


def _freyfaces() -> Source:
    path = data_root() / "freyfaces.npy"
    if not path.exists():
        raise FileNotFoundError(
            f"freyfaces is not at {path}: put the uint8 array (1965, 28, 20) of its frames there, "
            "or set LATENTE_DATA to a folder that has it"
        )
    return Source("freyfaces", np.asarray(_load_numpy(path)), divisor=255.0)


NAMED: dict[str, Callable[[], Source]] = {
    "digits": _digits,
    "mnist": lambda: _torchvision("mnist", "MNIST"),
    "fashion-mnist": lambda: _torchvision("fashion-mnist", "FashionMNIST"),
    "kmnist": lambda: _torchvision("kmnist", "KMNIST"),
    "freyfaces": _freyfaces,
}


def read(source: Any, labels: Any = None) -> Source:
    """Read a named data set, a file, or an array already in memory.

    Args:
        source: one of :data:`NAMED`; a path to a ``.npy``, ``.npz``, ``.csv`` or
            ``.parquet`` file; a tensor, an array or a DataFrame.
        labels: labels (N,) beside an array; for a table, also the name of their column.

    Raises:
        FileNotFoundError: if the file or data set is not there.
        ValueError: if the name is unknown, or the file is truncated or of another kind.
    """
    if isinstance(source, str) and source in NAMED:
        if labels is not None:
            raise ValueError(f"{source} brings its own labels: leave labels out")
        return NAMED[source]()
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
            return _from_array(str(path), _load_numpy(path), labels)
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


def _load_numpy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


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
        near = difflib.get_close_matches(str(path), NAMED, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{str(path)!r} is neither a data set ({', '.join(NAMED)}) nor a file ending in "
            f"{', '.join(SUFFIXES)}{hint}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
