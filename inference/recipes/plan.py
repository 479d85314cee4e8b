"""Plans: a run's configuration, and how it is read back from the run's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..common.files import read_json
from ..data.binarization import Binarization
from ..data.csv_format import CsvFormat
from ..data.files import check_path
from ..data.layout import Layout
from ..data.named_datasets import NAMED_DATASETS
from ..data.splits import Split
from ..execution.precision import Precision
from ..training.learning_rates import named_schedule
from ..training.optimizers import named_optimizer
from ..training.run_folder import CONFIG
from .axes import AXES
from .axis import Choice
from .compatibility import check_composition, check_data_kind, holds_sequences
from .composition import Composition
from .likelihoods import likelihood_of
from .registry import find_recipe

BINARY_SETS = ("digits", "mnist", "fashion-mnist", "kmnist")
"""Data sets whose images are almost black and white."""


@dataclass(frozen=True)
class Plan:
    """The configuration of a run: all options of ``latente train`` that determine its numbers.

    Fields left at ``None`` are filled in by :func:`complete`. The choices on the axes are texts, as
    on the command line: ``prior="vamp:components=100"``.
    """

    recipe: str | None = None
    data: str = "digits"
    labels: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    header: bool | None = None
    key: str | None = None
    tokens: str | None = None
    """What the tokens of a text are, ``"characters"`` or ``"words"``."""
    lengths: str | None = None
    """The array of a file that holds the lengths of its sequences."""
    keep_degenerate: bool = False
    scale: float | None = None
    shape: tuple[int, ...] | None = None
    layout: Layout | None = None
    test: float | str = 0.1
    """A fraction, or a file."""
    validation: float = 0.1
    split: str = "random"
    groups: str | None = None
    order: str | None = None
    drop: str | None = None
    """Columns of a table that are not modelled, as in ``id,date``."""
    kinds: str | None = None
    """Kinds of columns in place of those inferred, as in ``age=count,site=categorical``."""
    standardize: bool = False
    levels: str | None = None
    prior: str | None = None
    posterior: str | None = None
    likelihood: str | None = None
    network: str | None = None
    objective: str | None = None
    beta: str | None = None
    """Weight of the KL; ``None``: that of the recipe, else the objective's default."""
    free_bits: float | None = None
    given: str | None = None
    binarize: Binarization | None = None
    latent_dim: int = 2
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers; ``None``: chosen by the size of the data."""
    epochs: int = 50
    batch_size: int | None = None
    learning_rate: float = 1e-3
    schedule: str = "hold-then-fall"
    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    precision: Precision = "float32"


def complete(plan: Plan, *, check_files: bool = True) -> Plan:
    """Fill in the open fields of a plan, and check the plan. No data are read.

    See :func:`fill_axes` for the values that are filled in.

    Args:
        plan: the plan.
        check_files: whether to check that files of data are there.

    Raises:
        FileNotFoundError: if the data are a file that does not exist.
        ValueError: if a name or a parameter is unknown, or parts do not go together.

    >>> plan = complete(Plan(recipe="vampprior", prior="vamp:components=100"))
    >>> plan.prior, plan.posterior, plan.beta, plan.binarize
    ('vamp:components=100', 'diagonal', 'warmup:10', 'dynamic')
    >>> complete(Plan(posterior="point", objective="iwae"))
    Traceback (most recent call last):
    ValueError: the posterior is on one point, which has no density, and the objective iwae needs...
    """
    filled = fill_axes(plan)
    own = AXES["posterior"].parse(find_recipe(filled.recipe or "").posterior)
    composition = compose(filled)
    if own.name == "point" and composition.has_density:
        raise ValueError(
            f"{filled.recipe} is a vae whose posterior is a {own}: for {filled.posterior!r}, train "
            "the recipe vae"
        )
    check_composition(composition)
    named_optimizer(filled.optimizer, weight_decay=filled.weight_decay)
    named_schedule(filled.schedule, filled.epochs, patience=filled.patience)
    CsvFormat(filled.delimiter, filled.decimal, filled.header)  # checks the values
    Split(*(getattr(filled, name) for name in SPLIT_FIELDS))  # likewise
    if filled.latent_dim < 1:
        raise ValueError(f"the latent dimension must be at least 1, got {filled.latent_dim}")
    if composition.levels.name != "one" and (filled.latent_dim != Plan.latent_dim or filled.hidden):
        own = "dim and width" if composition.takes_sequences else "dims and widths"
        raise ValueError(
            "--latent-dim and --hidden are for one latent variable, and --levels "
            f"{composition.levels} has {own} of its own: leave them out"
        )
    if composition.posterior.part.latent_dim and filled.latent_dim != Plan.latent_dim:
        raise ValueError(
            f"the size of the codes is in --posterior {composition.posterior}: leave --latent-dim "
            "out"
        )
    files = files_of(filled)
    if check_files:
        for path in files.values():
            check_path(Path(path))
    check_data_kind(
        composition,
        filled.data,
        labels=filled.labels,
        standardize=filled.standardize,
        shape=filled.shape,
        tokens=filled.tokens,
    )
    return replace(filled, **{name: _resolved(path) for name, path in files.items()})


SPLIT_FIELDS = ("validation", "test", "split", "groups", "order", "seed")
"""Fields of a plan that say how its data are split, in the order of :class:`Split`."""


def files_of(plan: Plan) -> dict[str, str]:
    """The paths of a plan's files of data, by field."""
    fields = {"data": plan.data, "test": plan.test}
    return {
        name: path
        for name, path in fields.items()
        if isinstance(path, str) and path not in NAMED_DATASETS
    }


