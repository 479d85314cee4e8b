"""Load a run: the fitted pair from its folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from ...models import ColumnFamily
from ..common.files import read_json
from ..data.fitted_transform import remember_transform
from ..data.transform_json import from_json
from ..pairs.parameters import parameters, place, placement, stated_parameters
from ..pairs.programs import Program, StoredProgram, modules, private_store
from ..training import checkpoints
from ..training.device import resolve_device
from ..training.history import read_history
from ..training.opened import open_fit
from ..training.run import Run
from ..training.run_folder import CHECKPOINT, CONFIG, METRICS
from .build import build_planned, planned_sizes
from .networks import as_before_dims
from .plan import read_plan


def load_run(
    out: str | Path,
    *,
    model: Program | None = None,
    guide: Program | None = None,
    data: Any = None,
    device: str = "cpu",
) -> Run:
    """Load a fitted pair from its folder, with its final weights.

    Args:
        out: the run's folder.
        model: the model, for a run that was fitted from Python; if not given, the pair is rebuilt
            from the plan of ``latente train``.
        guide: the guide of that model.
        data: some rows of the data, as for :func:`fit`. Parameters of ``pyro.param`` statements,
            and those of an autoguide, exist only when the pair has been called, which is done here,
            on ones of the shape of a batch if no data are given.
        device: the device of the pair.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the checkpoint is truncated or of another model, or the device does not
            exist; or if the pair must be called, and cannot be on ones.
    """
    out, where = Path(out), resolve_device(device)
    config = read_json(out / CONFIG)
    path = out / CHECKPOINT
    tensors, facts = checkpoints.load(path)
    if facts["epoch"] == 0:
        raise ValueError(f"{out} holds a run with no epoch done: resume it first")
    if (model is None) != (guide is None):
        raise ValueError("give both model and guide, or neither")
    if model is None or guide is None:
        model, guide = _rebuild(out, config)
    weights = checkpoints.kept_weights(tensors)
    with private_store() as store:
        named = _call_for_parameters(model, guide, path, weights, data, facts.get("arguments"))
        checkpoints.restore(checkpoints.weights(model, guide, named), weights, str(path))
    for value in named.values():
        value.data = value.data.to(where)
    for module in modules(model, guide).values():
        module.to(where).eval()
    if any(name.startswith("param.") for name in named):
        model, guide = StoredProgram(model, store), StoredProgram(guide, store)
    history = read_history(out / METRICS, facts["epoch"])
    best = facts["best_epoch"] if checkpoints.with_prefix(tensors, "best.") else None
    transform = from_json(config["transform"]) if "transform" in config else None
    remember_transform(guide, transform)
    average = checkpoints.with_prefix(tensors, "average.")
    return Run(
        model, guide, history, facts["epoch"], best, out, config, transform=transform,
        average={name: value.to(where) for name, value in average.items()},
    )  # fmt: skip


def _call_for_parameters(
    model: Program,
    guide: Program,
    path: Path,
    saved: Mapping[str, Tensor],
    data: Any,
    shapes: list[tuple[list[int], str]] | None,
) -> dict[str, Tensor]:
    """Call a pair that lacks some of the saved parameters; those that it has then, by name."""
    present = checkpoints.weights(model, guide, {})
    if not saved.keys() - present.keys():
        return {}
    device, dtype = placement(model, guide)
    try:
        # The values of the ones, and the draws, do not matter: all values come from the file.
        with torch.random.fork_rng(), pyro.validation_enabled(False):
            if data is None:
                args = tuple(
                    torch.ones(shape, dtype=getattr(torch, name), device=device)
                    for shape, name in shapes or ()
                )
            else:
                opened = open_fit(model, guide, data, None, None, 0)
                model, guide, rows = opened.model, opened.guide, opened.rows
                num_rows = len(rows[0]) if shapes is None else min(len(rows[0]), shapes[0][0][0])
                args = place(tuple(part[:num_rows] for part in rows), device, dtype)
            stated_parameters(model, guide, args)  # makes those that modules have then
            return parameters(model, guide, args)
    except Exception as error:  # a program may fail in any way
        if present.keys() - saved.keys():
            checkpoints.check_weights(present, saved, str(path))
        missing = min(saved.keys() - present.keys())
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{missing} of {path} exists only when the pair has been called, and it cannot be "
            f"called on {'these data' if data is not None else 'ones'} ({reason[0]}): give "
            "load_run rows of the data of the fit, as data=x"
        ) from error


def _rebuild(out: Path, config: Mapping[str, Any]) -> tuple[Program, Program]:
    """Rebuild the pair of a folder's plan, without its weights."""
    plan = read_plan(out)
    if not isinstance(config.get("event_shape"), list):
        raise ValueError(f"{out / CONFIG} is not a run's: it gives no event_shape")
    context, num_classes = config.get("context", 0), config.get("num_classes", 0)
    columns = tuple(ColumnFamily(**column) for column in config.get("column_families", ()))
    shape = tuple(config["event_shape"])
    plan = replace(plan, network=as_before_dims(plan.network or "mlp", shape))
    sizes = planned_sizes(plan, shape, context, num_classes, columns)
    return build_planned(plan, sizes)
