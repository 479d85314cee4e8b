"""The command ``latente``."""

import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .options import (
    BatchSize,
    ClipNorm,
    CompileName,
    DataName,
    Device,
    DrawSeed,
    Epochs,
    Hidden,
    LabelColumn,
    LatentDim,
    LearningRate,
    Out,
    Patience,
    PosteriorName,
    PrecisionName,
    Profile,
    RecipeName,
    Resume,
    RunFolder,
    Seed,
    Standardize,
)

app = typer.Typer(
    name="latente",
    help="Fit deep latent-variable models, and judge whether their posteriors can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _fail(message: str, code: int = 2) -> NoReturn:
    _say(message, "red")
    raise typer.Exit(code)


def _say(message: str, style: str | None = None) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(message, markup=False, style=style)


def _as_options(message: str) -> str:
    """Call by its option what an error calls by its Python name."""
    return re.sub(
        r"(?<![\w-])(batch_size|num_samples|num_data|clip_norm|learning_rate|latent_dim)\b(?!=)",
        lambda match: "--" + match[0].replace("_", "-"),
        message,
    )


def _one_line(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can mend into one line and exit code 2; all else stays a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"latente: {message}", "yellow")
            try:
                command(*args, **kwargs)
            except (ValueError, OSError, FloatingPointError) as error:
                _fail(f"latente: {_as_options(' '.join(str(error).split()))}")

    return wrapped


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"latente {metadata.version('latente')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    pass


@app.command()
@_one_line
def train(
    context: typer.Context,
    recipe: RecipeName = None,
    data: DataName = "digits",
    labels: LabelColumn = None,
    standardize: Standardize = False,
    posterior: PosteriorName = None,
    latent_dim: LatentDim = 2,
    hidden: Hidden = None,
    epochs: Epochs = 50,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = 1e-3,
    clip_norm: ClipNorm = None,
    patience: Patience = None,
    seed: Seed = 0,
    device: Device = "auto",
    compile: CompileName = "recorded",
    precision: PrecisionName = "float32",
    profile: Profile = False,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Fit a recipe to data, into a run folder."""
    from ..recipes.plan import Plan, complete, read_plan
    from ..recipes.plan import train as train_plan
    from ..training.history import describe_epoch

    plan = complete(
        Plan(
            recipe=recipe,
            data=data,
            labels=labels,
            standardize=standardize,
            posterior=posterior,
            latent_dim=latent_dim,
            hidden=_widths(hidden),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            clip_norm=clip_norm,
            patience=patience,
            seed=seed,
            precision=precision,  # pyright: ignore[reportArgumentType] # checked when fitted
        )
    )
    folder = out or Path("runs") / _folder_name(plan)
    if resume:
        plan = _resumed(context, plan, read_plan(folder))
    try:
        run = train_plan(
            plan,
            folder,
            device=device,
            compile=compile,  # pyright: ignore[reportArgumentType]
            profile=profile,
            resume=resume,
        )
    except KeyboardInterrupt:
        _fail(_how_to_go_on(folder), code=130)
    row = run.history[(run.best_epoch or run.epoch) - 1]
    kept = f", kept epoch {run.best_epoch}" if run.best_epoch else ""
    if run.profile:
        Console().print(_profile_table(dict(run.profile)))
    if run.note:
        _say(f"steps ran plainly, not from a recording: {run.note}", "yellow")
    _say(
        f"{run.epoch} epochs{kept}: {describe_epoch(row)} per datum\n"
        f"run folder: {folder}\n"
        f"next: latente evaluate {folder}; latente diagnose {folder}; latente plot {folder}"
    )


def _profile_table(times: dict[str, float]) -> Table:
    table = Table(title="One step", title_justify="left")
    table.add_column("part")
    table.add_column("milliseconds", justify="right")
    table.add_column("share", justify="right")
    for part, milliseconds in times.items():
        share = f"{milliseconds / times['step']:.0%}"
        table.add_row(part, f"{milliseconds:.3f}", share, end_section=part == "overhead")
    return table


def _folder_name(plan: Any) -> str:
    from ..recipes.registry import find_recipe

    family = "" if plan.posterior == find_recipe(plan.recipe).posterior else f"-{plan.posterior}"
    return f"{Path(plan.data).stem}-{plan.recipe}{family}-k{plan.latent_dim}"


def _how_to_go_on(folder: Path) -> str:
    from ..training.checkpoints import load
    from ..training.run_folder import CHECKPOINT

    try:
        epoch = load(folder / CHECKPOINT)[1]["epoch"]
    except (FileNotFoundError, ValueError):
        return "latente: stopped before anything was fitted; nothing was kept"
    return (
        f"latente: stopped; {folder} keeps epoch {epoch}. "
        f"Go on with: latente train --out {folder} --resume"
    )


def _widths(hidden: str | None) -> tuple[int, ...] | None:
    try:
        return None if hidden is None else tuple(int(width) for width in hidden.split(","))
    except ValueError:
        raise ValueError(f"--hidden takes widths such as 400,400, not {hidden!r}") from None


def _resumed(context: typer.Context, said: Any, saved: Any) -> Any:
    """The saved plan, with more epochs if so asked; whatever else was said must agree with it."""
    for name, parameter in context.params.items():
        if (
            not _was_said(context, name)
            or not hasattr(saved, name)
            or name == "epochs"
            or parameter is None
        ):
            continue
        if getattr(said, name) != getattr(saved, name):
            raise ValueError(
                f"--resume goes on with {name}={getattr(saved, name)}, not {parameter}: leave it "
                "out, or begin a new run in another folder"
            )
    return replace(saved, epochs=said.epochs) if _was_said(context, "epochs") else saved


def _was_said(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
@_one_line
def evaluate(
    folder: RunFolder,
    num_samples: Annotated[
        int, typer.Option(help="Importance samples per datum; 2200 give k̂ its full threshold.")
    ] = 1000,
    seed: DrawSeed = 0,
    device: Device = "auto",
) -> None:
    """Evidence, bound and posterior health on the test data; writes DIR/evaluation.json."""
    from ..common.files import write_json
    from ..evaluation.metrics import describe_posterior
    from ..evaluation.metrics import evaluate as evaluate_pair
    from ..recipes.plan import load_plan_data, load_run, read_plan
    from ..training.run_folder import EVALUATION

    plan = read_plan(folder)
    run = load_run(folder, device=device)
    data = load_plan_data(plan, folder)
    figures = evaluate_pair(
        run.model,
        run.guide,
        data.rows("test"),
        num_samples=num_samples,
        seed=seed,
        show_progress=True,
    )
    write_json(folder / EVALUATION, figures)
    console = Console()
    units = ", in standardized units" if plan.standardize else ""
    console.print(_table(figures, f"{folder}: {figures['num_data']} test data{units}"))
    if "khat_bad_fraction" in figures:
        console.print(describe_posterior(figures), highlight=False)


def _table(figures: dict[str, float], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("what it is")
    if "log_evidence" in figures:
        evidence = f"{figures['log_evidence']:.2f} ± {figures['log_evidence_se']:.3f}"
        samples = f"log p(x), {figures['num_samples']:,} importance samples"
        table.add_row("log evidence", evidence, f"nats per datum; {samples}, ± their error")
    if "bits_per_dimension" in figures:
        bits = f"{figures['bits_per_dimension']:.3f}"
        table.add_row("bits per dimension", bits, "−log₂ p(x), by the number of elements of x")
    if "elbo" in figures:
        table.add_row("ELBO", f"{figures['elbo']:.2f}", "nats per datum; the bound on it")
        gap = f"{figures['gap']:.2f}"
        table.add_row("gap", gap, "log evidence − ELBO: what the posterior misses")
    table.add_row("reconstruction", f"{figures['reconstruction']:.2f}", escape("E_q[log p(x|z)]"))
    if "kl" in figures:
        table.add_row("KL", f"{figures['kl']:.2f}", "from the posterior to the prior")
    active = f"{figures['active_units']} of {figures['latent_dim']}"
    table.add_row("active units", active, "latent dimensions in use")
    if "khat_bad_fraction" in figures:
        bad = f"{figures['khat_bad_fraction']:.1%}"
        table.add_row("k̂ bad", bad, f"of the data, above {figures['khat_threshold']:.2f}")
    return table


@app.command()
@_one_line
def diagnose(
    folder: RunFolder,
    num_data: Annotated[int, typer.Option(help="Test data to look at, at most.")] = 1000,
    num_samples: Annotated[int, typer.Option(help="Importance samples per datum.")] = 1000,
    simulations: Annotated[int, typer.Option(help="Data simulated for calibration.")] = 1000,
    seed: DrawSeed = 0,
    device: Device = "auto",
) -> None:
    """Can the posterior be trusted? Writes a page, DIR/diagnosis/report.html, and its figures."""
    from ..diagnostics.diagnosis import Budget
    from ..diagnostics.diagnosis import diagnose as diagnose_pair
    from ..recipes.plan import load_plan_data, load_run, read_plan

    run = load_run(folder, device=device)
    data = load_plan_data(read_plan(folder), folder)
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data to look at")
    budget = Budget(num_data=num_data, num_samples=num_samples, simulations=simulations)
    diagnosis = diagnose_pair(
        run.model, run.guide, data, budget=budget, seed=seed, show_progress=True
    )
    Console(highlight=False).print(diagnosis.verdict, markup=False)
    typer.echo(str(diagnosis.save(folder / "diagnosis")[0]))


@app.command()
@_one_line
def plot(folder: RunFolder) -> None:
    """Pictures of a run: training curve, reconstructions, samples, latent space, interpolation."""
    from ..common.plotting import save_figures
    from ..recipes.plan import load_plan_data, load_run, read_plan
    from ..reporting.run_figures import plot_all
    from ..training.run_folder import FIGURES

    run, data = load_run(folder), load_plan_data(read_plan(folder), folder)
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data to draw")
    labels = data.test_labels
    if labels is not None and data.label_names:
        labels = [data.label_names[code] for code in labels.tolist()]
    figures = plot_all(run.model, run.guide, data.rows("test"), labels=labels, history=run.history)
    for path in save_figures(figures, folder / FIGURES):
        typer.echo(str(path))


@app.command()
@_one_line
def sample(
    folder: RunFolder,
    num: Annotated[int, typer.Option(help="How many.")] = 64,
    seed: DrawSeed = 0,
) -> None:
    """Draw from the model: DIR/samples.npy has draws of x, DIR/figures/sampled.png their means."""
    import numpy as np

    from ..common.plotting import save_figures
    from ..recipes.plan import load_plan_data, load_run, read_plan
    from ..reporting.run_figures import plot_samples
    from ..simulation.predictive import sample_prior
    from ..training.run_folder import FIGURES

    run = load_run(folder)
    like: Any = np.zeros((1, *run.config["event_shape"]), dtype=np.float32)
    if run.config.get("context"):  # a conditional model is given what the test data are
        like = load_plan_data(read_plan(folder), folder).rows("test")
    drawn = sample_prior(run.model, run.guide, num, like, seed=seed)[1].numpy()
    if "scale" in run.config:  # back to the data's own units
        drawn = drawn * np.asarray(run.config["scale"]) + np.asarray(run.config["location"])
    np.save(folder / "samples.npy", drawn)
    figure = plot_samples(run.model, run.guide, like, num=num, seed=seed)
    for path in [*save_figures({"sampled": figure}, folder / FIGURES), folder / "samples.npy"]:
        typer.echo(str(path))


@app.command()
def recipes() -> None:
    """List what can be fitted, and the posteriors to fit it with, each with its paper."""
    from ..recipes.posteriors import POSTERIOR_FAMILIES
    from ..recipes.registry import RECIPES

    for kind, known in (("recipe", RECIPES), ("--posterior", POSTERIOR_FAMILIES)):
        table = Table(kind, "what it is", "paper")
        table.columns[0].no_wrap = True
        for part in known.values():
            table.add_row(part.name, part.summary, part.paper)
        Console().print(table)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
