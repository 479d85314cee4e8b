"""Open files of named arrays: NumPy's .npz, MATLAB's .mat, HDF5."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .source import import_reader, reading
from .sparse import is_sparse

ARCHIVE_SUFFIXES = (".npz", ".mat", ".h5", ".hdf5")
"""Suffixes of files of named arrays."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file, or those after the 512 of a MATLAB header."""
MATLAB_NUMBERS = {
    "double", "single", "logical",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
}  # fmt: skip
"""MATLAB's types of numbers; text has another, although it is kept as numbers."""


@dataclass(frozen=True)
class NamedArray:
    """An array in a file, which is read when it is asked for."""

    shape: tuple[int, ...]
    is_number: bool
    load: Callable[[], Any]
    """Reads it: an array, or a sparse matrix."""
    is_matlab: bool = False
    """Whether it is from MATLAB, which has rows along any axis."""

    @property
    def is_data(self) -> bool:
        """Whether it may be data: rows of numbers."""
        return self.is_number and len(self.shape) > 0


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[dict[str, NamedArray]]:
    """Open a file of named arrays, by its suffix; scalars and arrays of records are left out.

    Raises:
        ValueError: if the file is truncated or of another kind, or its reader is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".npz":
        with _open_npz(path) as arrays:
            yield arrays
    elif kind == ".mat" and not _is_hdf5(path):
        yield _read_mat(path)
    else:
        h5py = import_reader("h5py", path)
        with reading(path):
            file = h5py.File(path, "r")
        with file:
            with reading(path):
                arrays = _list_mat73(file) if kind == ".mat" else _list_hdf5(h5py, file)
            yield arrays


@contextlib.contextmanager
def _open_npz(path: Path) -> Iterator[dict[str, NamedArray]]:
    with contextlib.ExitStack() as opened:
        with reading(path):
            file = opened.enter_context(path.open("rb"))
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not an archive")
            opened.enter_context(archive)
        if {"format", "shape", "data"} <= set(archive.files):
            from scipy.sparse import load_npz  # slow to import, and seldom needed

            with reading(path):
                matrix = load_npz(path)
            yield {"x": NamedArray(matrix.shape, True, lambda: matrix)}
        else:
            with reading(path):
                arrays = {name: _in_npz(archive, name) for name in archive.files}
            yield arrays


def _in_npz(archive: Any, name: str) -> NamedArray:
    """An array of an archive, of which only the header is read."""
    with archive.zip.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        headers = np.lib.format
        is_first = version == (1, 0)
        read = headers.read_array_header_1_0 if is_first else headers.read_array_header_2_0
        shape, _, dtype = read(file)
    return NamedArray(shape, dtype.kind in "fiub", lambda: archive[name])


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(512 + len(HDF5_SIGNATURE))
    return start.startswith(HDF5_SIGNATURE) or start.endswith(HDF5_SIGNATURE)


def _read_mat(path: Path) -> dict[str, NamedArray]:
    from scipy.io import loadmat  # slow to import, and seldom needed

    with reading(path):
        loaded = {name: _as_words(value) for name, value in loadmat(path).items()}
    return {
        name: NamedArray(
            () if np.prod(value.shape) <= 1 else value.shape,  # scalars have shape (1, 1)
            value.dtype.kind in "fiub",
            lambda value=value: value,
            is_matlab=True,
        )
        for name, value in loaded.items()
        if is_sparse(value) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiubU")
    }


def _as_words(value: Any) -> Any:
    """A cell array of texts, or a matrix of characters, as words; other values as they are."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object and all(np.asarray(cell).dtype.kind == "U" for cell in value.flat):
        words = [str(cell.item()) if np.size(cell) else "" for cell in value.flat]
        return np.array(words).reshape(value.shape)
    return np.char.rstrip(value) if value.dtype.kind == "U" else value  # padded with spaces


def _list_mat73(file: Any) -> dict[str, NamedArray]:
    """The arrays of a MATLAB 7.3 file, which has their axes in reverse order."""
    arrays = {}
    for name, item in file.items():
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        is_array = hasattr(item, "shape") and not item.attrs.get("MATLAB_empty", 0)
        if is_array and kind in MATLAB_NUMBERS:
            shape = () if item.size <= 1 else item.shape[::-1]
            arrays[name] = NamedArray(shape, True, lambda item=item: item[()].T, is_matlab=True)
    return arrays


def _list_hdf5(h5py: Any, file: Any) -> dict[str, NamedArray]:
    """The arrays of an HDF5 file and its groups, with names such as ``train/x``."""
    arrays = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        is_text = h5py.check_string_dtype(item.dtype) is not None
        if is_text or item.dtype.kind in "fiub":
            read = item.asstr() if is_text else item
            arrays[name] = NamedArray(item.shape, not is_text, lambda: np.asarray(read[()]))

    file.visititems(visit)
    return arrays
