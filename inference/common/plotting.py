"""The style of all figures: sizes, colours, grids, legends, ticks and labels."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, SKY, ORANGE, RED, GREY = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "0.6"
"""Colours that the colour-blind can tell apart (Okabe and Ito 2008)."""


def signed(text: str) -> str:
    """Write a number in print: with a minus sign, and without minus zero.

    >>> signed(f"{-1.5:.1f}"), signed(f"{-0.0:.2f}")
    ('−1.5', '0.00')
    """
    return (
        text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-")
    )


def counted(count: int, one: str, many: str) -> str:
    """Write a number of things.

    >>> counted(1, "datum", "data"), counted(2000, "datum", "data")
    ('1 datum', '2,000 data')
    """
    return f"{count:,} {one if count == 1 else many}"


def shorten(name: str, most: int = 14) -> str:
    """Shorten the name of a coordinate in the middle, so that its index stays.

    >>> shorten("z[3]"), shorten("log_concentration[12]")
    ('z[3]', 'log_conc…n[12]')
    """
    return name if len(name) <= most else f"{name[: most - 6]}…{name[-5:]}"


@contextlib.contextmanager
def grid(
    height: float, rows: int, columns: int, **shape: Any
) -> Iterator[tuple["Figure", np.ndarray]]:
    """A figure in the house style with axes in rows and columns."""
    with new_figure(height) as (figure, (ax,)):
        ax.remove()
        yield figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=shape)


def legend_below(
    figure: "Figure", *axes: "Axes", columns: int = 3, first: Iterable[str] = ()
) -> None:
    """Draw one legend of several axes below all of them, each name once."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    names = list(dict.fromkeys([*[name for name in first if name in entries], *entries]))
    if names:
        handles = [entries[name] for name in names]
        place = "outside lower center"
        figure.legend(handles, names, loc=place, ncols=min(columns, len(names)))


def dots(
    ax: "Axes", x: Any, y: Any, marker: str, colour: str, *, size: float, label: str | None = None
) -> None:
    """Draw markers that are not joined by a line."""
    style: dict[str, Any] = {"marker": marker, "markersize": size, "label": label}
    ax.plot(x, y, color=colour, linestyle="none", **style)


def marker_size(count: int) -> float:
    """The size of markers in points: the more there are, the smaller."""
    return float(np.clip(60 / math.sqrt(max(count, 1)), 2, 5))


def num_bins(count: int) -> int:
    """How many bins a histogram of so many draws gets (the rule of Rice), from 5 to 30."""
    return int(np.clip(math.ceil(2 * count ** (1 / 3)), 5, 30))


def integer_ticks(ax: "Axes") -> None:
    """Let the horizontal axis have ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def write_below(ax: "Axes", label: str, note: str) -> None:
    """Write the label of an axis, and a note below it if there is one."""
    ax.set_xlabel(f"{label}\n{note}" if note else label)


def write_beside(ax: "Axes", labels: list[tuple[float, str]], apart: float) -> None:
    """Write labels to the right of a bar at their heights, moved up where they would overlap."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    apart *= high - low
    last = low - apart / 2
    for height, text in sorted(label for label in labels if math.isfinite(label[0])):
        last = max(height, last + apart)
        ax.annotate(text, (0.45, last), va="center")


def show_text(ax: "Axes", text: str) -> None:
    """Write a sentence in place of a plot."""
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def text_figure(text: str) -> "Figure":
    """A figure with a sentence in place of a plot."""
    with new_figure(1.0) as (figure, (ax,)):
        show_text(ax, text)
    return figure


WIDTH = 6.5
"""Width of a figure in inches: the text width of a letter page."""


_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "figure.dpi": 110,
    "image.interpolation": "nearest",
}


@contextlib.contextmanager
def new_figure(
    height: float, columns: int = 1, rows: int = 1
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure in the house style, that no global state holds on to; its panels row by row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # pyright: ignore
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.flat)


def save_figures(figures: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    """Write figures as PNG into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=200)
    return paths
