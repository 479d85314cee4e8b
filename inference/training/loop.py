"""The loop of a fit: epochs of steps, their figures, and the callbacks between them."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyro
import torch
from torch import Tensor

from ..objectives.objective import Objective
from ..objectives.pyro_objectives import loss_names
from .average import measure_average
from .callbacks import Callback, FitView, Stop
from .history import best_epoch, main_metric
from .measurement import measure
from .preparation import Preparation
from .rate_steps import current_rate
from .state import State


def run_epochs(
    fit: Preparation, state: State, callbacks: Sequence[Callback], *, folder: Path | None
) -> str:
    """Run the remaining epochs, or fewer if a callback stops the fit.

    Args:
        fit: the pair, its data and settings.
        state: the state of the fit, which is updated after each epoch.
        callbacks: called in this order.
        folder: the run's folder, for errors and callbacks.

    Returns:
        the reason why a callback stopped the fit before its last epoch; empty if none did.

    Raises:
        FloatingPointError: if a loss or a weight is no longer finite; the state is then that of
            the last good epoch.
    """
    view = _view(fit, state, folder)
    started: list[Callback] = []
    try:
        stop = _call_all(callbacks, "on_fit_start", view, started.append)
        while state.epoch < fit.settings.epochs and stop is None:
            with pyro.validation_enabled(False):
                start = time.perf_counter()
                losses, rate = _run_steps(fit, callbacks, view)
                _finish_epoch(fit, state, losses, rate, time.perf_counter() - start, folder)
            view = _view(fit, state, folder)
            stop = _call_all(callbacks, "on_epoch_end", view)
        fit.set_training(False)
        for callback in callbacks:
            callback.on_fit_end(view)
    except BaseException as error:
        for callback in started:
            _report_error(callback, view, error)
        raise
    return "" if stop is None or state.epoch == fit.settings.epochs else stop.reason


def _view(fit: Preparation, state: State, folder: Path | None) -> FitView:
    return FitView(
        fit.model,
        fit.guide,
        state.epoch,
        fit.settings.epochs,
        fit.steps_per_epoch,
        tuple(MappingProxyType(row) for row in state.history),
        state.best_epoch or None,
        folder,
    )


def _call_all(
    callbacks: Sequence[Callback],
    hook: str,
    view: FitView,
    before: Callable[[Callback], Any] = lambda callback: None,
) -> Stop | None:
    """Call a method of all callbacks; the first :class:`Stop` that one returns."""
    stops: list[Stop] = []
    for callback in callbacks:
        before(callback)
        answer = getattr(callback, hook)(view)
        if isinstance(answer, Stop):
            stops.append(answer)
        elif answer is not None:
            raise ValueError(
                f"{hook} of {callback!r} returned {answer!r}: return Stop(reason) to end the fit, "
                "or nothing"
            )
    return stops[0] if stops else None


def _report_error(callback: Callback, view: FitView, error: BaseException) -> None:
    """Pass an error to a callback. If that fails too, the first error still reaches the caller."""
    try:
        callback.on_exception(view, error)
    except Exception as other:
        error.add_note(f"on_exception of {callback!r} raised {other!r}")


def _run_steps(
    fit: Preparation, callbacks: Sequence[Callback], view: FitView
) -> tuple[Tensor, float]:
    """Run the steps of one epoch; the share of each in the loss, and the rate of the last one.

    The losses are read once, at the end, since reading one waits for the device.
    """
    rate = 0.0
    hooked = [callback for callback in callbacks if callback.follows_steps]
    fit.set_training(True)
    losses: list[Tensor] = []
    for number, batch in enumerate(fit.data.batches(view.epoch)):
        if isinstance(fit.objective, Objective):
            fit.objective.move_to(view.epoch + number / fit.steps_per_epoch)
        loss = fit.step(batch)
        losses.append(loss * (len(batch[0]) / fit.data.num_data))
        rate = current_rate(fit.optimizer)
        fit.rate_steps.after_step()
        for callback in hooked:
            callback.on_step_end(view, number + 1, loss if loss.dim() == 0 else loss.sum())
    return torch.stack(losses).cpu().double() / fit.data.num_data, rate


def _finish_epoch(
    fit: Preparation,
    state: State,
    losses: Tensor,
    rate: float,
    seconds: float,
    folder: Path | None,
) -> None:
    """Check the losses of an epoch, measure the pair, and update the learning rate."""
    skipped: dict[str, float] = {}
    if fit.step.skipping is not None:
        flags = fit.step.skipping.finish_epoch()
        state.skipped_in_a_row = int(fit.step.skipping.in_a_row)
        skipped["skipped_steps"] = int(flags.sum())
        losses = losses[~flags]
    _check_finite(fit, state.epoch, losses if losses.dim() == 1 else losses.sum(1), folder)
    state.epoch += 1
    # The mean of the steps that were taken: NaN without one.
    share = len(losses) / fit.steps_per_epoch
    losses = losses / share if share else losses.new_full((1, *losses.shape[1:]), math.nan)
    row: dict[str, float] = {"epoch": state.epoch, "loss": losses.sum().item()}
    if losses.dim() == 2:
        parts = loss_names(fit.objective, losses.shape[1])
        row |= dict(zip(parts, losses.sum(0).tolist(), strict=True))
    row |= {weight.name: weight.tensor.item() for weight in fit.moving_weights}
    row |= measure(fit, "", fit.measured)
    if fit.data.validation is not None:
        row |= measure(fit, "validation_", fit.data.validation)
    if state.average:
        row |= measure_average(fit, state)
    row |= {**skipped, "learning_rate": rate, "seconds": seconds}
    row["rows_per_second"] = fit.data.num_data / seconds
    state.history.append(row)
    if fit.settings.patience is not None:
        state.best_epoch = best_epoch(state.history, f"validation_{main_metric(row)}")
    fit.rate_steps.after_epoch(row)


def _check_finite(fit: Preparation, epoch: int, losses: Tensor, folder: Path | None) -> None:
    bad = (~losses.isfinite()).nonzero().flatten()
    if len(bad):
        what = f"loss became {losses[bad[0]]:g} at step {bad[0] + 1} of {len(losses)}"
    elif not all(bool(value.isfinite().all()) for value in fit.named.values()):
        what = "weights became NaN or infinite"
    else:
        return
    rate = current_rate(fit.optimizer)
    kept = "" if folder is None else f"; {folder} keeps epoch {epoch}"
    raise FloatingPointError(
        f"the {what} in epoch {epoch + 1}: lower the learning rate "
        f"(now {rate:g}) or set clip_norm{kept}"
    )
