"""What stands beside the rows of data: their numbers, labels and columns that are no part of x."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.load_data import Data
from ..data.source import Source
from ..data.transform import Transform


def beside_test_rows(data: Data) -> dict[str, np.ndarray]:
    """The labels of the test part, in words if they were words, by the name of their column."""
    if data.test_labels is None:
        return {}
    return {label_name(data.transform): _words(data.test_labels.numpy(), data.label_names)}


def beside_new_rows(transform: Transform, data: Any, labels: Any = None) -> dict[str, np.ndarray]:
    """Labels of new data, and columns that are no part of x, as they were given, by name.

    Args:
        transform: that of the fit.
        data: as a call of the transform takes them; a ``Dataset`` is not read another time.
        labels: labels beside an array.
    """
    if not isinstance(data, str | Path) and not hasattr(data, "shape"):
        return {} if labels is None else {"label": np.asarray(labels)}
    return beside_source(transform, transform.read(data, labels))


def beside_source(transform: Transform, source: Source) -> dict[str, np.ndarray]:
    """The same of what was read."""
    found = dict(source.aside)
    if source.labels is not None:
        found[label_name(transform)] = _words(source.labels, source.label_names)
    return found


def frame_of(index: Any, beside: Mapping[str, Any], figures: Mapping[str, Any]) -> Any:
    """A DataFrame with a row for each datum; columns of the data with a figure's name are marked.

    >>> list(frame_of([7], {"khat": ["x"], "site": ["y"]}, {"khat": [0.5]}))
    ['khat (data)', 'site', 'khat']
    """
    import pandas as pd  # slow to import, and seldom needed

    marked = {f"{name} (data)" if name in figures else name: beside[name] for name in beside}
    return pd.DataFrame({**marked, **figures}, index=pd.Index(index, name="row"))


def label_name(transform: Transform) -> str:
    """The name of the labels of data: that of their column, or ``label``."""
    return transform.options.label_column or "label"


def _words(labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    return np.array(names, dtype=object)[labels] if names else labels
