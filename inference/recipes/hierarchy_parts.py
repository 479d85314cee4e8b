"""What a hierarchy is built from: the choices on the other axes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...guides import Amortized, BottomUp, TopDown
from ...models import Likelihood
from .posteriors import EncoderOfWidth


@dataclass(frozen=True)
class HierarchyParts:
    """What the choices on the other axes give to a hierarchy."""

    event_shape: tuple[int, ...]
    """The shape of what the encoder reads."""
    likelihood: Likelihood
    posterior: Callable[[EncoderOfWidth, int], Amortized]
    """Makes the posterior of a level of K dimensions."""
    prior: Callable[[int, BottomUp | TopDown], nn.Module]
    """Makes the top level's prior of K dimensions."""
    reading: Callable[[EncoderOfWidth], EncoderOfWidth]
    """Lets the first encoder read x as the likelihood's kind of data needs it."""
