"""What a model of sequences is built from: the choices on the other axes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...guides import Amortized
from ...models import Likelihood
from .posteriors import EncoderOfWidth


@dataclass(frozen=True)
class SequenceParts:
    """What the choices on the other axes give to a model of sequences.

    A part of ``--levels`` that is for sequences is built from these. It joins by an entry in
    :data:`LEVELS` with ``sequences=True``, and a recipe of it by one in the registry.
    """

    step_shape: tuple[int, ...]
    """The shape of one step of x; () where a step is one number, as a token is."""
    likelihood: Likelihood
    """Of one step."""
    posterior: Callable[[EncoderOfWidth, int], Amortized]
    """Makes the posterior of a latent variable of K dimensions."""
    embed: Callable[[int], nn.Module | None]
    """Makes, of a width, what maps a step to numbers that a network reads; ``None``: nothing is
    needed."""
    end: int | None = None
    """The token that ends a text; ``None``: of other sequences, which have none."""
