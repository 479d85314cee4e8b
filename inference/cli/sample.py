"""The command ``latente sample``."""

from typing import Annotated, Any

import typer

from .options import DrawSeed, RunFolder


def sample(
    folder: RunFolder,
    num: Annotated[int, typer.Option(help="How many.")] = 64,
    seed: DrawSeed = 0,
) -> None:
    """Draw from the model: DIR/samples.npy has draws of x, DIR/figures/sampled.png their means."""
    import numpy as np

    from ..common.plotting import save_figures
    from ..recipes.load_run import load_run
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data
    from ..reporting.run_figures import plot_samples
    from ..simulation.predictive import sample_prior
    from ..training.run_folder import FIGURES

    run = load_run(folder)
    like: Any = np.zeros((1, *run.config["event_shape"]), dtype=np.float32)
    if run.config.get("context"):  # a conditional model is given what the test data are
        like = load_plan_data(read_plan(folder), folder).rows("test")
    # The model of a recipe observes x alone.
    drawn: Any = sample_prior(run.model, run.guide, num, like, seed=seed)[1]
    transform = run.transform or load_plan_data(read_plan(folder), folder).transform
    np.save(folder / "samples.npy", np.asarray(transform.inverse(drawn)))
    figure = plot_samples(run.model, run.guide, like, num=num, seed=seed)
    for path in [*save_figures({"sampled": figure}, folder / FIGURES), folder / "samples.npy"]:
        typer.echo(str(path))
