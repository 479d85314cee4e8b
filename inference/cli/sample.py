"""The command ``latente sample``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .messages import say
from .options import DrawSeed, MovedTo, Overwrite, RunFolder
from .outputs import check_free, say_written

if TYPE_CHECKING:
    import pandas as pd

    from ..data.load_data import Data
    from ..data.transform import Transform
    from ..training.run import Run


NO_LABELS = "--label is for a model that is given labels: leave it out"


FIRST_SHOWN, FIRST_HEARD = 16, 4
"""How many of the sequences that are drawn are in the picture, and in the sound."""


def sample(
    folder: RunFolder,
    num: Annotated[int, typer.Option(help="How many draws.")] = 64,
    temperature: Annotated[
        float,
        typer.Option(
            help="Below 1, draws of z are nearer to the centre of a prior that is normal or a flow."
        ),
    ] = 1.0,
    length: Annotated[
        int | None,
        typer.Option(
            help="Steps of each sequence.", show_default="drawn from the training sequences"
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Of a model that is given labels: the class to draw, or several such as 0,1,2, in "
            "turn.",
            show_default="those of the test data",
        ),
    ] = None,
    overwrite: Overwrite = False,
    seed: DrawSeed = 0,
    moved_to: MovedTo = None,
) -> None:
    """Draw x from the model, in the units of the data, and a picture, DIR/figures/sampled.png.

    Draws of a table are in DIR/samples.csv, under the names of its columns; draws that are numbers
    alone are in DIR/samples.npy too. The picture has the means of images; of a table, a panel for
    each column, the draws beside the data. Sequences are in DIR/samples.npz, padded and with their
    lengths, texts in DIR/samples.txt, a line each; the first music or speech in DIR/samples.wav.
    """
    import numpy as np

    from ..common.files import write_atomically
    from ..common.plotting import save_figures
    from ..data.transform import has_context
    from ..recipes.given_labels import with_given_labels
    from ..recipes.load_run import load_run
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data
    from ..reporting.column_figures import data_beside_samples, plot_columns
    from ..reporting.run_figures import plot_samples
    from ..training.run_folder import FIGURES

    table, array = folder / "samples.csv", folder / "samples.npy"
    others = [folder / f"samples.{kind}" for kind in ("npz", "txt", "wav")]
    check_free(table, array, *others, folder / FIGURES / "sampled.png", overwrite=overwrite)
    run, data = load_run(folder), None
    transform, options = run.transform, {"temperature": temperature, "seed": seed}
    if transform is not None and transform.has_lengths:
        if label is not None:
            raise ValueError(NO_LABELS)
        paths = _sample_sequences(run, transform, folder, num, {**options, "lengths": length})
        say_written(paths, folder, "diagnose")
        return
    if length is not None:
        raise ValueError(
            "--length is of sequences, and the data of this run are none: leave it out"
        )
    if transform is None or has_context(transform):
        data = load_plan_data(read_plan(folder), folder, moved_to)
        transform = data.transform
    elif transform.columns:
        data = _load_for_picture(folder, moved_to)
    # A conditional model is given what the test data are.
    given = data.rows("test") if data is not None and has_context(transform) else None
    if label is not None:
        given, run = _of_classes(given, transform, label), with_given_labels(run)
    samples = replace(run, transform=transform).sample(num, like=given, **options)
    paths = []
    if transform.columns:
        beside = (None, "") if data is None else data_beside_samples(data)
        figure = plot_columns(samples, *beside, kinds=transform.kinds)
        samples = readable(samples, transform)
        paths.append(table)
        with write_atomically(table) as temporary:
            samples.to_csv(temporary, index=False)
    else:
        like: Any = np.zeros((1, *run.config["event_shape"]), dtype=np.float32)
        like = like if given is None else given
        figure = plot_samples(run.model, run.guide, like, num=num, **options)
    values = np.asarray(samples)
    if values.dtype.kind != "O":  # objects would be pickled
        paths.append(array)
        with write_atomically(array) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    paths += save_figures({"sampled": figure}, folder / FIGURES)
    say_written(paths, folder, "diagnose")


def _sample_sequences(
    run: "Run", transform: "Transform", folder: Path, num: int, options: dict[str, Any]
) -> list[Path]:
    """Draw sequences, and write them with a picture, and sound where there is any."""
    import numpy as np

    from ..common.files import write_atomically
    from ..common.plotting import save_figures
    from ..data.lengths import pad_joined
    from ..reporting.sequence_figures import plot_sequences, sound_of
    from ..reporting.sound import save_sound
    from ..training.run_folder import FIGURES

    samples = run.sample(num, **options)
    figure = plot_sequences({"x ~ p(x)": samples[:FIRST_SHOWN]})
    paths = save_figures({"sampled": figure}, folder / FIGURES)
    if transform.vocabulary is not None:
        text = folder / "samples.txt"
        with write_atomically(text) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in samples), encoding="utf-8")
        return [text, *paths]
    array, lengths = folder / "samples.npz", np.array([len(one) for one in samples])
    with write_atomically(array) as temporary, temporary.open("wb") as file:
        np.savez(file, x=pad_joined(np.concatenate(samples), lengths), lengths=lengths)
    found = sound_of(samples[:FIRST_HEARD], transform)
    if found is None:
        return [array, *paths]
    sound = folder / "samples.wav"
    with write_atomically(sound) as temporary, temporary.open("wb") as file:
        save_sound(file, *found)
    return [array, sound, *paths]


def _of_classes(given: Any, transform: "Transform", label: str) -> tuple[Any, ...]:
    """The rows (x, *context) that samples are like, with these classes in turn for their label."""
    import torch

    from ..data.some_labels import SOME_LABELS

    if transform.given not in ("labels", SOME_LABELS):
        raise ValueError(NO_LABELS)
    *others, labels = given
    numbers = range(transform.label_range[1] + 1 if transform.label_range else 0)
    codes = {name: number for number, name in enumerate(transform.label_names or map(str, numbers))}
    words = [word.strip() for word in label.split(",")]
    unknown = [word for word in words if word not in codes]
    if unknown:
        known = ", ".join(codes)
        raise ValueError(f"--label {unknown[0]!r} is none of the classes of the fit: {known}")
    chosen = torch.tensor([codes[word] for word in words])
    return *others, chosen[torch.arange(len(labels)) % len(chosen)]


def _load_for_picture(folder: Path, moved_to: Path | None) -> "Data | None":
    """The data of a run that are drawn beside its samples, which need none; ``None`` if lost."""
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data

    try:
        return load_plan_data(read_plan(folder), folder, moved_to)
    except (ValueError, OSError) as error:
        if moved_to is not None:
            raise
        say(f"latente: the picture is of samples alone: {error}", "yellow")
        return None


def readable(table: "pd.DataFrame", transform: "Transform") -> "pd.DataFrame":
    """A table of samples with no more digits than its values have.

    Values of a model in float32 have 7, and are written as the shortest number that float32 reads
    as the same. Those around a large offset are rounded to 7 digits of their standard deviation.
    """
    import numpy as np

    table, scale = table.copy(), transform.of_x(transform.scale)
    for place, column in enumerate(table.dtypes):
        if column != np.float64 or transform.dtype == "float64":
            continue
        if transform.precision == "float32":
            table.isetitem(place, table.iloc[:, place].astype(np.float32))
        elif scale is not None:
            decimals = int(np.ceil(7 - np.log10(float(scale[place]))))
            table.isetitem(place, table.iloc[:, place].round(decimals))
    return table
