"""What inference asks of distributions over sequences: steps, and what a step makes of x."""

from typing import Any, Protocol, runtime_checkable

import pyro.distributions as dist
from torch import Tensor


@runtime_checkable
class Chain(Protocol):
    """The distribution of a latent Markov chain z (T, D), such as ``MarkovChain`` is."""

    num_steps: int
    """T."""
    present: Tensor | None
    """Which steps are there, (N, T) of bool; ``None``: all."""

    def step(self, step: int, previous: Tensor | None) -> dist.TorchDistribution:
        """The distribution of z_t given z_{t−1} (…, N, D); step 0 is that of z₁, given nothing."""
        ...

    def has_conditional_kl(self, value: Tensor, prior: object) -> bool:
        """Whether the KL of each step to that of another distribution has a closed form."""
        ...

    def conditional_kl(self, value: Tensor, prior: Any) -> Tensor:
        """KL(q(z_t | z_{t−1}) ‖ p(z_t | z_{t−1})) at drawn z, (*batch, T, J)."""
        ...


@runtime_checkable
class StepEmissions(Protocol):
    """The distribution of observed steps given a chain, such as ``Emissions`` is."""

    def step_log_prob(self, step: int, z: Tensor, value: Tensor) -> Tensor:
        """log p(x_t|z_t) of x (N, T, …) at any z_t (…, N, D): (…, N); 0 where x_t is not there."""
        ...
