"""The command ``latente plot``."""

from dataclasses import replace

from .options import MovedTo, RunFolder
from .outputs import say_written


def plot(folder: RunFolder, moved_to: MovedTo = None) -> None:
    """Pictures of a run: training curve, reconstructions, samples, latent space, interpolation.

    They are DIR/figures/training.png, reconstructions.png and so on, of the test data; the samples
    of a table are a panel for each column, beside the training data. Sequences are pictures with
    time to the right, curves, or texts.
    """
    from ..common.plotting import save_figures
    from ..recipes.load_run import load_run
    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data
    from ..reporting.column_figures import data_beside_samples, plot_columns
    from ..reporting.run_figures import plot_all
    from ..reporting.sequence_figures import plot_all_sequences
    from ..training.run_folder import FIGURES

    run, data = load_run(folder), load_plan_data(read_plan(folder), folder, moved_to)
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data to draw")
    labels = data.test_labels
    if labels is not None and data.label_names:
        labels = [data.label_names[code] for code in labels.tolist()]
    told = {"labels": labels, "history": run.history}
    if data.transform.has_lengths:
        figures = plot_all_sequences(run.model, run.guide, data, **told)
    else:
        figures = plot_all(run.model, run.guide, data.rows("test"), **told)
    if data.transform.columns:
        samples = replace(run, transform=data.transform).sample(1000, like=data)
        beside = data_beside_samples(data)
        figures["samples"] = plot_columns(samples, *beside, kinds=data.transform.kinds)
    say_written(save_figures(figures, folder / FIGURES), folder, "sample")
