"""The command ``latente train``."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from .messages import fail, say
from .options import (
    BatchSize,
    BetaText,
    BinarizeName,
    ClipNorm,
    CompileName,
    DataName,
    Decimal,
    Delimiter,
    Device,
    Drop,
    Epochs,
    FreeBits,
    GivenText,
    Groups,
    Header,
    Hidden,
    KeepDegenerate,
    Key,
    Kinds,
    LabelColumn,
    LatentDim,
    LayoutName,
    LearningRate,
    LengthsName,
    LevelsText,
    LikelihoodText,
    MovedTo,
    NetworkText,
    ObjectiveText,
    OptimizerName,
    Order,
    Out,
    Patience,
    PosteriorText,
    PrecisionName,
    PriorText,
    Profile,
    RecipeName,
    Resume,
    Scale,
    ScheduleName,
    Seed,
    ShapeText,
    SplitText,
    Standardize,
    TestText,
    Tokens,
    Validation,
    WeightDecay,
)
from .outputs import say_written

if TYPE_CHECKING:
    from ..data.load_data import Data
    from ..recipes.plan import Plan
    from ..training.run import Run


def train(
    context: typer.Context,
    recipe: RecipeName = None,
    data: DataName = "digits",
    labels: LabelColumn = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    header: Header = None,
    key: Key = None,
    tokens: Tokens = None,
    lengths: LengthsName = None,
    kinds: Kinds = None,
    keep_degenerate: KeepDegenerate = False,
    scale: Scale = None,
    shape: ShapeText = None,
    layout: LayoutName = None,
    test: TestText = "0.1",
    validation: Validation = 0.1,
    split: SplitText = "random",
    groups: Groups = None,
    order: Order = None,
    drop: Drop = None,
    standardize: Standardize = False,
    binarize: BinarizeName = None,
    given: GivenText = None,
    levels: LevelsText = None,
    prior: PriorText = None,
    posterior: PosteriorText = None,
    likelihood: LikelihoodText = None,
    network: NetworkText = None,
    objective: ObjectiveText = None,
    beta: BetaText = None,
    free_bits: FreeBits = None,
    latent_dim: LatentDim = 2,
    hidden: Hidden = None,
    epochs: Epochs = 50,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = 1e-3,
    schedule: ScheduleName = "hold-then-fall",
    optimizer: OptimizerName = "adam",
    weight_decay: WeightDecay = 0.0,
    clip_norm: ClipNorm = None,
    patience: Patience = None,
    seed: Seed = 0,
    device: Device = "auto",
    compile: CompileName = "recorded",
    precision: PrecisionName = "float32",
    profile: Profile = False,
    out: Out = None,
    resume: Resume = False,
    moved_to: MovedTo = None,
) -> None:
    """Fit a recipe to data, into a run folder; options override the choices of the recipe.

    The folder holds config.json, checkpoint.safetensors and metrics.csv (nats per datum, a row an
    epoch). One that holds a run already is left alone, unless --resume continues it.
    """
    from ..recipes.plan import complete, read_plan
    from ..recipes.train import train as train_plan

    plan = _plan_of(context)
    if moved_to is not None and not resume:
        raise ValueError("--moved-to is for the data of a run to --resume: leave it out")
    if not resume or out is None:
        plan = complete(plan, check_files=not resume)
    folder = out or Path("runs") / _folder_name(plan)
    if resume:
        plan = _resumed(context, plan, read_plan(folder))
    try:
        run = train_plan(
            plan,
            folder,
            device=device,
            compile=compile,  # pyright: ignore[reportArgumentType] # checked when fitted
            profile=profile,
            resume=resume,
            moved_to=moved_to,
            on_data=_say_how_read,
        )
    except KeyboardInterrupt:
        fail(_how_to_continue(folder), code=130)
    _report(run, folder)


def _plan_of(context: typer.Context) -> "Plan":
    """The plan of the options: each field is the option of that name."""
    from ..recipes.plan import Plan

    given = {name: context.params[name] for name in Plan.__dataclass_fields__}
    read = {
        "hidden": _whole_numbers("hidden", "widths such as 400,400", given["hidden"]),
        "shape": _whole_numbers("shape", "sizes such as 28,28", given["shape"]),
        "delimiter": NAMED_DELIMITERS.get(given["delimiter"], given["delimiter"]),
        "test": _fraction_or_file(given["test"]),
    }
    return Plan(**{**given, **read})


def _say_how_read(data: "Data") -> None:
    """Print how a file was read, if there is a note on it, and the kinds of a table's columns."""
    from ..data.column import describe_columns

    if data.note:
        say(f"{data.name}: {data.note}")
    if data.transform.kinds:
        say(describe_columns(data.transform.kinds))


