"""The command ``latente evaluate``."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .options import (
    Device,
    DrawSeed,
    MovedTo,
    NewData,
    NewLabels,
    NumSamples,
    RunFolder,
)
from .outputs import say_written
from .run_data import label_codes, rows_of, stem_of, units_of


def evaluate(
    folder: RunFolder,
    data: NewData = None,
    labels: NewLabels = None,
    num_samples: NumSamples = 1000,
    seed: DrawSeed = 0,
    device: Device = "auto",
    moved_to: MovedTo = None,
) -> None:
    """Evidence, bound and posterior health on the test data; writes DIR/evaluation.json.

    Figures are in nats per datum. With --data FILE they are of new data, and written to
    DIR/evaluation-FILE.json.
    """
    from ..common.files import write_json
    from ..evaluation.metrics import describe_posterior
    from ..evaluation.metrics import evaluate as evaluate_pair
    from ..recipes.load_run import load_run
    from ..training.run_folder import EVALUATION

    kind, path = "test data", folder / EVALUATION
    if data is not None:
        kind, path = f"data of {data}", path.with_stem(f"{path.stem}-{stem_of(data)}")
    run = load_run(folder, device=device)
    rows, _, beside = rows_of(run, folder, data, labels, moved_to)
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "show_progress": True}
    true = label_codes(run, beside)
    figures: dict[str, Any] = evaluate_pair(run.model, run.guide, rows, labels=true, **options)
    if data is not None:
        figures["data"] = data
    write_json(path, figures)
    console = Console()
    title = f"{folder}: {figures['num_data']} {kind}{units_of(folder)}"
    console.print(tabulate_evaluation(figures, title))
    if "khat_bad_fraction" in figures:
        console.print(describe_posterior(figures), highlight=False)
    say_written([path], folder, "diagnose")


def tabulate_evaluation(figures: dict[str, Any], title: str) -> Table:
    """The figures of an evaluation as a table, each with its unit."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("what it is")
    datum = "sequence" if "num_steps" in figures else "datum"
    if "log_evidence" in figures:
        evidence = f"{figures['log_evidence']:.2f} ± {figures['log_evidence_se']:.3f}"
        samples = f"log p(x), {figures['num_samples']:,} importance samples"
        table.add_row("log evidence", evidence, f"nats per {datum}; {samples}, ± their error")
    if "num_labelled" in figures:
        known = figures["num_labelled"]
        what = (
            f"log p(x, y) of {known:,} labelled rows, log p(x) of {figures['num_data'] - known:,}"
        )
        table.add_row("labelled", f"{known:,}", f"of {figures['num_data']:,} rows: {what}")
    for name in ("labelled", "unlabelled"):
        if f"elbo_{name}" in figures:
            both = f"{figures[f'log_evidence_{name}']:.2f}, {figures[f'elbo_{name}']:.2f}"
            table.add_row(f"{name} rows", both, "log evidence, ELBO; nats per datum")
    if "accuracy" in figures:
        share = f"{figures['accuracy']:.2%}"
        table.add_row("accuracy", share, escape("of the known labels: the class of largest q(y|x)"))
    if "num_steps" in figures:
        figure, error = figures["log_evidence_per_step"], figures["log_evidence_per_step_se"]
        sums = f"{figures['num_data']:,} sequences, {figures['num_steps']:,} steps"
        table.add_row(
            "log evidence per step",
            f"{figure:.3f} ± {error:.4f}",
            f"nats per step: Σ log p(x) / Σ T, of {sums}",
        )
        mean = f"{figures['mean_log_evidence_per_step']:.3f}"
        table.add_row("mean of log p(x) / T", mean, "nats per step: the mean over sequences")
    if "perplexity" in figures:
        per_token = f"{figures['perplexity']:.2f}, {figures['perplexity_elbo']:.2f}"
        table.add_row("perplexity", per_token, "per token, of log p(x); and of the ELBO, too high")
    if "bits_per_dimension" in figures:
        bits = f"{figures['bits_per_dimension']:.3f}"
        table.add_row("bits per dimension", bits, "−log₂ p(x), by the number of elements of x")
    if "elbo" in figures:
        table.add_row("ELBO", f"{figures['elbo']:.2f}", f"nats per {datum}; the bound on it")
        if "num_steps" in figures:
            per_step = f"{figures['elbo_per_step']:.3f}"
            table.add_row("ELBO per step", per_step, "nats per step: Σ ELBO / Σ T")
            mean = f"{figures['mean_elbo_per_step']:.3f}"
            table.add_row("mean of ELBO / T", mean, "nats per step: the mean over sequences")
    if "gap" in figures:
        gap = f"{figures['gap']:.2f}"
        table.add_row("gap", gap, "log evidence − ELBO: what the posterior misses")
    table.add_row("reconstruction", f"{figures['reconstruction']:.2f}", escape("E_q[log p(x|z)]"))
    if "kl" in figures:
        table.add_row("KL", f"{figures['kl']:.2f}", "from the posterior to the prior")
    for name in (name for name in figures if name.startswith("kl_")):
        site = name.removeprefix("kl_")
        table.add_row(f"KL of {site}", f"{figures[name]:.2f}", "the part of this latent site")
    if "prior_gain" in figures:
        gain = f"{figures['prior_gain']:.2f}"
        table.add_row("prior gain", gain, "nats over the bound with a uniform prior of codes")
    if "codebook_share" in figures:
        share, perplexity = figures["codebook_share"], figures["codebook_perplexity"]
        use = f"{share:.1%} of {figures['num_codes']}"
        table.add_row("codes in use", use, f"perplexity {perplexity:.1f}")
    active = f"{figures['active_units']} of {figures['latent_dim']}"
    table.add_row("active units", active, "latent dimensions in use")
    if "khat_bad_fraction" in figures:
        bad = f"{figures['khat_bad_fraction']:.1%}"
        table.add_row("k̂ bad", bad, f"of the data, above {figures['khat_threshold']:.2f}")
    return table
