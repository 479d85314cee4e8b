"""Figures of a run: training curves, reconstructions, samples, latent space."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..common.plotting import WIDTH, new_figure
from ..data.rows import Rows, as_rows
from ..pairs.programs import Program
from ..simulation.canvases import is_painted
from ..simulation.predictive import decode, posterior_means, reconstruct, sample_prior
from .canvas_figure import plot_canvases

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SITES = 8
"""The most latent sites that a legend names; of more, the first and the last."""


FIGURE_NAMES = (
    "training",
    "samples",
    "reconstructions",
    "latent",
    "manifold",
    "interpolation",
    "canvases",
)
"""Names of the figures that :func:`plot_all` may plot."""


def plot_training(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Plot the ELBO and its two terms over epochs, on training and validation data.

    Where there are several latent sites, a further panel has the KL of each.

    Args:
        history: rows as in ``metrics.csv`` and ``Run.history``.

    Raises:
        ValueError: if the history is empty.
    """
    if not history:
        raise ValueError("there is no epoch to plot yet")
    epochs = [row["epoch"] for row in history]
    from matplotlib.ticker import MaxNLocator

    panels = [("elbo", "ELBO"), ("reconstruction", "E[log p(x|z)]"), ("kl", "KL(q(z|x) ‖ p(z))")]
    panels = [(name, label) for name, label in panels if name in history[-1]]
    sites = [name for name in history[-1] if name.startswith("kl_")]
    with new_figure(2.4, columns=len(panels) + bool(sites)) as (figure, axes):
        for ax, (name, label) in zip(axes, panels, strict=False):
            marker = "o" if len(epochs) < 3 else None
            ax.plot(epochs, _column(history, name), label="training", marker=marker)
            if f"validation_{name}" in history[-1]:
                validation = _column(history, f"validation_{name}")
                ax.plot(epochs, validation, "--", label="validation", marker=marker)
            ax.set(title=label)
        if sites:
            _plot_sites(axes[-1], epochs, {name: _column(history, name) for name in sites})
        for ax in axes:
            _ignore_start(ax)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            ax.set(xlabel="epoch")
        axes[0].set_ylabel("nats per datum")
        handles, names = axes[0].get_legend_handles_labels()
        if len(names) > 1:
            figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _column(history: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """A figure of each epoch; NaN where a resumed run did not have it yet."""
    return [row.get(name, math.nan) for row in history]


def _plot_sites(ax: "Axes", epochs: list[float], columns: Mapping[str, list[float]]) -> None:
    """Plot the KL of each latent site on training data, a line each, in order of the sites."""
    from matplotlib import colormaps

    for place, (name, values) in enumerate(columns.items()):
        colour = colormaps["viridis"](0.9 * place / (len(columns) - 1))
        marker = "o" if len(epochs) < 3 else None
        ax.plot(epochs, values, color=colour, label=name.removeprefix("kl_"), marker=marker)
    ax.set(title="KL of each site")
    if len(columns) <= MOST_SITES:
        ax.legend()
    else:
        first, last = ax.lines[0], ax.lines[-1]
        ax.legend(handles=[first, last])


def _ignore_start(ax: "Axes") -> None:
    """Fit the y axis to the values after the first tenth, which would flatten the rest."""
    curves = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
    settled = np.concatenate([curve[max(1, len(curve) // 10) :] for curve in curves])
    if len(settled) >= 5 and np.isfinite(settled).all():
        margin = 0.05 * np.ptp(settled) or 1.0
        ax.set_ylim(settled.min() - margin, settled.max() + margin)


def plot_reconstructions(model: Program, guide: Program, data: Any, *, num: int = 10) -> "Figure":
    """Plot data above their reconstructions, E[x|z] at one draw z ~ q(z|x) each.

    Args:
        data: x or (x, *context); the first ``num`` are shown. If the model observes several
            arguments, the figure is of the first.
        num: number of data.
    """
    rows = tuple(part[:num] for part in as_rows(data, "data"))
    reconstructions = _first(reconstruct(model, guide, rows))
    return _plot_rows([rows[0].cpu(), reconstructions], ["original", "reconstruction"])


def plot_samples(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> "Figure":
    """Plot E[x|z] at draws z ~ p(z), or draws of x if its distribution has no mean.

    Args:
        data: data whose shape and contexts the samples take; the values of x do not matter.
        num: number of draws.
        temperature: scales draws of z around the prior's centre, as for :func:`sample_prior`.
        seed: seed of the draws.
    """
    options = {"temperature": temperature, "seed": seed}
    means, draws = map(_first, sample_prior(model, guide, num, data, **options))
    title = "x ~ p(x)" if torch.equal(means, draws) else "E[x|z], z ~ p(z)"
    title += "" if temperature == 1 else f" at temperature {temperature:g}"
    return _plot_tiles(means, title)


def plot_latent(model: Program, guide: Program, data: Any, labels: Any = None) -> "Figure":
    """Plot posterior means E[z|x], coloured by label; above two dimensions, their first two PCs.

    Args:
        data: x or (x, *context).
        labels: numbers or names (N,), or ``None`` for one colour.

    Raises:
        ValueError: if there are more or fewer labels than data, or no latent variables.
    """
    sites = posterior_means(model, guide, data).values()
    if not sites:
        raise ValueError("the guide has no latent site: there is no latent space to plot")
    means = torch.cat([value.reshape(len(value), -1) for value in sites], dim=1)
    return plot_means(means, labels)


def plot_means(
    means: Tensor, labels: Any = None, title: str = "posterior means E[z|x]"
) -> "Figure":
    """Plot vectors (N, K) in the plane, coloured by label; above two dimensions, their first PCs.

    Raises:
        ValueError: if there are more or fewer labels than vectors.
    """
    if labels is not None and len(labels) != len(means):
        raise ValueError(f"there are {len(means)} data but {len(labels)} labels")
    points, names = _project_to_plane(means.numpy())
    with new_figure(4.6) as (figure, (ax,)):
        if labels is None:
            ax.scatter(points[:, 0], points[:, 1], s=_point_size(points), linewidths=0, alpha=0.7)
        else:
            _scatter_by_label(ax, points, np.asarray(labels))
        ax.set(xlabel=names[0], ylabel=names[1], title=title)
        if names[1]:
            ax.set_aspect("equal", adjustable="datalim")
        else:
            ax.set_yticks([])
    return figure


def _first(found: Tensor | dict[str, Tensor]) -> Tensor:
    """The first argument that a model observes, of which the figures are."""
    return next(iter(found.values())) if isinstance(found, dict) else found


def _project_to_plane(means: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Two coordinates of each mean, and the names of the axes."""
    if means.shape[1] == 1:
        return np.concatenate([means, np.zeros_like(means)], axis=1), ["z₁", ""]
    if means.shape[1] == 2:
        return means, ["z₁", "z₂"]
    from sklearn.decomposition import PCA

    pca = PCA(2)
    points = pca.fit_transform(means.astype(np.float64))
    return points, [
        f"principal component {i + 1} of E[z|x] ({share:.0%} of variance)"
        for i, share in enumerate(pca.explained_variance_ratio_)
    ]


def _scatter_by_label(ax: "Axes", points: np.ndarray, labels: np.ndarray) -> None:
    from matplotlib import colormaps

    classes = np.unique(labels).tolist()
    palette = colormaps["tab10"] if len(classes) <= 10 else colormaps["viridis"]
    for position, name in enumerate(classes):
        chosen = points[labels == name]
        colour = palette(position if len(classes) <= 10 else position / (len(classes) - 1))
        style = {"s": _point_size(points), "linewidths": 0, "alpha": 0.7, "color": colour}
        ax.scatter(chosen[:, 0], chosen[:, 1], label=str(name), **style)
    if len(classes) <= 20:
        legend = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2)
        for handle in legend.legend_handles:
            handle.set(sizes=[24], alpha=1)  # pyright: ignore


def _point_size(points: np.ndarray) -> float:
    """Area of a point, in points²: the more points, the smaller."""
    return float(np.clip(3000 / len(points), 3, 14))


def plot_manifold(model: Program, guide: Program, data: Any, *, side: int = 20) -> "Figure":
    """Plot E[x|z] over a grid of a two-dimensional latent plane.

    The coordinates are the standard normal quantiles Φ⁻¹((i + ½) / side), so all cells have the
    same mass under a standard normal prior.

    Args:
        data: x or (x, *context); a conditional model is plotted at the context of the first datum.
        side: number of grid points along each axis.

    Raises:
        ValueError: if there is not exactly one latent site, of dimension 2.
    """
    first = tuple(part[:1] for part in as_rows(data, "data"))
    means = posterior_means(model, guide, first)
    if len(means) != 1 or next(iter(means.values())).shape[1:] != (2,):
        raise ValueError("the latent plane can only be plotted for one latent site of dimension 2")
    quantiles = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side)
    vertical, horizontal = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    grid = torch.stack([horizontal, vertical], dim=-1).reshape(-1, 2)
    decoded = _first(decode(model, guide, {next(iter(means)): grid}, first))
    figure = _plot_tiles(
        decoded, "E[x|z] over the plane of z, at quantiles of a standard normal", side, gap=1
    )
    if is_image(decoded.shape[1:]):
        _label_plane(
            figure.axes[0], quantiles.tolist(), decoded.shape[-2] + 1, decoded.shape[-1] + 1
        )
    return figure


def _label_plane(ax: "Axes", quantiles: list[float], height: int, width: int) -> None:
    """Write the coordinates of z beside some tiles of the grid."""
    chosen = np.linspace(0, len(quantiles) - 1, 4).round().astype(int)
    ax.axis("on")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    names = [f"{quantiles[i]:.2f}".replace("-", "−") for i in chosen]
    ax.set_xticks([1 + width * (i + 0.5) for i in chosen], names)
    ax.set_yticks([1 + height * (len(quantiles) - i - 0.5) for i in chosen], names)
    ax.set(xlabel="z₁", ylabel="z₂")


def plot_interpolation(
    model: Program, guide: Program, data: Any, *, pairs: int = 5, steps: int = 11
) -> "Figure":
    """Plot E[x|z] along z = (1−λ) z₁ + λ z₂, between the posterior means of two data per row.

    Args:
        data: x or (x, *context); the first 2 · ``pairs`` data are paired in order. A conditional
            model is plotted at the context of the first datum of each pair.
        pairs: number of pairs.
        steps: number of values of λ, from 0 to 1.

    Raises:
        ValueError: if there are fewer than two data, or no latent variables.
    """
    rows = tuple(part[: 2 * pairs] for part in as_rows(data, "data"))
    pairs = len(rows[0]) // 2
    if pairs == 0:
        raise ValueError("an interpolation needs at least two data")
    weights = torch.linspace(0, 1, steps)
    path = {}
    sites = posterior_means(model, guide, rows)
    if not sites:
        raise ValueError("the guide has no latent site: there is nothing to interpolate")
    for name, value in sites.items():
        first, second = value[0 : 2 * pairs : 2], value[1 : 2 * pairs : 2]
        mix = weights.view(-1, 1, *[1] * (value.dim() - 1)).to(value.dtype)
        path[name] = ((1 - mix) * first + mix * second).transpose(0, 1).flatten(0, 1)
    like = tuple(part[0 : 2 * pairs : 2].repeat_interleave(steps, 0) for part in rows)
    decoded = _first(decode(model, guide, path, like)).unflatten(0, (pairs, steps))
    columns = [rows[0][0 : 2 * pairs : 2].cpu()[:, None], decoded]
    columns.append(rows[0][1 : 2 * pairs : 2].cpu()[:, None])
    tiles = torch.cat(columns, dim=1).flatten(0, 1)
    title = "x₁, E[x|(1−λ)z₁ + λz₂] for λ from 0 to 1, x₂"
    return _plot_tiles(tiles, title, steps + 2)


def is_image(event_shape: Sequence[int]) -> bool:
    """Whether data of this shape are plotted as images: (H, W), or (C, H, W) with C = 1 or 3."""
    return len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[0] in (1, 3))


def _plot_rows(rows: list[Tensor], names: list[str]) -> "Figure":
    """Plot rows of data below one another, each row with its name."""
    num, shape = len(rows[0]), rows[0].shape[1:]
    if not is_image(shape):
        return _plot_curves(rows, names)
    cell = WIDTH / num
    with new_figure(cell * len(rows) * shape[-2] / shape[-1] + 0.1) as (figure, (ax,)):
        _draw_images(ax, torch.cat(rows), num)
        pitch = shape[-2] + 2
        ax.set_yticks([2 + pitch * i + shape[-2] / 2 for i in range(len(rows))], names)
        ax.tick_params(left=False)
        ax.axis("on")
        ax.set_xticks([])
        ax.spines[:].set_visible(False)
    return figure


def _plot_tiles(data: Tensor, title: str, columns: int | None = None, gap: int = 2) -> "Figure":
    """Plot data as tiles of one image, or as curves if they are not images, with a title."""
    if not is_image(data.shape[1:]):
        return _plot_curves([data], [title])
    columns = columns or max(1, round(len(data) ** 0.5))
    lines = -(-len(data) // columns)
    height = WIDTH * lines * data.shape[-2] / (columns * data.shape[-1]) + 0.3
    with new_figure(height) as (figure, (ax,)):
        _draw_images(ax, data, columns, gap)
        ax.set_title(title)
    return figure


def _draw_images(ax: "Axes", images: Tensor, columns: int, gap: int = 2) -> None:
    from torchvision.utils import make_grid

    images = images if images.dim() == 4 else images[:, None]
    low, high = images.min(), images.max()
    in_range = low >= 0 and high <= 1
    scaled = images if in_range else (images - low) / (high - low).clamp(min=1e-12)
    grid = make_grid(scaled.float(), nrow=columns, padding=gap, pad_value=1.0)
    ax.imshow(grid.permute(1, 2, 0).clamp(0, 1).numpy())
    ax.axis("off")


def _plot_curves(groups: list[Tensor], names: list[str]) -> "Figure":
    """Plot data that are not images, each as a curve over its elements."""
    from matplotlib.ticker import MaxNLocator

    with new_figure(2.6, columns=len(groups)) as (figure, axes):
        for ax, group, name in zip(axes, groups, names, strict=True):
            marker = "." if group[0].numel() < 40 else None
            curves = group.reshape(len(group), -1).T.numpy()
            ax.plot(curves, color="C0", alpha=min(1, 8 / len(group)), marker=marker)
            ax.set(title=name, xlabel="element")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            ax.sharey(axes[0])
        axes[0].set_ylabel("value")
    return figure


def plot_all(
    model: Program, guide: Program, data: Any, *, labels: Any = None, history: Any = ()
) -> dict[str, "Figure"]:
    """Plot all figures that apply to a pair, by the name of their file.

    The latent plane and interpolations are plotted only for images, and strips of the canvas only
    for models that paint step by step, such as DRAW. A pair without latent variables
    has only its training curves and samples.

    Args:
        data: x or (x, *context).
        labels: labels for :func:`plot_latent`.
        history: rows for :func:`plot_training`; without them that figure is left out.
    """
    rows: tuple[Rows, ...] = as_rows(data, "data")
    figures = {"training": plot_training(history)} if history else {}
    figures["samples"] = plot_samples(model, guide, rows)
    means = posterior_means(model, guide, tuple(part[:1] for part in rows))
    if not means:
        return figures
    figures["reconstructions"] = plot_reconstructions(model, guide, rows)
    figures["latent"] = plot_latent(model, guide, rows, labels)
    if is_image(rows[0].shape[1:]):
        if len(means) == 1 and next(iter(means.values())).shape[1:] == (2,):
            figures["manifold"] = plot_manifold(model, guide, rows)
        if len(rows[0]) > 1:
            figures["interpolation"] = plot_interpolation(model, guide, rows)
        if is_painted(model):
            figures["canvases"] = plot_canvases(model, guide, rows)
    return figures
