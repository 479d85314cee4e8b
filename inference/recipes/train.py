"""Train a plan into a run folder."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ...models import (
    VAE,
    AutoregressiveLikelihood,
    HalfLabelled,
    Hierarchy,
    RecurrentLikelihood,
    StateSpaceModel,
    VampPrior,
)
from ..data.load_data import Data
from ..data.rows import BLOCK_ROWS, Rows
from ..execution.recorded import Compile
from ..training.device import resolve_device
from ..training.fit import fit
from ..training.learning_rates import named_schedule
from ..training.optimizers import named_optimizer
from ..training.run import Run
from ..training.run_folder import check_folder
from .build import build_planned, measure_sizes
from .networks import as_before_dims
from .plan import Plan, complete, compose
from .plan_data import find_plan_data, relative_paths
from .sizes import Sizes
from .values import check_values


def train(
    plan: Plan,
    out: Path,
    *,
    device: str = "auto",
    compile: Compile = "recorded",
    profile: bool = False,
    resume: bool = False,
    moved_to: Path | None = None,
    on_data: Callable[[Data], None] | None = None,
    show_progress: bool = True,
) -> Run:
    """Load a plan's data, build its pair from its seed, and fit it into a run folder.

    The learning rate is held, then falls to zero (:func:`hold_then_fall`), unless the plan names
    another schedule. The decoder's last bias starts at the value that reproduces the training mean
    (as in Burda et al. 2016), so that training starts from the best constant, and not from noise;
    but a PixelCNN, which mixes the decoder's features with pixels, has no such bias. Batches of
    sequences are of like lengths.

    Args:
        plan: the configuration; :func:`complete` fills in what it leaves open.
        out: the run's folder.
        device: ``"auto"`` takes CUDA where there is one.
        compile: how steps are run; see :func:`fit`.
        profile: measure the time of the parts of a step, at the end.
        resume: continue the run in the folder.
        moved_to: where the file of a resumed run's data is now.
        on_data: called with the data before the fit starts.
        show_progress: show the progress of the fit.

    Raises:
        ValueError: if the plan is refused, before data are read; or if its data cannot be used.
        FileExistsError: if the folder holds a run and ``resume`` is not set.
    """
    plan = complete(plan, check_files=not resume)
    check_folder(out, resume=resume)
    resolve_device(device)
    plan, data = find_plan_data(plan, out if resume else None, moved_to)
    if on_data is not None:
        on_data(data)
    check_values(compose(plan), data)
    sizes = measure_sizes(plan, data, data.transform.kinds)
    network = plan.network or "mlp"
    if resume:
        network = as_before_dims(network, sizes.event_shape)
    model, guide = build_planned(replace(plan, network=network), sizes)
    generative: Any = model.model if isinstance(model, HalfLabelled) else model
    # A network that sees other elements of x has no bias of z's own to start at their mean.
    if not isinstance(generative.likelihood, AutoregressiveLikelihood | RecurrentLikelihood):
        generative.start_at_mean(*(part[:BLOCK_ROWS] for part in _mean_rows(data)))
    _start_at_data(generative, data.train)
    return fit(
        model,
        guide,
        data,
        objective=compose(plan).objective_for(data),
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        like_lengths=data.transform.has_lengths,
        learning_rate=plan.learning_rate,
        optimizer=named_optimizer(plan.optimizer, weight_decay=plan.weight_decay),
        clip_norm=plan.clip_norm,
        schedule=named_schedule(plan.schedule, plan.epochs),
        patience=plan.patience,
        seed=plan.seed,
        device=device,
        compile=compile,
        precision=plan.precision,
        profile=profile,
        out=out,
        resume=resume,
        config={
            "plan": asdict(plan),
            "relative_paths": relative_paths(plan, out),
            **_facts(data, sizes),
        },
        show_progress=show_progress,
    )


def _facts(data: Data, sizes: Sizes) -> dict[str, Any]:
    """The facts of the data that a folder keeps, to rebuild the pair and to recognize the data."""
    facts: dict[str, Any] = {"event_shape": list(data.event_shape), "data_digest": data.digest()}
    facts |= {"context": sizes.context, "num_classes": sizes.num_classes}
    if sizes.columns:
        facts["column_families"] = [asdict(column) for column in sizes.columns]
    if data.note:
        facts["data_note"] = data.note
    return facts


def _mean_rows(data: Data) -> tuple[Rows, ...]:
    """The training rows whose mean a decoder starts at: x, and the lengths of sequences."""
    return data.rows("train")[: 2 if data.transform.has_lengths else 1]


def _start_at_data(model: VAE | Hierarchy | StateSpaceModel, rows: Rows) -> None:
    """Let the pseudo-inputs of a VampPrior start at data."""
    if isinstance(model.prior, VampPrior):
        inputs = model.prior.pseudo_inputs
        chosen = rows[torch.arange(len(inputs)) % len(rows)]
        with torch.no_grad():
            inputs.copy_(chosen)
