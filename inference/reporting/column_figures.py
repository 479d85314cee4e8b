"""A panel for each column of a table: samples of a model beside data, in the data's own units."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.plotting import (
    BLUE,
    GREY,
    counted,
    grid,
    integer_ticks,
    legend_below,
    num_bins,
    shorten,
    write_below,
)
from ..data.column import Column
from ..data.load_data import Data
from ..data.transform import has_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS, ACROSS = 12, 3
"""Panels of a figure at most, and in a row."""
MOST_BARS = 10
"""Different values that get a bar each; of more words the rest is one bar."""


def data_beside_samples(data: Data) -> tuple[Any, str]:
    """The rows of a data set that samples are like, in the data's own terms, and their name.

    They are the training data; those of the test where the samples have the contexts of these.
    """
    if has_context(data.transform):
        return data.transform.inverse(data.test[:]), "test data"
    return data.transform.inverse(data.train[:]), "training data"


def plot_columns(
    samples: Any, data: Any = None, name: str = "data", *, kinds: Sequence[Column] = ()
) -> "Figure":
    """Plot a histogram of each column of samples beside that of data; bars for categories.

    Columns of words and of truth values, and of few whole numbers, get bars. A histogram spans the
    data and samples, but goes beyond the data by half their range at most: a note counts samples
    further out. Of more than :data:`MOST_COLUMNS` columns the first are shown, and the title says
    so.

    Args:
        samples: a DataFrame.
        data: a DataFrame of the same columns, or ``None``: samples alone.
        name: what the data are called.
        kinds: the columns as they are modelled: the axes of log-normal ones are logarithmic.

    >>> import pandas as pd
    >>> figure = plot_columns(pd.DataFrame({"size": [1.5, 2.5], "kind": ["a", "b"]}))
    >>> [ax.get_xlabel() for ax in figure.axes if ax.get_visible()]
    ['size', 'kind']
    """
    names = list(samples.columns)[:MOST_COLUMNS]
    skewed = {str(column.name) for column in kinds if column.kind == "lognormal"}
    rows = -(-len(names) // ACROSS)
    with grid(1.6 * rows + 0.7, rows, ACROSS) as (figure, axes):
        for place, ax in enumerate(axes.flat):
            if place >= len(names):
                ax.set_visible(False)
                continue
            column = names[place]
            pair = samples.iloc[:, place], None if data is None else data.iloc[:, place]
            if _is_counted(*pair):
                _draw_bars(ax, *pair, name)
            else:
                _draw_histogram(ax, *pair, name, str(column), str(column) in skewed)
            if place % ACROSS == 0:
                ax.set_ylabel("share")
        title = counted(len(samples), "sample", "samples")
        title += "" if data is None else f" beside {len(data):,} {name}"
        if len(samples.columns) > len(names):
            title += f": the first {len(names)} of {len(samples.columns)} columns"
        figure.suptitle(title, fontsize="medium")
        legend_below(figure, *axes.flat)
    return figure


def _is_counted(samples: Any, data: Any) -> bool:
    """Whether the values of a column get a bar each."""
    if samples.dtype.kind not in "fiu":  # words, categories and truth values
        return True
    values = np.unique(np.concatenate([samples, () if data is None else data]).astype(float))
    return len(values) <= MOST_BARS and bool((values == values.round()).all())


def _draw_bars(ax: "Axes", samples: Any, data: Any, name: str) -> None:
    """Draw the shares of values, the most frequent first, or in their order if they have one."""
    first = samples if data is None else data
    counts = first.value_counts()
    values = [*counts.index, *(v for v in samples.value_counts().index if v not in counts.index)]
    if isinstance(getattr(samples.dtype, "ordered", None), bool):
        values = list(samples.cat.categories)
    elif samples.dtype.kind in "fiub":
        values = sorted(values)
    shown = values if len(values) <= MOST_BARS else values[: MOST_BARS - 1]
    groups = [(samples, "samples", BLUE)]
    if data is not None:
        groups.insert(0, (data, name, GREY))
    width = 0.8 / len(groups)
    for number, (group, label, colour) in enumerate(groups):
        shares = [float((group == value).mean()) for value in shown]
        if len(shown) < len(values):
            shares.append(1 - sum(shares))
        at = np.arange(len(shares)) + (number - (len(groups) - 1) / 2) * width
        ax.bar(at, shares, width, color=colour, label=label)
    words = [f"{v:g}" if isinstance(v, float) else shorten(str(v), 10) for v in shown]
    if len(shown) < len(values):
        words.append(f"{len(values) - len(shown)} others")
    slanted = len(words) * max(map(len, words)) > 24  # of the width of a panel
    style: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(words)), words, **(style if slanted else {}))
    write_below(ax, shorten(str(samples.name), 30), "")


def _draw_histogram(
    ax: "Axes", samples: Any, data: Any, name: str, column: str, logarithmic: bool
) -> None:
    """Draw the shares of bins, of the data filled, of the samples as a line."""
    drawn = np.asarray(samples, dtype=float)
    given = drawn if data is None else np.asarray(data, dtype=float)
    bins = num_bins(len(given))
    if logarithmic and min(drawn.min(), given.min()) > 0:
        edges = np.exp(_edges(*_limits(np.log(drawn), np.log(given)), bins, whole=False))
        ax.set_xscale("log")
    else:
        edges = _edges(*_limits(drawn, given), bins, whole=samples.dtype.kind in "iu")
    if data is not None:
        shares = np.full(len(given), 1 / len(given))
        ax.hist(given, edges.tolist(), weights=shares, color=GREY, label=name)
    shares = np.full(len(drawn), 1 / len(drawn))
    style: dict[str, Any] = {"color": BLUE, "linewidth": 1.5, "label": "samples"}
    ax.hist(drawn, edges.tolist(), weights=shares, histtype="step", **style)
    if samples.dtype.kind in "iu" and ax.get_xscale() == "linear":
        integer_ticks(ax)
    beyond = int(((drawn < edges[0]) | (drawn > edges[-1])).sum())
    note = f"{counted(beyond, 'sample', 'samples')} beyond" if beyond else ""
    write_below(ax, shorten(column, 30), note)


def _limits(drawn: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """The range of the data, and of samples that are no further from it than half its width."""
    low, high = given.min(), given.max()
    margin = (high - low) / 2
    return max(low - margin, min(low, drawn.min())), min(high + margin, max(high, drawn.max()))


def _edges(low: float, high: float, bins: int, *, whole: bool) -> np.ndarray:
    """Edges of bins of equal width; of whole numbers each bin holds as many of them."""
    if not whole:
        return np.linspace(low, high if high > low else low + 1, bins + 1)
    step = max(1, int(np.ceil((high - low + 1) / bins)))
    return np.arange(np.floor(low), np.ceil(high) + step + 1, step) - 0.5
