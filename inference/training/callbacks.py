"""Callbacks: called at the start of a fit, after its steps and epochs, and at its end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.lookup import list_names
from ..pairs.programs import Program
from .history import best_epoch, main_metric


@dataclass(frozen=True)
class FitView:
    """A frozen view of a fit for callbacks, made after each epoch."""

    model: Program
    """The model, as it is fitted; in evaluation mode while a callback is called."""
    guide: Program
    """Its guide."""
    epoch: int
    """Number of epochs done."""
    epochs: int
    """Number of epochs of the whole fit."""
    steps_per_epoch: int
    """Number of minibatches in an epoch."""
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """One row for each epoch, read-only; the columns are those of ``metrics.csv``."""
    best_epoch: int | None = None
    """The epoch with the highest validation figure so far, if ``patience`` was given."""
    folder: Path | None = None
    """The run's folder."""

    @property
    def last(self) -> Mapping[str, float]:
        """The last epoch's row of the history; empty before the first epoch."""
        return self.history[-1] if self.history else {}


@dataclass(frozen=True)
class Stop:
    """Returned by a callback to end the fit."""

    reason: str
    """The reason, in a few words: :attr:`Run.stopped`."""


class Callback:
    """The base of callbacks. Override the methods that are needed; the others do nothing.

    ``fit(callbacks=[…])`` calls each method of all callbacks in the order of the list. When
    :meth:`on_epoch_end` is called, the figures and the checkpoint of the epoch are already written,
    so the run can be resumed from there if the callback fails. An error raised in a callback ends
    the fit and reaches the caller of ``fit``.

    A callback only observes: the numbers of the fit are the same with it and without it. It may
    draw random numbers, evaluate the pair (``log_evidence``, ``diagnose``, figures) and try other
    weights. PyTorch's random state, Pyro's parameter store, and the pair's parameters, buffers,
    modes and attributes are restored afterwards. The attributes of a callback are not saved in a
    checkpoint: read what must survive an interruption from :attr:`FitView.history`.

    >>> class StopAt(Callback):
    ...     def on_epoch_end(self, view):
    ...         if view.last["elbo"] > -40:
    ...             return Stop(f"the ELBO reached {view.last['elbo']:.0f} nats")
    """

    @property
    def follows_steps(self) -> bool:
        """Whether :meth:`on_step_end` is overridden, and so has to be called."""
        return type(self).on_step_end is not Callback.on_step_end

    def on_fit_start(self, view: FitView) -> Stop | None:
        """Called once before the first epoch, also of a resumed run; may return :class:`Stop`."""

    def on_step_end(self, view: FitView, step: int, loss: Tensor) -> None:
        """Called after each step; where no callback overrides it, it costs nothing.

        Args:
            view: of the last finished epoch.
            step: number of steps of this epoch that are done.
            loss: loss of the minibatch before the step, scaled to all data, in nats, on its device.
                Reading its value makes the fit wait for the device.
        """

    def on_epoch_end(self, view: FitView) -> Stop | None:
        """Called after each epoch; may return :class:`Stop`, and the fit ends there."""

    def on_fit_end(self, view: FitView) -> None:
        """Called once after the last epoch, with the final weights of the run."""

    def on_exception(self, view: FitView, error: BaseException) -> None:
        """Called if an error or Ctrl-C ends the fit; the error is then raised again.

        Args:
            view: of the last finished epoch.
            error: the error, from a step, a check or a callback.
        """


class EarlyStopping(Callback):
    """Stop a fit when a figure of its history has not risen for some epochs.

    ``fit(patience=5)`` is ``EarlyStopping(5)`` on the validation ELBO, and also restores the
    weights of the best epoch. This callback alone leaves the last weights.

    Args:
        patience: number of epochs without a rise that end the fit.
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
        """Stop a resumed run that had already reached its end."""
        return self._judge(view)

    def on_epoch_end(self, view: FitView) -> Stop | None:
        """Stop if the figure has not risen in the last epochs."""
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


def check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """The callbacks of a list, each of which must be a :class:`Callback` object.

    Raises:
        ValueError: if it is no list, or an item is not a :class:`Callback`, is a class, or has a
            misspelt hook.
    """
    if not isinstance(callbacks, Iterable):
        raise ValueError("callbacks must be a list: write callbacks=[…]")
    checked = tuple(callbacks)
    for callback in checked:
        if isinstance(callback, type):
            name = callback.__name__
            raise ValueError(f"callbacks has the class {name}: give an object, {name}(…)")
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks has a {type(callback).__name__}: a callback is an object of a class "
                "that derives from latente.inference.Callback"
            )
        for name in dir(callback):
            if name.startswith("on_") and not hasattr(Callback, name):
                hooks = [hook for hook in vars(Callback) if hook.startswith("on_")]
                raise ValueError(
                    f"{type(callback).__name__} has a hook {name!r}, which a fit never calls: "
                    f"{list_names(name, hooks)}"
                )
    return checked
