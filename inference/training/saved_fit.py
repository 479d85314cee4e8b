"""A fit in its run folder: started, saved after each epoch, and resumed."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO

from ..common.files import read_json, write_json
from ..data.transform import Transform
from ..data.transform_json import to_json
from ..objectives.objective import Objective
from ..objectives.pyro_objectives import objective_options
from . import checkpoints
from .history import read_history, write_history
from .preparation import Preparation
from .run_folder import CHECKPOINT, CONFIG, METRICS
from .state import State


def open_folder(
    folder: Path, fit: Preparation, config: Mapping[str, Any], *, resume: bool
) -> State:
    """Start a run in a folder, or resume the one that is there.

    Args:
        folder: the run's folder, which is created if it does not exist.
        fit: the fit, into which weights, optimizer and random state of a resumed run are loaded.
        config: the content of ``config.json``; see :func:`describe_fit`.
        resume: whether to resume the run.

    Returns:
        the state of the run.

    Raises:
        TypeError: if JSON cannot hold a value of ``config``; nothing is written then.
        ValueError: if the run in the folder has other settings, another model, or more epochs.
    """
    json.dumps(config)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        (folder / METRICS).unlink(missing_ok=True)  # of a run that never started
        write_json(folder / CONFIG, config)
        save_fit(folder, fit, State())
        return State()
    _check_transform(folder, config)
    state = load_fit(folder, fit)
    if state.epoch > fit.settings.epochs:
        raise ValueError(
            f"{folder} has {state.epoch} epochs done already, more than "
            f"epochs={fit.settings.epochs}"
        )
    write_history(folder / METRICS, state.history)
    write_json(folder / CONFIG, config)
    return state


FITTED = ("columns", "kinds", "divisor", "location", "scale", "label_names", "context_columns")
"""Fields of a transform that must be the same in a resumed run: its weights go by them."""


def _check_transform(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run with data that were transformed in another way."""
    theirs, mine = read_json(folder / CONFIG).get("transform"), config.get("transform")
    if theirs is None or mine is None:
        return
    plain = json.loads(json.dumps(mine))  # as the file has it: lists, not tuples
    for name in FITTED:
        if theirs.get(name) != plain[name]:
            raise ValueError(
                f"{folder} was fitted to data of other {name.replace('_', ' ')}: resume it with "
                "the same data, in the same split"
            )
    if theirs["options"].get("vocabulary") != plain["options"]["vocabulary"]:
        raise ValueError(
            f"{folder} was fitted to text of another vocabulary: resume it with the same text, in "
            "the same split"
        )


def describe_fit(
    fit: Preparation, config: Mapping[str, Any], transform: Transform | None
) -> dict[str, Any]:
    """The content of ``config.json``: the given facts, then those of the fit."""
    return {
        **config,
        **({} if transform is None else {"transform": to_json(transform)}),
        "fit": {**asdict(fit.settings), "objective": _objective_name(fit)},
        "num_data": fit.data.num_data,
        "versions": {"torch": torch.__version__, "pyro": pyro.__version__},
    }


def save_fit(folder: Path, fit: Preparation, state: State) -> None:
    """Write the checkpoint of a fit."""
    tensors, facts = checkpoints.pack(fit.optimizer)
    tensors |= fit.weights
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    facts["average_decay"] = state.average_decay
    facts["skipped_in_a_row"] = state.skipped_in_a_row
    facts |= {"epoch": state.epoch, "best_epoch": state.best_epoch, **_identity(fit)}
    facts["optimizer_groups"] = fit.optimizer_groups
    scheduler = fit.rate_steps.scheduler
    facts["schedule"] = None if scheduler is None else scheduler.state_dict()
    facts["arguments"] = [
        [list(arg.shape), str(arg.dtype).removeprefix("torch.")] for arg in fit.sample
    ]
    facts["objective_options"] = objective_options(fit.objective)
    facts["schedule_start"] = fit.rate_steps.start
    checkpoints.save(folder / CHECKPOINT, tensors, facts)


def load_fit(folder: Path, fit: Preparation) -> State:
    """Read the checkpoint of a fit into its weights, optimizer, scheduler and random state.

    Raises:
        ValueError: if it is of a fit of other settings, or of another model.
    """
    path = folder / CHECKPOINT
    tensors, facts = checkpoints.load(path)
    for name, mine in _identity(fit).items():
        if facts.get(name, ADDED.get(name)) != mine:
            raise ValueError(f"{folder} was run with {name}={facts.get(name)}, not {mine}")
    weights = checkpoints.current_weights(tensors)
    checkpoints.check_weights(fit.weights, weights, str(path))
    _check_groups(folder, fit, facts)
    # A checkpoint of version 0.1 has neither the objective's options nor the schedule's.
    for name, mine in objective_options(fit.objective).items():
        theirs = facts.get("objective_options", {}).get(name, mine)
        if theirs != mine:
            raise ValueError(f"{folder} was run with an objective of {name}={theirs}, not {mine}")
    fit.rate_steps.check_same(facts.get("schedule_start", fit.rate_steps.start), folder)
    checkpoints.restore(fit.weights, weights, str(path))
    checkpoints.unpack(fit.optimizer, tensors, facts)
    fit.rate_steps.load(facts["schedule"])
    history = read_history(folder / METRICS, facts["epoch"])
    best = checkpoints.with_prefix(tensors, "best.")
    device = next(iter(fit.weights.values())).device
    average = checkpoints.with_prefix(tensors, "average.")
    return State(
        facts["epoch"], history, facts["best_epoch"], best,
        {name: value.to(device) for name, value in average.items()}, facts.get("average_decay"),
        facts.get("skipped_in_a_row", 0),
    )  # fmt: skip


ADDED = {"like_lengths": False}
"""Settings that older checkpoints lack, with what they were run with."""


def _objective_name(fit: Preparation) -> str:
    if isinstance(fit.objective, Objective):
        return repr(fit.objective)
    if not isinstance(fit.objective, ELBO):
        return getattr(fit.objective, "__name__", type(fit.objective).__name__)
    name, draws = type(fit.objective).__name__, fit.objective.num_particles
    return name if draws == 1 else f"{name}(num_particles={draws})"


def _identity(fit: Preparation) -> dict[str, Any]:
    """The settings that a resumed run must share with the interrupted one."""
    settings = {name: v for name, v in asdict(fit.settings).items() if name != "epochs"}
    return {
        "num_data": fit.data.num_data,
        **settings,
        "objective": _objective_name(fit),
        "optimizer": type(fit.optimizer).__name__,
    }


def _check_groups(folder: Path, fit: Preparation, facts: Mapping[str, Any]) -> None:
    """Refuse a run whose optimizer had other parameter groups, or other options of these."""
    sizes = [len(group["params"]) for group in facts["groups"]]
    mine = json.loads(json.dumps(fit.optimizer_groups))  # as the file has it: lists, not tuples
    ours = [len(group["parameters"]) for group in mine]
    if sizes != ours:
        raise ValueError(f"{folder} was run with parameter groups of {sizes}, not {ours}")
    # A checkpoint of version 0.1 does not have the options at the start.
    for number, (theirs, group) in enumerate(
        zip(facts.get("optimizer_groups", mine), mine, strict=True)
    ):
        for name in sorted(theirs.keys() & group.keys()):
            if theirs[name] != group[name]:
                raise ValueError(
                    f"{folder} was run with {name}={theirs[name]} in parameter group {number}, "
                    f"not {group[name]}"
                )
