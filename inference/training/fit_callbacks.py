"""The built-in callbacks of a fit: best weights, metrics, checkpoint, progress."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyro
import torch
from torch import Tensor

from ..common.progress import Advance, progress
from ..execution.side_effects import undone
from ..pairs.parameters import buffers
from ..pairs.programs import attributes_kept, evaluation_mode, private_store
from . import checkpoints
from .average import ExponentialMovingAverage, KeepAverage
from .callbacks import Callback, EarlyStopping, FitView, Stop
from .history import append_history, describe_epoch, write_history
from .preparation import Preparation
from .run_folder import METRICS
from .saved_fit import save_fit
from .skipping import Skipping, SkipSteps
from .state import State


def all_callbacks(
    fit: Preparation,
    state: State,
    users: Sequence[Callback],
    *,
    folder: Path | None,
    show_progress: bool,
) -> list[Callback]:
    """The callbacks of a fit in the order in which they are called.

    Best weights and metrics come before the checkpoint, so that it agrees with them. The user's
    callbacks come after it, so that an error in them loses nothing.
    """
    averages = [one for one in users if isinstance(one, ExponentialMovingAverage)]
    if len(averages) > 1:
        raise ValueError("callbacks has two of ExponentialMovingAverage: a fit keeps one average")
    if state.average and not averages:
        raise ValueError(
            f"{folder} was run with callbacks=[ExponentialMovingAverage({state.average_decay})]: "
            "give it to resume the run"
        )
    callbacks: list[Callback] = [KeepAverage(fit, state, one.decay) for one in averages]
    patience = fit.settings.patience
    if patience is not None:
        callbacks.append(KeepBest(fit, state))
    if folder is not None:
        callbacks += [WriteMetrics(folder), SaveCheckpoint(fit, state, folder)]
    if show_progress:
        callbacks.append(ShowProgress())
    if patience is not None:
        callbacks.append(EarlyStopping(patience))
    rules = [one for one in users if isinstance(one, SkipSteps)]
    if len(rules) > 1:
        raise ValueError("callbacks has two of SkipSteps: give one")
    for rule in rules:
        fit.step.skipping = Skipping(rule, fit.data.num_data, state.skipped_in_a_row)
    rest = [one for one in users if one not in averages and one not in rules]
    return [*callbacks, *(Isolated(callback, fit) for callback in rest)]


class KeepBest(Callback):
    """Keep the weights of the epoch with the best validation figure, and restore them."""

    def __init__(self, fit: Preparation, state: State):
        self.fit, self.state = fit, state

    def on_epoch_end(self, view: FitView) -> None:
        """Copy the weights, if this epoch is the best so far."""
        if view.best_epoch == view.epoch:
            weights = self.fit.weights
            self.state.best = {name: value.detach().clone() for name, value in weights.items()}

    def on_fit_end(self, view: FitView) -> None:
        """Put the best weights into the pair."""
        if self.state.best:
            checkpoints.restore(self.fit.weights, self.state.best, "the best epoch")


class WriteMetrics(Callback):
    """Add each epoch's row to ``metrics.csv``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_epoch_end(self, view: FitView) -> None:
        """Write the row; or all rows, where it has other columns than those before it."""
        if [*view.history[0]] == [*view.last]:
            append_history(self.folder / METRICS, view.last)
        else:
            write_history(self.folder / METRICS, view.history)


class SaveCheckpoint(Callback):
    """Write the checkpoint after each epoch."""

    def __init__(self, fit: Preparation, state: State, folder: Path):
        self.fit, self.state, self.folder = fit, state, folder

    def on_epoch_end(self, view: FitView) -> None:
        """Write the checkpoint, in place of the last one."""
        save_fit(self.folder, self.fit, self.state)


class ShowProgress(Callback):
    """Show epoch, ELBO in nats per datum and data per second, on standard error."""

    def __init__(self) -> None:
        self._shown = contextlib.ExitStack()
        self._advance: Advance = lambda steps=1, note=None: None

    def on_fit_start(self, view: FitView) -> None:
        """Start the bar, at the epochs that a resumed run has done."""
        total = view.epochs * view.steps_per_epoch
        self._advance = self._shown.enter_context(progress("fit", total))
        self._advance(view.epoch * view.steps_per_epoch)

    def on_step_end(self, view: FitView, step: int, loss: Tensor) -> None:
        """Count the step."""
        self._advance()

    def on_epoch_end(self, view: FitView) -> None:
        """Write the epoch's figures beside the bar."""
        speed = f"{view.last['rows_per_second']:,.0f} data/s"
        self._advance(0, f"epoch {view.epoch}/{view.epochs}, {describe_epoch(view.last)}, {speed}")

    def on_fit_end(self, view: FitView) -> None:
        """Close the bar, and restore the terminal."""
        self._shown.close()

    def on_exception(self, view: FitView, error: BaseException) -> None:
        """Close the bar, and restore the terminal."""
        self._shown.close()


class Isolated(Callback):
    """A user's callback, after each call of which random state and pair are restored."""

    def __init__(self, callback: Callback, fit: Preparation):
        self.callback, self.fit = callback, fit

    @property
    def follows_steps(self) -> bool:
        """Whether the user's callback overrides :meth:`on_step_end`."""
        return self.callback.follows_steps

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        model, guide = self.fit.model, self.fit.guide
        tensors = [*self.fit.named.values(), *buffers(model, guide)]
        store = pyro.get_param_store().get_state()
        with (
            undone(tensors, partial(attributes_kept, model, guide)),
            private_store(store),
            evaluation_mode(model, guide),
            torch.enable_grad(),
        ):
            yield

    def on_fit_start(self, view: FitView) -> Stop | None:
        """Call the user's, and undo its effects on the fit."""
        with self._undone():
            return self.callback.on_fit_start(view)

    def on_step_end(self, view: FitView, step: int, loss: Tensor) -> None:
        """Call the user's, and undo its effects on the fit."""
        with self._undone():
            self.callback.on_step_end(view, step, loss)

    def on_epoch_end(self, view: FitView) -> Stop | None:
        """Call the user's, and undo its effects on the fit."""
        with self._undone():
            return self.callback.on_epoch_end(view)

    def on_fit_end(self, view: FitView) -> None:
        """Call the user's, and undo its effects on the fit."""
        with self._undone():
            self.callback.on_fit_end(view)

    def on_exception(self, view: FitView, error: BaseException) -> None:
        """Call the user's, and undo its effects on the fit."""
        with self._undone():
            self.callback.on_exception(view, error)

    def __repr__(self) -> str:
        """Name the user's callback in errors."""
        return type(self.callback).__name__
