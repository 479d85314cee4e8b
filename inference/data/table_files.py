"""Files of tables that are not text: .parquet, .feather, .xlsx, .h5ad."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.lookup import did_you_mean
from .source import Source, import_reader, reading
from .sparse import is_sparse, to_dense
from .tables import from_table

BINARY_TABLES = (".parquet", ".feather", ".xlsx", ".h5ad")
"""Suffixes of tables that are not text."""


def read_table_file(path: Path, key: str | None, header: bool | None) -> tuple[Any, str]:
    """Read the table in a ``.parquet``, ``.feather`` or ``.xlsx`` file; also returns a note.

    Args:
        key: the sheet of an ``.xlsx`` file; ``None``: the only one.
        header: whether the first row of an ``.xlsx`` file holds names; ``None``: found in it.

    Raises:
        ValueError: if the file is truncated or of another kind, if its reader is not installed, or
            if it can be read in two ways.
    """
    import pandas as pd  # slow to import, and seldom needed

    kind = path.suffix.lower()
    if kind == ".xlsx":
        return _read_sheet(path, key, header)
    with reading(path):
        return (pd.read_parquet(path) if kind == ".parquet" else pd.read_feather(path)), ""


def read_h5ad(
    path: Path, labels: Any, key: str | None, *, aside: Sequence[str] = (), require: bool = True
) -> Source:
    """Read the matrix of annotated data: its columns are ``var_names``.

    Args:
        labels: labels (N,), or the name of their column in ``obs``.
        key: the layer that is the data; ``None``: ``X``.
        aside: names of columns of ``obs`` that are kept beside the data.
        require: whether the columns that ``labels`` and ``aside`` name must be there.

    Raises:
        ValueError: as :func:`read_table_file` does; or if there is no such layer or column.
    """
    import pandas as pd  # slow to import, and seldom needed

    anndata = import_reader("anndata", path)
    with reading(path):
        content = anndata.read_h5ad(path)
    if key is not None and key not in content.layers:
        layers = ", ".join(content.layers) or "none"
        raise ValueError(f"{path} has no layer {key!r}; it has {layers}")
    values, note = content.X if key is None else content.layers[key], ""
    if values is None:
        raise ValueError(f"{path} has no X: name a layer by key=, of {', '.join(content.layers)}")
    if is_sparse(values):
        values, note = to_dense(values, str(path))
    kept = {}
    for name in (*aside, *([labels] if isinstance(labels, str) else [])):
        if name in content.obs:
            kept[name] = content.obs[name].to_numpy()
        elif require:
            question = did_you_mean(name, content.obs)
            raise ValueError(f"{path} has no obs {name!r}{question and f': {question}'}")
    labels = kept.get(labels) if isinstance(labels, str) else labels
    columns = [str(name) for name in content.var_names]
    table = pd.DataFrame(np.asarray(values), columns=columns)
    source = from_table(str(path), table, labels, note)
    return replace(source, aside={name: kept[name] for name in aside if name in kept})


def _read_sheet(path: Path, key: str | None, header: bool | None) -> tuple[Any, str]:
    """The table in a sheet; also returns a note on it."""
    import pandas as pd  # slow to import, and seldom needed

    import_reader("openpyxl", path)
    with reading(path):
        sheets = pd.read_excel(path, sheet_name=None, header=None, engine="openpyxl")
    names = [str(name) for name, sheet in sheets.items() if sheet.size]
    if key is None and len(names) > 1:
        raise ValueError(f"{path} holds the sheets {', '.join(names)}: choose one by key=")
    if key is not None and key not in names:
        raise ValueError(f"{path} has no sheet {key!r}, but {', '.join(names) or 'empty ones'}")
    if not names:
        raise ValueError(f"{path} holds no rows")
    cells = sheets[key or names[0]]
    if header is None:
        header = _has_names(path, cells)
    note = f"sheet {key!r}" if key is not None else ""
    if not header:
        cells.columns = [str(place) for place in range(cells.shape[1])]
        return cells, ", ".join(filter(None, [note, "no header"]))
    names = ["" if cell != cell or cell is None else str(cell) for cell in cells.iloc[0]]
    if "" in names[1:]:
        raise ValueError(
            f"the first row of {path} has no name for column {names.index('', 1)}, counted from 0: "
            "the first row must hold the names of the columns, or none at all (header=False)"
        )
    table = cells.iloc[1:].infer_objects()
    table.columns = names
    return table, note


def _has_names(path: Path, cells: Any) -> bool:
    """Whether the first row holds names: a word over a number, or words only."""
    first, below = cells.iloc[0], cells.iloc[1:]
    are_words = [isinstance(cell, str) for cell in first]
    over_number = [
        is_word and any(_is_number(cell) for cell in below.iloc[:, place])
        for place, is_word in enumerate(are_words)
    ]
    if any(over_number) or not any(map(_is_number, first)):
        return True
    raise ValueError(
        f"the first row of {path} holds numbers, which may be names of columns or data: give "
        "header=True or header=False"
    )


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float | np.number) and cell == cell