def fill_axes(plan: Plan) -> Plan:
    """Fill in the axes that a plan leaves open with the choices of its recipe.

    If no recipe is named, it is ``dmm`` for data that are known to be sequences; ``vae`` for images
    that are almost black and white and for plans that name a likelihood; else ``vae-normal``. A
    recipe that has no likelihood takes that of the data, :func:`likelihood_of`. A recipe's ``beta``
    and ``free_bits`` belong to its objective, and its ``binarize`` to its likelihood: they are not
    used with another one.

    Raises:
        ValueError: if the recipe, a likelihood or an objective is unknown.
    """
    recipe = find_recipe(plan.recipe or _recipe_of(plan))
    own = {"likelihood": recipe.likelihood or likelihood_of(plan.data)}
    texts: dict[str, Any] = {
        axis: own.get(axis, getattr(recipe, axis))
        if getattr(plan, axis) is None
        else getattr(plan, axis)
        for axis in ("levels", "prior", "posterior", "likelihood", "network", "objective", "given")
    }
    likelihood = AXES["likelihood"].parse(texts["likelihood"])
    beta, free_bits, binarize = plan.beta, plan.free_bits, plan.binarize
    if AXES["objective"].parse(texts["objective"]).name == _name("objective", recipe.objective):
        beta = recipe.beta if beta is None else beta
        free_bits = recipe.free_bits if free_bits is None else free_bits
    if likelihood.name == _name("likelihood", own["likelihood"]):
        binarize = binarize or recipe.binarize
    if AXES["levels"].parse(texts["levels"]).part.sequences:
        binarize = binarize or "none"  # bits, where there are any, are the data
    return replace(
        plan,
        recipe=recipe.name,
        beta=beta,
        free_bits=free_bits or 0.0,
        binarize=binarize or likelihood.part.binarize,
        **texts,
    )


def _recipe_of(plan: Plan) -> str:
    """The recipe of a plan that names none."""
    if holds_sequences(plan.data):
        return "dmm"
    return "vae" if plan.data in BINARY_SETS or plan.likelihood is not None else "vae-normal"


def _name(axis: str, text: str) -> str:
    return AXES[axis].parse(text).name


def _resolved(data: str) -> str:
    """A data set's name, or the absolute path of a file."""
    return data if data in NAMED_DATASETS else str(Path(data).resolve())


def compose(plan: Plan) -> Composition:
    """Read the choices of a plan on all axes, with the recipe's where the plan has none.

    Raises:
        ValueError: if a name or a parameter is unknown.

    >>> compose(Plan(recipe="iwae", objective="iwae:k=50,gradient=dreg")).make_objective()
    ImportanceWeighted_ELBO(k=50, m=1, gradient=DOUBLY_REPARAMETERIZED)
    """
    filled = fill_axes(plan)
    if filled.binarize not in ("none", "static", "dynamic"):
        raise ValueError(f"binarize must be 'none', 'static' or 'dynamic', got {filled.binarize!r}")

    def choice(axis: str) -> Choice[Any]:
        return AXES[axis].parse(getattr(filled, axis))

    return Composition(
        levels=choice("levels"),
        prior=choice("prior"),
        posterior=choice("posterior"),
        likelihood=choice("likelihood"),
        network=choice("network"),
        objective=choice("objective"),
        beta=None if filled.beta is None else choice("beta"),
        free_bits=filled.free_bits or 0.0,
        given=choice("given"),
        binarize=filled.binarize,
    )


def agrees(plan: Plan, saved: Plan, name: str) -> bool:
    """Whether a field of a plan has the same meaning as that of a saved plan."""
    ours, theirs = getattr(plan, name), getattr(saved, name)
    if name in ("data", "test") and isinstance(ours, str):
        return _resolved(ours) == theirs
    if name in AXES and None not in (ours, theirs):
        return AXES[name].parse(ours) == AXES[name].parse(theirs)
    return ours == theirs


def read_plan(out: str | Path) -> Plan:
    """Read the plan of the run in a folder.

    If a folder is older than an option, the option has its default. Folders of latente 0.1 have a
    recipe and a posterior only; the other axes are the recipe's.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if its ``config.json`` was not written by ``latente train``.
    """
    path = Path(out) / CONFIG
    plan = read_json(path).get("plan")
    names = {field.name for field in fields(Plan)}
    if not isinstance(plan, Mapping) or "recipe" not in plan or set(plan) - names:
        raise ValueError(
            f"{path} holds no plan of a recipe: the run was fitted from Python; load it with "
            "load_run(folder, model=…, guide=…)"
        )
    plan = {**asdict(Plan()), **plan}
    for name in names:
        if not _is_of_kind(name, plan[name]):
            raise ValueError(f"{path} is not a run's: its {name} is {plan[name]!r}")
    sizes = {name: plan[name] for name in ("hidden", "shape") if plan[name] is not None}
    return fill_axes(Plan(**{**plan, **{name: tuple(value) for name, value in sizes.items()}}))


OPTIONAL_TEXTS = (
    "recipe", "delimiter", "decimal", "layout", "groups", "order", "drop", "kinds", "tokens",
    "lengths",
)  # fmt: skip
"""Fields that are a text or ``None``, beside those of the axes."""


def _is_of_kind(name: str, value: Any) -> bool:
    """Whether a value read from JSON has the type of a field."""
    default = getattr(Plan(), name)
    if name in AXES or name in OPTIONAL_TEXTS:
        return value is None or isinstance(value, str)
    if name == "header":
        return value is None or isinstance(value, bool)
    if name == "test":
        return isinstance(value, str | float | int)
    return type(default) not in (str, int) or type(value) is type(default)
