"""Figure of a model that paints step by step: strips of its canvas."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..common.plotting import WIDTH, new_figure
from ..data.rows import as_rows
from ..pairs.programs import Program
from ..simulation.canvases import canvases

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 16
"""The most canvases in a strip; of more steps, as many at equal distances, with the last."""

LEAST_COLUMNS = 10
"""Columns that the width of a figure holds at least, so that a few do not make it too high."""


def plot_canvases(
    model: Program, guide: Program, data: Any, *, num: int = 5, seed: int = 0
) -> "Figure":
    """Plot E[x | c_t] of the canvas after each step: strips of samples, and of reconstructions.

    Args:
        data: images x; the first ``num`` are reconstructed, and stand at the end of their strips.
        num: number of samples, and of reconstructions.
        seed: seed of the draws.

    Raises:
        ValueError: if the model does not paint step by step, or the data are no images.
    """
    rows = tuple(part[:num] for part in as_rows(data, "data"))
    shape = tuple(rows[0].shape[1:])
    if len(shape) not in (2, 3):
        raise ValueError(f"canvases are plotted of images, and a datum has the shape {shape}")
    strips = {
        "samples, z ~ p(z)": canvases(model, guide, rows, from_prior=True, seed=seed),
        "reconstructions, z ~ q(z|x), and x": canvases(model, guide, rows, seed=seed),
    }
    chosen = _chosen_steps(next(iter(strips.values())).shape[1])
    columns = len(chosen) + 1
    tile = WIDTH / max(columns, LEAST_COLUMNS) * shape[-2] / shape[-1]
    height = 2 * (len(rows[0]) * tile + 0.3) + 0.2
    with new_figure(height) as (figure, (ax,)):
        ax.remove()
        panels = figure.subplots(2, 1)
        for panel, (title, strip) in zip(panels, strips.items(), strict=True):
            tiles = strip[:, chosen]
            last = rows[0].cpu().to(tiles.dtype) if "and x" in title else None
            _draw_strips(panel, tiles, last)
            panel.set_title(title)
        pitch = shape[-1] + 2
        panels[-1].set_xticks(
            [2 + pitch * i + shape[-1] / 2 for i in range(columns)],
            [*[str(step + 1) for step in chosen], "x"],
        )
        panels[-1].set_xlabel("step t")
    return figure


def _chosen_steps(num_steps: int) -> list[int]:
    """Which steps are shown, counted from 0."""
    last, num = num_steps - 1, min(num_steps, MOST_COLUMNS)
    return [round(last * column / max(num - 1, 1)) for column in range(num)]


def _draw_strips(ax: "Axes", strips: Tensor, last: Tensor | None) -> None:
    """Draw strips (N, T, …) below one another, with a column more: data, or nothing."""
    from torchvision.utils import make_grid

    column = torch.full_like(strips[:, 0], torch.nan) if last is None else last
    tiles = torch.cat([strips, column[:, None]], 1).flatten(0, 1)
    tiles = tiles if tiles.dim() == 4 else tiles[:, None]
    low, high = strips.min(), strips.max()
    if low < 0 or high > 1:
        tiles = (tiles - low) / (high - low).clamp(min=1e-12)
    grid = make_grid(tiles.nan_to_num(1.0).float(), nrow=strips.shape[1] + 1, pad_value=1.0)
    ax.imshow(grid.permute(1, 2, 0).clamp(0, 1).numpy())
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xticks=[], yticks=[])
