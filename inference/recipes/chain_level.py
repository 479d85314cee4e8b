"""The choice ``--levels chain``: a latent variable at each step of a sequence."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from torch import nn

from ...guides import SequencePosterior
from ...models import (
    AutoregressiveLikelihood,
    Combiner,
    ConditionalNormal,
    GatedTransition,
    LinearTransition,
    RecurrentReader,
    StateSpaceModel,
    mlp,
)
from ...models.networks.recurrent_reader import Direction
from ...models.state_space_model import TransitionPart
from .parameters import Count, Natural, one_of
from .posteriors import EncoderOfWidth
from .sequence_parts import SequenceParts

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
"""Recurrent networks by name."""

READ: dict[str, Direction] = {
    "backward": "backward",
    "forward": "forward",
    "both": "both",
    "mean-field": "both",
}
"""Which way the network reads, by the name of the guide."""


def _gated(dim: int, width: int) -> TransitionPart:
    return GatedTransition(dim, width)


def _linear(dim: int, width: int) -> TransitionPart:
    return LinearTransition(dim)


def _dense(dim: int, width: int) -> TransitionPart:
    network = mlp(dim, width, out=2 * dim)
    return ConditionalNormal(network, dim)  # pyright: ignore[reportReturnType] # of a vector


TRANSITIONS: dict[str, Callable[[int, int], TransitionPart]] = {
    "gated": _gated,
    "linear": _linear,
    "mlp": _dense,
}
"""Transitions by name, made from D and the width of their hidden layer."""


def chain_level(
    parts: SequenceParts,
    *,
    dim: Count = 64,
    width: Count = 128,
    state: Count = 200,
    transition: Annotated[str, one_of(*TRANSITIONS)] = "gated",
    guide: Annotated[str, one_of(*READ)] = "backward",
    cell: Annotated[str, one_of(*CELLS)] = "gru",
    autoregressive: Natural = 0,
) -> tuple[StateSpaceModel, SequencePosterior]:
    """A Markov chain z₁, …, z_T of ``dim`` dimensions, and a guide that reads x recurrently.

    ``width`` is that of the hidden layers of transition and emission, ``state`` that of the
    recurrent network. q(z_t) sees z_{t−1} and what the network read (``backward``: the steps from
    t on); with ``mean-field`` it sees all steps of x, and no other z. With ``autoregressive`` above
    0 each element of a step depends on those before it, by a masked network of that width.

    Raises:
        ValueError: if elements are to depend on one another, and a step has one element alone.
    """
    likelihood = parts.likelihood
    if autoregressive:
        if likelihood.event_shape.numel() < 2:
            raise ValueError(
                "a step of these data is one element, which depends on no others of the step: "
                "leave autoregressive of --levels chain out"
            )
        likelihood = AutoregressiveLikelihood(likelihood, hidden=(autoregressive,))
    reader = RecurrentReader(
        parts.step_shape, state, direction=READ[guide], cell=CELLS[cell], embed=parts.embed(state)
    )
    encoder: EncoderOfWidth = (
        partial(mlp, reader.num_features, width)
        if guide == "mean-field"
        else partial(Combiner, reader.num_features, dim)
    )
    model = StateSpaceModel(
        TRANSITIONS[transition](dim, width),
        emission=mlp(dim, width, out=likelihood.num_features),
        likelihood=likelihood,
    )
    return model, SequencePosterior(reader, parts.posterior(encoder, dim))
