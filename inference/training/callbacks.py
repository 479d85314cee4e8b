"""Callbacks: what is done at the start of a fit, after its steps and epochs, and at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..pairs.programs import Program
from .history import best_epoch, main_metric


@dataclass(frozen=True)
class FitView:
    """What a callback sees of a fit: a frozen view, made anew after each epoch."""

    model: Program
    """The model, as it is fitted; in evaluation mode while a callback is called."""
    guide: Program
    """Its guide."""
    epoch: int
    """How many epochs are done."""
    epochs: int
    """How many the fit is to have."""
    steps_per_epoch: int
    """How many minibatches an epoch has."""
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """One row an epoch, read-only; the columns are those of ``metrics.csv``."""
    best_epoch: int | None = None
    """The epoch with the highest validation figure so far, where ``patience`` was given."""
    folder: Path | None = None
    """The run's folder."""

    @property
    def last(self) -> Mapping[str, float]:
        """The last epoch's row of the history; empty before the first epoch."""
        return self.history[-1] if self.history else {}


@dataclass(frozen=True)
class Stop:
    """What a callback returns to end a fit."""

    reason: str
    """Why, in a few words: :attr:`Run.stopped`."""


class Callback:
    """Something done while a pair is fitted; override what is needed, the rest does nothing.

    ``fit(callbacks=[…])`` calls each hook of all callbacks in the order of the list. When
    :meth:`on_epoch_end` is called, the epoch's figures and checkpoint are written already: whatever
    happens in a callback, the run can be resumed from there. An error raised in a callback ends the
    fit and reaches the caller of ``fit``.

    A callback looks on: with it or without it, the numbers of the fit are the same. It may draw
    random numbers, evaluate the pair (``log_evidence``, ``diagnose``, figures) and try other
    weights; PyTorch's random state, Pyro's parameter store, and the pair's parameters, buffers,
    modes and attributes are put back afterwards. A callback's own attributes are no part of a
    checkpoint: what has to survive an interruption is read from :attr:`FitView.history`.

    >>> class StopAt(Callback):
    ...     def on_epoch_end(self, view):
    ...         if view.last["elbo"] > -40:
    ...             return Stop(f"the ELBO reached {view.last['elbo']:.0f} nats")
    """

    @property
    def follows_steps(self) -> bool:
        """Whether :meth:`on_step_end` is overridden, and so to be called."""
        return type(self).on_step_end is not Callback.on_step_end

    def on_fit_start(self, view: FitView) -> Stop | None:
        """Called once before the first epoch, also of a resumed run; may return :class:`Stop`."""

    def on_step_end(self, view: FitView, step: int, loss: Tensor) -> None:
        """Called after each step; where no callback overrides it, it costs nothing.

        Args:
            view: of the last finished epoch.
            step: how many steps of this epoch are done.
            loss: of the minibatch before the step, scaled to all data, in nats, on its device.
                Looking at its value makes the fit wait for the device.
        """

    def on_epoch_end(self, view: FitView) -> Stop | None:
        """Called after each epoch; may return :class:`Stop`, and the fit ends there."""

    def on_fit_end(self, view: FitView) -> None:
        """Called once after the last epoch, with the weights that the run is used with."""

    def on_exception(self, view: FitView, error: BaseException) -> None:
        """Called if an error or Ctrl-C ends the fit, which is then raised on.

        Args:
            view: of the last finished epoch.
            error: what was raised, in a step, a check or a callback.
        """


class EarlyStopping(Callback):
    """Stop a fit once a figure of its history has not risen for some epochs.

    ``fit(patience=5)`` is ``EarlyStopping(5)`` on the validation ELBO, and also keeps the best
    epoch's weights; a callback stops the run and leaves the last weights.

    Args:
        patience: how many epochs without a rise end the fit.
        metric: the column of the history; ``validation_elbo`` if not given, or
            ``validation_reconstruction`` where there is no ELBO.

    Raises:
        ValueError: if ``patience`` is not positive; in a fit, if its history has no such column.

    >>> view = FitView(None, None, 3, 9, 1, [{"elbo": -2.0}, {"elbo": -3.0}, {"elbo": -2.5}])
    >>> EarlyStopping(2, metric="elbo").on_epoch_end(view)
    Stop(reason='elbo has not risen for 2 epochs')
    """

    def __init__(self, patience: int, *, metric: str | None = None):
        if not patience > 0:
            raise ValueError(f"patience must be positive, got {patience}")
        self.patience, self.metric = patience, metric

    def on_fit_start(self, view: FitView) -> Stop | None:
        """Stop a resumed run that was at its end already."""
        return self._judge(view)

    def on_epoch_end(self, view: FitView) -> Stop | None:
        """Stop if the last epochs brought no rise."""
        return self._judge(view)

    def _judge(self, view: FitView) -> Stop | None:
        if not view.history:
            return None
        metric = self.metric or f"validation_{main_metric(view.last)}"
        if metric not in view.last:
            hint = "give validation=" if metric.startswith("validation_") else "see metrics.csv"
            raise ValueError(f"early stopping needs the figure {metric!r} of each epoch: {hint}")
        if view.epoch - best_epoch(view.history, metric) < self.patience:
            return None
        return Stop(f"{metric} has not risen for {self.patience} epochs")


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Refuse what is no callback.

    Raises:
        ValueError: if something in the list is no :class:`Callback`, or is a class.
    """
    if isinstance(callbacks, Callback):
        raise ValueError("callbacks is a list: put the callback into one, callbacks=[…]")
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise ValueError(f"callbacks has the class {name}: give one of its objects, {name}(…)")
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks has a {type(callback).__name__}: a callback is an object of a class "
                "that derives from latente.inference.Callback"
            )
