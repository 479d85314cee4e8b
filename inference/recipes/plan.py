"""Plans: what ``latente train`` is told of a run, from the data to the fitted pair and back."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...guides import Amortized
from ...models import VAE, VampPrior
from ..common.files import read_json
from ..data.contexts import quadrants
from ..data.datasets import Data, load_data
from ..data.files import check_path
from ..data.named_datasets import NAMED_DATASETS
from ..data.rows import BLOCK, Rows
from ..execution.precision import Precision
from ..execution.recorded import Compile
from ..pairs.programs import Program, modules
from ..training import checkpoints
from ..training.device import resolve_device
from ..training.fit import fit
from ..training.history import read_history
from ..training.learning_rates import hold_then_fall
from ..training.run import Run
from ..training.run_folder import CHECKPOINT, CONFIG, METRICS, check_folder
from .posteriors import find_posterior
from .registry import find_recipe

BINARY_SETS = ("digits", "mnist", "fashion-mnist", "kmnist")


@dataclass(frozen=True)
class Plan:
    """All that ``latente train`` is told, and that makes its run what it is.

    Fields left at ``None`` are filled in by :func:`complete`.
    """

    recipe: str | None = None
    data: str = "digits"
    labels: str | None = None
    standardize: bool = False
    posterior: str | None = None
    latent_dim: int = 2
    hidden: tuple[int, ...] | None = None
    epochs: int = 50
    batch_size: int | None = None
    learning_rate: float = 1e-3
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    precision: Precision = "float32"


def complete(plan: Plan) -> Plan:
    """Choose the recipe that fits the data, where none was named, and check what was said."""
    recipe = plan.recipe or ("vae" if plan.data in BINARY_SETS else "vae-normal")
    own = find_recipe(recipe).posterior
    posterior = plan.posterior or own
    find_posterior(posterior)
    if own == "point" and posterior != own:
        raise ValueError(
            f"{recipe} is a vae whose posterior is a {own}: for {posterior!r}, train the recipe vae"
        )
    if plan.latent_dim < 1:
        raise ValueError(f"the latent dimension must be at least 1, got {plan.latent_dim}")
    data = plan.data
    if data not in NAMED_DATASETS:
        check_path(Path(data))
        data = str(Path(data).resolve())
    return replace(plan, recipe=recipe, posterior=posterior, data=data)


def load_plan_data(plan: Plan, out: Path | None = None) -> Data:
    """The data a plan names, binarized as its recipe says.

    Args:
        out: folder of the plan's run; the data must be those that it was fitted to.

    Raises:
        ValueError: if they are others: their split, and so what is test data, would be too.
    """
    recipe = find_recipe(plan.recipe or "vae")
    data = load_data(
        plan.data,
        labels=plan.labels,
        binarize=recipe.binarize,
        standardize=plan.standardize,
        given=partial(quadrants, num=1) if recipe.given == "quadrant" else recipe.given,
        seed=plan.seed,
    )
    digest = None if out is None else read_json(out / CONFIG).get("data_digest")
    if digest is not None and digest != data.digest():
        raise ValueError(
            f"{plan.data} holds other data now than when {out} was fitted to it: put the former "
            "data back, or fit a new run"
        )
    return data


def train(
    plan: Plan,
    out: Path,
    *,
    device: str = "auto",
    compile: Compile = "recorded",
    profile: bool = False,
    resume: bool = False,
    show_progress: bool = True,
) -> Run:
    """Load a plan's data, build its pair from its seed, and fit it into a run folder.

    The learning rate is held, then falls to zero (:func:`hold_then_fall`). The decoder's last
    bias starts at what reproduces the training mean (as in Burda et al. 2016), so that
    training begins from the best constant rather than from noise.
    """
    plan = complete(plan)
    check_folder(out, resume=resume)
    resolve_device(device)
    data = load_plan_data(plan, out if resume else None)
    context, num_classes = _count(plan, data)
    model, guide = _build(plan, tuple(data.event_shape), context, num_classes)
    model.start_at_mean(data.train[:BLOCK])
    _start_prior(model, data.train)
    largest = data.train[:BLOCK].abs().max().item()
    if largest > 100 and not plan.standardize:
        warnings.warn(f"the data reach {largest:g}: standardize them to fit well", stacklevel=2)
    facts: dict[str, Any] = {"event_shape": list(data.event_shape), "data_digest": data.digest()}
    facts |= {"context": context, "num_classes": num_classes}
    if data.location is not None and data.scale is not None:
        facts |= {"location": data.location.tolist(), "scale": data.scale.tolist()}
    objective = find_recipe(plan.recipe or "vae").objective
    return fit(
        model,
        guide,
        data,
        objective=None if objective is None else objective(),
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        clip_norm=plan.clip_norm,
        schedule=hold_then_fall(plan.epochs),
        patience=plan.patience,
        seed=plan.seed,
        device=device,
        compile=compile,
        precision=plan.precision,
        profile=profile,
        out=out,
        resume=resume,
        config={"plan": asdict(plan), **facts},
        show_progress=show_progress,
    )


def _count(plan: Plan, data: Data) -> tuple[int, int]:
    """How many numbers a conditional model is given, and how many values coded data take."""
    recipe = find_recipe(plan.recipe or "vae")
    if recipe.given == "labels":
        return _num_classes(data, (data.train_labels, data.validation_labels, data.test_labels)), 0
    context = sum(math.prod(part.shape[1:]) for part in data.train_context)
    parts = data.train, data.validation, data.test
    return context, _num_classes(data, parts) if recipe.coded else 0


def _num_classes(data: Data, parts: tuple[Rows | None, ...]) -> int:
    largest = max(
        int(part[start : start + BLOCK].max())
        for part in parts
        if part is not None
        for start in range(0, len(part), BLOCK)
    )
    if not 1 <= largest < MOST_CLASSES:
        raise ValueError(
            f"the largest code of {data.name} is {largest}, where classes are numbered from 0 to "
            f"at most {MOST_CLASSES - 1}"
        )
    return largest + 1


MOST_CLASSES = 1000
"""Above this, whole numbers are taken for counts or names, not for classes."""


def _start_prior(model: VAE, rows: Rows) -> None:
    """Let the pseudo-inputs of a VampPrior start at data."""
    if isinstance(model.prior, VampPrior):
        inputs = model.prior.pseudo_inputs
        chosen = rows[torch.arange(len(inputs)) % len(rows)]
        with torch.no_grad():
            inputs.copy_(chosen)


def _build(
    plan: Plan, event_shape: tuple[int, ...], context: int, num_classes: int
) -> tuple[VAE, Amortized]:
    hidden = plan.hidden or ((400, 400) if math.prod(event_shape) > 256 else (200, 200))
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        recipe = find_recipe(plan.recipe or "vae")
        return recipe.build(
            event_shape,
            plan.latent_dim,
            hidden,
            plan.posterior,
            context=context,
            num_classes=num_classes,
        )


def read_plan(out: str | Path) -> Plan:
    """The plan of the run in a folder.

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
    plan = {**asdict(Plan()), **plan}  # a run of before an option was there has its default
    kinds = {field.name: type(getattr(Plan(), field.name)) for field in fields(Plan)}
    for name, kind in kinds.items():
        if kind in (str, int) and type(plan[name]) is not kind:
            raise ValueError(f"{path} is not a run's: its {name} is {plan[name]!r}")
    hidden = plan["hidden"]
    read = Plan(**{**plan, "hidden": None if hidden is None else tuple(hidden)})
    return replace(read, posterior=read.posterior or find_recipe(plan["recipe"]).posterior)


