"""Uniform Concrete prior: the prior of relaxed indicators of codes."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

MIN_TEMPERATURE = 0.45
"""Below this, numbers of a relaxed indicator fall under the least that float32 holds, and their
density is lost: Gumbel numbers in float32, with logits within ±10, are at most 39 apart."""


class UniformConcrete(nn.Module):
    """The Concrete distribution with equal logits: the prior of relaxed indicators of K codes.

    A value is a point of the simplex at each of M positions, of shape (*positions, K)::

        z = softmax(g / T),   g Gumbel numbers

    Its largest number is at each code with the probability 1/K, whatever the temperature T. It goes
    with the guide :class:`latente.guides.GumbelSoftmax`, which says what the bound is.

    Args:
        num_codes: K.
        positions: M, or their shape, (H, W); () for one.
        temperature: T; 1/2 in the paper.

    Raises:
        ValueError: if a size is less than 1, K less than 2, or T less than 0.45.

    Source: Maddison, Mnih and Teh 2017 (arXiv 1611.00712); Jang, Gu and Poole 2017 (arXiv
    1611.01144).

    >>> UniformConcrete(16, positions=4)().sample((5,)).shape
    torch.Size([5, 4, 16])
    """

    scale: Tensor

    def __init__(
        self, num_codes: int, positions: int | tuple[int, ...] = (), temperature: float = 0.5
    ):
        super().__init__()
        self.event_shape = indicator_shape(num_codes, positions)
        self.temperature = check_temperature(temperature)
        # A buffer, so that it moves with the prior to another device or dtype.
        self.register_buffer("scale", torch.tensor(float(temperature)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (*positions, K)."""
        logits = self.scale.new_zeros(self.event_shape)
        relaxed = dist.RelaxedOneHotCategorical(self.scale, logits=logits)
        return relaxed.to_event(len(self.event_shape) - 1)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        *positions, num_codes = self.event_shape
        return f"{num_codes}, positions={tuple(positions)}, temperature={self.temperature}"


def indicator_shape(num_codes: int, positions: int | tuple[int, ...]) -> torch.Size:
    """(*positions, K).

    Raises:
        ValueError: if a size is less than 1, or K less than 2.
    """
    places = (positions,) if isinstance(positions, int) else tuple(positions)
    if num_codes < 2 or min(places, default=1) < 1:
        raise ValueError(
            f"relaxed indicators are of 2 codes or more at 1 position or more, got {num_codes} "
            f"codes at {positions}"
        )
    return torch.Size((*places, num_codes))


def check_temperature(temperature: float) -> float:
    """The temperature, which must not be too low for float32.

    Raises:
        ValueError: if it is.
    """
    if not temperature >= MIN_TEMPERATURE:
        raise ValueError(
            f"temperature must be at least {MIN_TEMPERATURE}, got {temperature}: below, the "
            "density of relaxed indicators is lost in float32; for hard ones begin the decoder "
            "with StraightThrough()"
        )
    return temperature
