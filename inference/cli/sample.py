"""The command ``latente sample``."""

from typing import Annotated, Any

import typer

from .options import DrawSeed, MovedTo, RunFolder


def sample(
    folder: RunFolder,
    num: Annotated[int, typer.Option(help="How many.")] = 64,
    temperature: Annotated[
        float,
        typer.Option(help="Scales draws of z around the centre of a normal prior, or in a flow."),
    ] = 1.0,
    seed: DrawSeed = 0,
    moved_to: MovedTo = None,
) -> None:
    """Draw from the model: DIR/samples.npy has draws of x, DIR/figures/sampled.png their means.

    For a table, DIR/samples.csv has the draws too, under the names of its columns; if some hold
    words, it alone.
    """
    import numpy as np

    from ..common.files import write_atomically
    from ..common.plotting import save_figures
    from ..recipes.load_run import load_run
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data
    from ..reporting.run_figures import plot_samples
    from ..simulation.predictive import sample_prior
    from ..training.run_folder import FIGURES

    run = load_run(folder)
    like: Any = np.zeros((1, *run.config["event_shape"]), dtype=np.float32)
    transform = run.transform
    if run.config.get("context") or transform is None:
        data = load_plan_data(read_plan(folder), folder, moved_to)
        transform = data.transform
        if run.config.get("context"):  # a conditional model is given what the test data are
            like = data.rows("test")
    options = {"num": num, "temperature": temperature, "seed": seed}
    # The model of a recipe observes x alone.
    drawn: Any = sample_prior(run.model, run.guide, like=like, **options)[1]
    samples, paths = transform.inverse(drawn), []
    values = np.asarray(samples)
    if values.dtype.kind != "O":  # objects would be pickled
        paths.append(folder / "samples.npy")
        np.save(paths[-1], values)
    if transform.columns:
        paths.append(folder / "samples.csv")
        with write_atomically(paths[-1]) as temporary:
            samples.to_csv(temporary, index=False)
    figure = plot_samples(run.model, run.guide, like, **options)
    for path in [*save_figures({"sampled": figure}, folder / FIGURES), *paths]:
        typer.echo(str(path))
