"""Schedules of a loss term's weight, such as KL annealing: warm-up and cycles."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Schedule(ABC):
    """A weight as a function of the number of epochs done. A subclass implements both members."""

    @abstractmethod
    def __call__(self, epoch: float) -> float:
        """The weight after so many epochs, which may be a fraction."""

    @property
    @abstractmethod
    def settled(self) -> float:
        """The epoch at which the weight first has its full value."""

    def __repr__(self) -> str:
        """Name it with its settings: a run is resumed by a schedule of the same text."""
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


@dataclass(frozen=True)
class Constant(Schedule):
    """A weight that does not change: a plain number given as a weight becomes one."""

    value: float

    def __call__(self, epoch: float) -> float:
        """That weight."""
        return self.value

    @property
    def settled(self) -> float:
        """From the start."""
        return 0.0


@dataclass(frozen=True)
class Warmup(Schedule):
    """A weight that changes linearly over the first epochs, and then stays.

    ::

        β(t) = start + (stop − start) min(t / epochs, 1)

    From 0 to 1, it lets the decoder learn to use z before the KL has its full weight (Bowman et al.
    2016, arXiv 1511.06349; Sønderby et al. 2016, arXiv 1602.02282).

    Args:
        epochs: number of epochs over which the weight changes.
        start: weight at the beginning.
        stop: weight at the end, and after it.

    Raises:
        ValueError: if ``epochs`` is not positive.

    >>> beta = Warmup(10)
    >>> beta(0.0), beta(2.5), beta(40.0)
    (0.0, 0.25, 1.0)
    """

    epochs: float
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise ValueError(f"a warm-up takes a positive number of epochs, got {self.epochs}")

    def __call__(self, epoch: float) -> float:
        """β after so many epochs."""
        return self.start + (self.stop - self.start) * min(epoch / self.epochs, 1.0)

    @property
    def settled(self) -> float:
        """At the end of the warm-up."""
        return self.epochs


@dataclass(frozen=True)
class Cyclical(Schedule):
    """A weight that rises again and again (Fu et al. 2019, arXiv 1903.10145).

    In each period the weight changes linearly from ``start`` to ``stop``, and then stays for the
    rest of the period. Each rise starts from a decoder that has learned to use z in the last one.

    Args:
        period: number of epochs from one rise to the next.
        rise: share of the period in which the weight changes.
        start: weight at the beginning of each period.
        stop: weight at its end.

    Raises:
        ValueError: if ``period`` is not positive, or ``rise`` not between 0 and 1.

    >>> beta = Cyclical(10)
    >>> beta(0.0), beta(2.5), beta(8.0), beta(12.5)
    (0.0, 0.5, 1.0, 0.5)
    """

    period: float
    rise: float = 0.5
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not self.period > 0 or not 0 < self.rise <= 1:
            raise ValueError(
                "a cycle takes a positive period and a rise in (0, 1], got "
                f"period={self.period}, rise={self.rise}"
            )

    def __call__(self, epoch: float) -> float:
        """β after so many epochs."""
        share = min(epoch % self.period / self.period / self.rise, 1.0)
        return self.start + (self.stop - self.start) * share

    @property
    def settled(self) -> float:
        """At the top of the first rise."""
        return self.rise * self.period


class Weight:
    """A weight of the loss, held as a tensor so that a recorded step sees its changes.

    Args:
        name: its name in an error.
        value: a number, or a :class:`Schedule` of the epochs done.

    Raises:
        ValueError: if it is negative, NaN or infinite.
    """

    def __init__(self, name: str, value: float | Schedule):
        self.name = name
        if not isinstance(value, Schedule | int | float):
            raise ValueError(
                f"{name} must be a number or a Schedule such as Warmup(10), got a "
                f"{type(value).__name__}"
            )
        self.schedule = value if isinstance(value, Schedule) else Constant(float(value))
        self.tensor: Tensor = torch.zeros((), dtype=torch.float64)
        for epoch in (self.schedule.settled, self.schedule.settled / 2, 0.0):
            self.move_to(epoch)

    @property
    def is_constant(self) -> bool:
        """Whether it is one number, and no schedule."""
        return isinstance(self.schedule, Constant)

    @property
    def full(self) -> float:
        """Its full value: where the schedule first settles."""
        return self.schedule(self.schedule.settled)

    def move_to(self, epoch: float) -> None:
        """Set the weight to its value after so many epochs.

        Raises:
            ValueError: if that value is negative, NaN or infinite.
        """
        weight = self.schedule(epoch)
        if not 0 <= weight < math.inf:
            raise ValueError(f"{self.name} must be a number of at least 0, got {weight:g}")
        self.tensor.fill_(weight)

    def __repr__(self) -> str:
        value = self.schedule
        return f"{self.name}={value.value if isinstance(value, Constant) else value}"
