"""What inference asks of distributions over sequences: steps, and what a step makes of x."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor


@runtime_checkable
class StepKL(Protocol):
    """A distribution of steps z (T, D), the KL of whose steps may have a closed form."""

    def has_conditional_kl(self, value: Tensor, prior: object) -> bool:
        """Whether the KL of each step to that of another distribution has a closed form."""
        ...

    def conditional_kl(self, value: Tensor, prior: Any) -> Tensor:
        """KL(q(z_t | z before t) ‖ p(z_t | z before t)) at drawn z, (*batch, T, J)."""
        ...


@runtime_checkable
class Chain(StepKL, Protocol):
    """The distribution of a latent Markov chain z (T, D), such as ``MarkovChain`` is."""

    num_steps: int
    """T."""
    present: Tensor | None
    """Which steps are there, (N, T) of bool; ``None``: all."""

    def step(self, step: int, previous: Tensor | None) -> dist.TorchDistribution:
        """The distribution of z_t given z_{t−1} (…, N, D); step 0 is that of z₁, given nothing."""
        ...


@runtime_checkable
class StepEmissions(Protocol):
    """The distribution of observed steps given a chain, such as ``Emissions`` is."""

    def step_log_prob(self, step: int, z: Tensor, value: Tensor) -> Tensor:
        """log p(x_t|z_t) of x (N, T, …) at any z_t (…, N, D): (…, N); 0 where x_t is not there."""
        ...


def steps_of_chain(distribution: Any) -> int:
    """How many steps a latent site has: T of a chain, 1 of any other."""
    return distribution.num_steps if isinstance(distribution, Chain) else 1


def flags_of_chains(sites: Mapping[str, Any]) -> dict[str, Tensor]:
    """Which steps of z are there, (N, T), by the latent sites that are chains with lengths.

    Args:
        sites: sites of a trace by name.
    """
    chains = {name: site["fn"] for name, site in sites.items() if isinstance(site["fn"], Chain)}
    return {name: fn.present for name, fn in chains.items() if fn.present is not None}


def variance_over_data(values: Tensor, present: Tensor | None = None) -> Tensor:
    """Variance over the data of values (N, *event_shape), padding left out; NaN of one datum.

    Args:
        values: (N, T, …) where there is padding.
        present: which steps are there, (N, T); ``None``: all.

    >>> means = torch.tensor([[1.0, 5.0], [3.0, 0.0], [2.0, 0.0]])
    >>> there = torch.tensor([[True, True], [True, False], [True, False]])
    >>> variance_over_data(means, there)
    tensor([1., nan])
    """
    if present is None:
        return values.var(0) if len(values) > 1 else torch.full_like(values[0], torch.nan)
    found = torch.full_like(values[0], torch.nan)
    for step in range(values.shape[1]):
        there = values[present[:, step], step]
        if len(there) > 1:
            found[step] = there.var(0)
    return found
