"""Measure the time of the parts of a step."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..execution.precision import layer_precision
from ..execution.replaying import Replay
from ..pairs.minibatch_scaling import ScaleData
from .preparation import Preparation
from .step import Step

PROFILED_STEPS = 50


def profile_fit(fit: Preparation, epoch: int) -> dict[str, float]:
    """Measure the parts of a step of a fit, in median milliseconds; see :func:`profile_step`."""
    fit.set_training(True)
    with pyro.validation_enabled(False):
        times = profile_step(fit.step, fit.data.batches(epoch))
    fit.set_training(False)
    return times


def profile_step(
    step: Step, batches: Iterator[tuple[Tensor, ...]], num_steps: int = PROFILED_STEPS
) -> dict[str, float]:
    """Measure a step and its parts, in median milliseconds; its parameters are restored afterwards.

    ``data`` is the time to make the batch; ``forward`` of model, guide and objective; ``backward``
    of the gradients; ``optimizer`` of clipping and the update; ``step`` of all of these together,
    and ``overhead`` the difference between ``step`` and its parts. In a plain step, ``forward``
    includes Pyro's handlers. A step compiled by Inductor has one time, ``forward and backward``.

    Args:
        step: a step that has run before.
        batches: batches of data.
        num_steps: the largest number of steps.

    Raises:
        ValueError: if there are no batches.
    """
    laps: list[dict[str, float]] = []
    kept = [value.detach().clone() for value in _moved(step)]
    with torch.random.fork_rng():
        for _ in range(num_steps):
            seconds, batch = _timed(lambda: next(batches, None))
            if batch is None:
                break
            whole = seconds + _timed(lambda batch=batch: step(batch))[0]
            laps.append({"data": seconds, **_parts(step, batch), "step": whole})
    if not laps:
        raise ValueError("there are no batches to measure")
    with torch.no_grad():
        for value, before in zip(_moved(step), kept, strict=True):
            value.copy_(before)
    median = {name: 1e3 * statistics.median(lap[name] for lap in laps) for name in laps[0]}
    whole = median.pop("step")
    return {**median, "overhead": max(0.0, whole - sum(median.values())), "step": whole}


def _moved(step: Step) -> list[Tensor]:
    """All tensors that a step changes."""
    state = [step.optimizer.state.get(parameter) for parameter in step.parameters]
    leaves = pytree.tree_leaves([step.loss_and_gradients.tensors, state])
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def _parts(step: Step, batch: tuple[Tensor, ...]) -> dict[str, float]:
    """Seconds of each part of a step, run alone."""
    evaluate = step.loss_and_gradients
    recorded = evaluate.find(*batch)
    if isinstance(recorded, Replay):
        seconds = {"forward": _timed(recorded.forward)[0], "backward": _timed(recorded.backward)[0]}
    else:
        seconds = {"forward and backward": _timed(lambda: evaluate(*batch))[0]}
        if recorded is None and step.differentiable_loss is not None:
            with layer_precision(evaluate.precision), ScaleData(step.num_data):
                forward = _timed(lambda: step.loss(*batch))[0]
            both = seconds.pop("forward and backward")
            seconds = {"forward": forward, "backward": max(0.0, both - forward)}
    return {**seconds, "optimizer": _timed(step.move)[0]}
