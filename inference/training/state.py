"""The state of a fit between two epochs."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class State:
    """The state of a fit, apart from its weights and optimizer."""

    epoch: int = 0
    """Number of epochs done."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of figures for each epoch, in nats per datum."""
    best_epoch: int = 0
    """The epoch with the highest validation figure; 0 if none is kept."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """That epoch's weights, by name."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """The moving average of the weights, by name; empty if none is kept."""
    average_decay: float | None = None
    """Its decay; see :class:`latente.inference.ExponentialMovingAverage`."""
    skipped_in_a_row: int = 0
    """Number of steps that were skipped in a row at the end of the last epoch."""