def load_run(
    out: str | Path,
    *,
    model: Program | None = None,
    guide: Program | None = None,
    device: str = "cpu",
) -> Run:
    """Load a fitted pair from its folder, with the weights it is to be used with.

    Args:
        out: the run's folder.
        model: the model whose weights these are, where the run was fitted from Python; the
            recipe's own, rebuilt, if not given.
        guide: its guide.
        device: where the pair is put.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the checkpoint is truncated or of another model, or there is no such
            device.
    """
    out, where = Path(out), resolve_device(device)
    config = read_json(out / CONFIG)
    path = out / CHECKPOINT
    tensors, facts = checkpoints.load(path)
    if facts["epoch"] == 0:
        raise ValueError(f"{out} holds a run without an epoch done: resume it first")
    if (model is None) != (guide is None):
        raise ValueError("give both model and guide, or neither")
    if model is None or guide is None:
        plan = read_plan(out)
        if not isinstance(config.get("event_shape"), list):
            raise ValueError(f"{out / CONFIG} is not a run's: it gives no event_shape")
        sizes = config.get("context", 0), config.get("num_classes", 0)
        model, guide = _build(plan, tuple(config["event_shape"]), *sizes)
    weights = checkpoints.kept_weights(tensors)
    stored = [name for name in weights if name.startswith("param.")]
    if stored:
        raise ValueError(
            f"{path} holds parameters of Pyro's store ({stored[0]}): resume the run with fit "
            "to use them"
        )
    checkpoints.restore(checkpoints.weights(model, guide, {}), weights, str(path))
    for module in modules(model, guide).values():
        module.to(where).eval()
    history = read_history(out / METRICS, facts["epoch"])
    best = facts["best_epoch"] if checkpoints.with_prefix(tensors, "best.") else None
    return Run(model, guide, history, facts["epoch"], best, out, config)
