"""The state of a fit between two epochs."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class State:
    """How far a fit has come; what weights and optimizer hold beside."""

    epoch: int = 0
    """How many epochs are done."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of figures an epoch, in nats per datum."""
    best_epoch: int = 0
    """The epoch with the highest validation figure; 0 where none is kept."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """That epoch's weights, by name."""
