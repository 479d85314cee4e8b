"""Make the scheduler of a fit's learning rate, step it, and keep it in a checkpoint."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from pyro.optim import PyroLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from .history import main_metric

SchedulePer = Literal["epoch", "step"]
"""After what a learning-rate scheduler is stepped."""


@dataclass(frozen=True)
class RateSteps:
    """The scheduler of a fit's learning rate, if there is one, and when it is stepped."""

    scheduler: LRScheduler | None
    per: SchedulePer
    start: Mapping[str, Any]
    """What the scheduler is at the start, in JSON's types: the options of a resumed run."""

    def after_step(self) -> None:
        """Step it after a step of the fit, if it goes by these."""
        if self.scheduler is not None and self.per == "step":
            self.scheduler.step()

    def after_epoch(self, row: Mapping[str, float]) -> None:
        """Step it after an epoch, if it goes by these.

        ``ReduceLROnPlateau`` gets the validation loss, −``validation_elbo`` (without an ELBO,
        −``validation_reconstruction``); where nothing is validated, ``loss``. With ``mode="max"``
        it gets the same with the other sign. Both are in nats per datum.

        Args:
            row: the epoch's row of the history.
        """
        if self.scheduler is None or self.per != "epoch":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            validation = row.get(f"validation_{main_metric(row)}")
            loss = row["loss"] if validation is None else -validation
            self.scheduler.step(loss if self.scheduler.mode == "min" else -loss)
        else:
            self.scheduler.step()

    def check_length(self, steps_left: int) -> None:
        """Refuse a schedule of fewer steps than are to come, which would fail at its end.

        Raises:
            ValueError: with both numbers.
        """
        total = getattr(self.scheduler, "total_steps", None)
        done = getattr(self.scheduler, "last_epoch", 0)
        if isinstance(total, int) and done + steps_left > total:
            raise ValueError(
                f"the schedule has total_steps={total}, and the fit needs {done + steps_left}, one "
                f"for each {self.per}: set total_steps to that"
            )

    def check_same(self, start: Mapping[str, Any], folder: Any) -> None:
        """Refuse to go on with a run whose schedule had other options.

        Args:
            start: :attr:`start` of the interrupted run.
            folder: the run's folder, for the error.

        Raises:
            ValueError: naming an option, and both of its values.
        """
        for name in ("schedule", "schedule_per"):
            if start[name] != self.start[name]:
                raise ValueError(
                    f"{folder} was run with {name}={start[name]}, not {self.start[name]}"
                )
        theirs, mine = start["options"], self.start["options"]
        for name in sorted(theirs.keys() & mine.keys()):
            if theirs[name] != mine[name]:
                raise ValueError(
                    f"{folder} was run with {name}={theirs[name]} in its schedule, not {mine[name]}"
                )

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from the state that a checkpoint has."""
        if self.scheduler is None or state is None:
            return
        present = self.scheduler.state_dict()
        self.scheduler.load_state_dict(_in_types_of(state, present))
        if isinstance(self.scheduler, LambdaLR):
            # The present factors decide the rate: the number of epochs may have been raised.
            for group, base, factor in zip(
                self.scheduler.optimizer.param_groups,
                self.scheduler.base_lrs,
                self.scheduler.lr_lambdas,
                strict=True,
            ):
                group["lr"] = base * factor(self.scheduler.last_epoch)


def current_rate(optimizer: Optimizer) -> float:
    """The learning rate of an optimizer's first group; Pyro's AdagradRMSProp calls it ``eta``."""
    group = optimizer.param_groups[0]
    return group.get("lr", group.get("eta", math.nan))


def make_rate_steps(
    schedule: Any, optimizer: Any, made: Optimizer, per: SchedulePer, num_steps: Mapping[str, int]
) -> RateSteps:
    """Make the scheduler of a fit.

    Args:
        schedule: makes a scheduler from an optimizer; ``None`` for none.
        optimizer: the argument of :func:`fit`; a ``PyroLRScheduler`` brings its own schedule.
        made: the optimizer of the fit.
        per: whether it is stepped after each epoch or after each step.
        num_steps: the numbers of epochs and of steps of the whole fit, ``{"epoch": …, "step": …}``.

    Raises:
        ValueError: if there are two schedules, or none can be made, or it does not suit the fit.
    """
    if per not in get_args(SchedulePer):
        raise ValueError(f"schedule_per is 'epoch' or 'step', got {per!r}")
    if isinstance(optimizer, PyroLRScheduler):
        if schedule is not None:
            raise ValueError(
                "the Pyro scheduler given as optimizer has a schedule of its own: leave schedule "
                "out, or give Pyro's optimizer without one"
            )
        schedule = partial(optimizer.pt_scheduler_constructor, **optimizer.kwargs)
    scheduler = None if schedule is None else _make(schedule, made)
    if per == "step":
        if scheduler is None:
            raise ValueError("schedule_per is given without a schedule: give schedule=")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(
                "ReduceLROnPlateau goes by a figure of each epoch: leave schedule_per at 'epoch'"
            )
    state = {} if scheduler is None else scheduler.state_dict()
    name = None if scheduler is None else type(scheduler).__name__
    start = {"schedule": name, "schedule_per": per, "options": _json_entries(state)}
    steps = RateSteps(scheduler, per, start)
    steps.check_length(num_steps[per])
    return steps


def _make(schedule: Callable[[Optimizer], Any], optimizer: Optimizer) -> LRScheduler:
    advice = (
        "give what makes a scheduler from an optimizer, such as "
        "functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)"
    )
    if isinstance(schedule, LRScheduler) or not callable(schedule):
        raise ValueError(
            f"schedule is a {type(schedule).__name__} already, of another optimizer than that of "
            f"the fit: {advice}"
            if isinstance(schedule, LRScheduler)
            else f"schedule is a {type(schedule).__name__}: {advice}"
        )
    if any("lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} has no learning rate lr that a schedule could move: leave "
            "schedule out, or use another optimizer"
        )
    try:
        made = schedule(optimizer)
    except TypeError as error:
        raise ValueError(
            f"schedule cannot be made from an optimizer ({error}): {advice}"
        ) from error
    if not isinstance(made, LRScheduler):
        raise ValueError(f"schedule made a {type(made).__name__}: {advice}")
    return made


def _json_entries(state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a state that JSON can hold, in JSON's types."""
    entries: dict[str, Any] = {}
    for name, value in state.items():
        try:
            entries[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            continue
    return entries


def _in_types_of(saved: Any, present: Any) -> Any:
    """A saved value in the types of the present one, which JSON has changed.

    JSON turns the epochs of ``MultiStepLR``, which are keys of a counter, into text, and tuples
    into lists.

    >>> from collections import Counter
    >>> _in_types_of({"milestones": {"3": 1}}, {"milestones": Counter([3])})
    {'milestones': Counter({3: 1})}
    """
    if isinstance(present, dict) and isinstance(saved, Mapping):
        keys = {str(key): key for key in present}
        items = {
            keys.get(key, key): _in_types_of(value, present.get(keys.get(key, key)))
            for key, value in saved.items()
        }
        return type(present)(items)
    if isinstance(present, list | tuple) and isinstance(saved, list):
        if len(saved) != len(present):
            return type(present)(saved)
        return type(present)(map(_in_types_of, saved, present))
    return saved