def _report(run: "Run", folder: Path) -> None:
    """Print the result of a fit, and the commands to run next."""
    from ..training.history import describe_epoch

    row = run.history[(run.best_epoch or run.epoch) - 1]
    kept = f", kept epoch {run.best_epoch}" if run.best_epoch else ""
    if run.profile:
        Console().print(_tabulate_profile(dict(run.profile)))
    if run.note:
        say(f"steps could not be recorded, so they were slower: {run.note}", "yellow")
    if run.stopped:
        say(f"stopped early: {run.stopped}")
    say(f"{run.epoch} epoch{'s' * (run.epoch > 1)}{kept}: {describe_epoch(row)} per datum")
    say_written([folder], folder, "evaluate", "diagnose", "plot")


def _tabulate_profile(times: dict[str, float]) -> Table:
    table = Table(title="One step", title_justify="left")
    table.add_column("part")
    table.add_column("milliseconds", justify="right")
    table.add_column("share", justify="right")
    for part, milliseconds in times.items():
        share = f"{milliseconds / times['step']:.0%}"
        table.add_row(part, f"{milliseconds:.3f}", share, end_section=part == "overhead")
    return table


NAMED_DELIMITERS = {"tab": "\t", "space": " "}
"""Delimiters that have a name on the command line."""

PREFIXED = ("beta", "free_bits", "given", "binarize")
"""Choices whose texts are not names of parts: a folder's name has their options too."""


def _folder_name(plan: "Plan") -> str:
    """A folder name: data, recipe, the choices that differ from the recipe's, latent dimension."""
    from ..recipes.plan import Plan, agrees, fill_axes

    plain = fill_axes(Plan(recipe=plan.recipe, data=plan.data))
    names = (
        "levels",
        "prior",
        "posterior",
        "likelihood",
        "network",
        "objective",
        "beta",
        "free_bits",
    )
    words = [Path(plan.data).stem, str(plan.recipe)]
    for name in (*names, "given", "binarize"):
        if not agrees(plan, plain, name):
            prefix = name.replace("_", "-") if name in PREFIXED else ""
            words += [prefix, re.sub(r"[^\w.]+", "-", str(getattr(plan, name)))]
    if plan.levels in (None, "one"):
        words.append(f"k{plan.latent_dim}")
    return "-".join(filter(None, words))


def _how_to_continue(folder: Path) -> str:
    """What a run that was interrupted has kept, and the command that continues it."""
    from ..training.checkpoints import load
    from ..training.run_folder import CHECKPOINT

    try:
        epoch = load(folder / CHECKPOINT)[1]["epoch"]
    except (FileNotFoundError, ValueError):
        return "latente: stopped before the first epoch; nothing was kept"
    return (
        f"latente: stopped; {folder} keeps epoch {epoch}. "
        f"Continue with: latente train --out {folder} --resume"
    )


def _whole_numbers(option: str, what: str, text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"--{option} takes {what}, not {text!r}") from None


def _fraction_or_file(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _resumed(context: typer.Context, given: "Plan", saved: "Plan") -> "Plan":
    """The saved plan, with the epochs that are given; all other options must agree with it."""
    from ..recipes.plan import agrees

    for name in given.__dataclass_fields__:
        if name == "epochs" or not _is_given(context, name):
            continue
        if not agrees(given, saved, name):
            raise ValueError(
                f"--resume continues with {name} {getattr(saved, name)!r}, not "
                f"{context.params[name]!r}: leave it out, or start a new run in another folder"
            )
    return replace(saved, epochs=given.epochs) if _is_given(context, "epochs") else saved


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
