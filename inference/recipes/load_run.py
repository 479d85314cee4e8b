"""Load a run: the fitted pair from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.files import read_json
from ..pairs.programs import Program, modules
from ..training import checkpoints
from ..training.device import resolve_device
from ..training.history import read_history
from ..training.run import Run
from ..training.run_folder import CHECKPOINT, CONFIG, METRICS
from .build import build_planned, planned_sizes
from .plan import read_plan


def load_run(
    out: str | Path,
    *,
    model: Program | None = None,
    guide: Program | None = None,
    device: str = "cpu",
) -> Run:
    """Load a fitted pair from its folder, with its final weights.

    Args:
        out: the run's folder.
        model: the model, for a run that was fitted from Python; if not given, the pair is rebuilt
            from the plan of ``latente train``.
        guide: the guide of that model.
        device: the device of the pair.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the checkpoint is truncated or of another model, or the device does not
            exist.
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


def _rebuild(out: Path, config: Mapping[str, Any]) -> tuple[Program, Program]:
    """Rebuild the pair of a folder's plan, without its weights."""
    plan = read_plan(out)
    if not isinstance(config.get("event_shape"), list):
        raise ValueError(f"{out / CONFIG} is not a run's: it gives no event_shape")
    context, num_classes = config.get("context", 0), config.get("num_classes", 0)
    sizes = planned_sizes(plan, tuple(config["event_shape"]), context, num_classes)
    return build_planned(plan, sizes)
