"""Figures and sound of sequences: piano rolls, spectrograms, curves, texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..common.plotting import new_figure
from ..data.load_data import Data
from ..data.transform import Transform, draw_lengths
from ..pairs.programs import Program
from ..simulation.predictive import posterior_means, reconstruct, sample_prior, steps_of_latents
from .run_figures import plot_means, plot_training
from .sound import piano_sound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ELEMENTS_OF_CURVES = 4
"""Steps of up to so many numbers are drawn as curves; others are a picture."""

PIANO_KEYS = 88
"""Bits of so many elements a step are a piano roll."""

LONGEST_TEXT = 90
"""Characters of a text that a figure shows."""

PAUSE = 0.5
"""Seconds between two sequences in one file of sound."""


def plot_sequences(groups: Mapping[str, Sequence[Any]], *, columns: int = 4) -> "Figure":
    """Plot sequences, a row of panels for each group: time goes to the right.

    Texts are written; steps of a few numbers are curves; others are a picture with one line for
    each element, the first one lowest, as in a piano roll or a spectrogram.

    Args:
        groups: sequences by the group's name, each (T, …), or texts.
        columns: panels beside one another.

    Raises:
        ValueError: if there are no sequences.
    """
    if not groups or not all(len(group) for group in groups.values()):
        raise ValueError("there are no sequences to plot")
    if isinstance(next(iter(groups.values()))[0], str):
        return _write_texts(groups)
    rows = [
        (name, list(group[start : start + columns]))
        for name, group in groups.items()
        for start in range(0, len(group), columns)
    ]
    shown = [np.asarray(one, float).reshape(len(one), -1) for _, row in rows for one in row]
    low, high = min(one.min() for one in shown), max(one.max() for one in shown)
    with new_figure(1.4 * len(rows), columns=columns, rows=len(rows)) as (figure, axes):
        for ax in axes:
            ax.axis("off")
        for line, (name, row) in enumerate(rows):
            for place, one in enumerate(row):
                ax, flat = axes[line * columns + place], np.asarray(one, float)
                flat = flat.reshape(len(flat), -1)
                ax.axis("on")
                if flat.shape[1] <= MOST_ELEMENTS_OF_CURVES:
                    ax.plot(flat)
                    ax.set_ylim(low, high + 1e-9)
                else:
                    cmap = "Greys" if (low, high) == (0, 1) else "viridis"
                    options = {"vmin": low, "vmax": high, "interpolation": "nearest"}
                    ax.imshow(flat.T, aspect="auto", origin="lower", cmap=cmap, **options)
                ax.set(title=name if place == 0 else "", yticks=[])
                ax.tick_params(labelsize=6)
        axes[(len(rows) - 1) * columns].set_xlabel("step")
    return figure


def _write_texts(groups: Mapping[str, Sequence[str]]) -> "Figure":
    lines = [line for name, texts in groups.items() for line in (f"{name}:", *map(_short, texts))]
    with new_figure(0.2 * len(lines) + 0.2) as (figure, (ax,)):
        ax.axis("off")
        for place, line in enumerate(lines):
            height = 1 - (place + 0.5) / len(lines)
            ax.text(0, height, line, family="monospace", size=7, va="center", parse_math=False)
    return figure


def _short(text: str) -> str:
    return "  " + (text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …")


def plot_all_sequences(
    model: Program, guide: Program, data: Data, *, labels: Any = None, history: Any = ()
) -> dict[str, "Figure"]:
    """Plot the figures of a pair that is fitted to sequences, by the name of their file.

    These are training curves; samples, of lengths drawn from those of the training sequences;
    reconstructions, above the data; and posterior means, of each sequence over its steps.

    Args:
        data: what :func:`load_data` returned; its test part is shown.
        labels: labels of the test part.
        history: rows of the history; without them there are no training curves.
    """
    rows, transform = data.rows("test"), data.transform
    figures = {"training": plot_training(history)} if history else {}
    lengths = draw_lengths(transform, 8)
    drawn = sample_prior(model, guide, 8, rows, lengths=lengths)[1]
    figures["samples"] = plot_sequences({"x ~ p(x)": transform.inverse(drawn, lengths)})
    some = tuple(part[:4] for part in rows)
    both = {"data": some[0], "E[x|z], z ~ q(z|x)": reconstruct(model, guide, some)}
    shown = {name: transform.inverse(x, some[1]) for name, x in both.items()}
    figures["reconstructions"] = plot_sequences(shown)
    means = posterior_means(model, guide, rows)
    if means:
        present = steps_of_latents(model, guide, rows)
        each = [_mean_over_steps(value, present.get(name)) for name, value in means.items()]
        title = "E[z|x], the mean over steps" if present else "posterior means E[z|x]"
        figures["latent"] = plot_means(torch.cat(each, 1), labels, title)
    return figures


def _mean_over_steps(value: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the steps that are there of values (N, T, D): (N, D); others, as vectors."""
    if present is None:
        return value.flatten(1) if value.dim() > 1 else value[:, None]
    flags = present[(..., *[None] * (value.dim() - 2))].to(value.dtype)
    return ((value * flags).sum(1) / flags.sum(1)).flatten(1)


def sound_of(sequences: Sequence[Any], transform: Transform) -> tuple[np.ndarray, int] | None:
    """The sound of sequences one after another, and its sample rate; ``None`` if they have none.

    Frames of a log-mel spectrogram become sound by :meth:`LogMel.inverse`, bits of 88 keys by
    :func:`piano_sound`.

    Args:
        sequences: each (T, …), in the units of the data.
        transform: what was done to the data, which says what they are.
    """
    if transform.log_mel is not None:
        rate = transform.log_mel.sample_rate
        long = [one for one in sequences if len(one) > 1]
        sounds = [transform.log_mel.inverse(torch.as_tensor(one)).numpy() for one in long]
    elif transform.event_shape[1:] == (PIANO_KEYS,):
        rate = 16_000
        sounds = [piano_sound(one, sample_rate=rate) for one in sequences]
    else:
        return None
    silence = np.zeros(round(PAUSE * rate))
    parts = [part for sound in sounds for part in (sound, silence)]
    return (np.concatenate(parts), rate) if parts else None
