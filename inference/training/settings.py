"""The numbers that determine a fit."""

import math
from dataclasses import dataclass
from numbers import Integral

from ..execution.precision import Precision


@dataclass(frozen=True)
class Settings:
    """The numbers that, with pair and data, determine a fit; see :func:`fit`."""

    epochs: int
    batch_size: int
    learning_rate: float | None
    clip_norm: float | None
    patience: int | None
    seed: int
    precision: Precision = "float32"
    like_lengths: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if self.learning_rate == math.inf:
            raise ValueError("learning_rate must be finite, got inf")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
