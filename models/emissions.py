"""The distribution of an observed sequence given a latent one: independent steps, and padding."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.types import _size

from .padding import fill_padding

Emission = Callable[[Tensor], dist.TorchDistribution]
"""z_t (…, D) to p(x_t|z_t): batch shape (…)."""


class Emissions(dist.Independent):
    """p(x₁, …, x_T | z₁, …, z_T) = ∏ₜ p(x_t|z_t), as one event of shape (T, *event of a step).

    Steps after the end of a sequence count 0, whatever stands there; those of a draw are 0.

    Args:
        emission: from z_t to the distribution of x_t.
        z: latent variables (…, T, D).
        present: which steps are there, (N, T) of bool; ``None``: all.

    >>> z = torch.zeros(2, 3, 1)
    >>> mask = torch.tensor([[True, False, False], [True, True, True]])
    >>> x = Emissions(lambda z: dist.Normal(z, 1.0).to_event(1), z, mask)
    >>> x.event_shape, x.log_prob(torch.full((2, 3, 1), torch.nan).masked_fill(mask[..., None], 0))
    (torch.Size([3, 1]), tensor([-0.9189, -2.7568]))
    """

    def __init__(
        self,
        emission: Emission,
        z: Tensor,
        present: Tensor | None = None,
        *,
        given: dist.TorchDistribution | None = None,
    ):
        self.emission, self.z, self.present = emission, z, present
        steps = given
        if steps is None:
            steps = emission(z) if present is None else _PresentSteps(emission(z), present)
        super().__init__(steps, 1)

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        """The support of the likelihood, at each step that is there."""
        return _PresentSupport(self.base_dist.support, self.present)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Emissions":
        """Expand the batch shape."""
        steps = self.base_dist.expand((*batch_shape, self.event_shape[0]))
        return Emissions(self.emission, self.z, self.present, given=steps)

    def step_log_prob(self, step: int, z: Tensor, value: Tensor) -> Tensor:
        """log p(x_t|z_t) of one step, at any z_t: 0 after the end of a sequence.

        Args:
            step: t, counted from 0.
            z: z_t (…, N, D).
            value: x (N, T, *event of a step).

        Returns:
            (…, N), in nats.
        """
        event_dim = self.event_dim - 1
        x = fill_padding(value, self.present, event_dim).select(-1 - event_dim, step)
        log_prob = self.emission(z).log_prob(x)
        return (
            log_prob
            if self.present is None
            else torch.where(self.present[..., step], log_prob, 0.0)
        )


class _PresentSteps(dist.MaskedDistribution):
    """The distribution of steps, of which those that are not there do not touch the result."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x_t|z_t), (…, N, T): 0 where a step is not there."""
        # A masked log density alone would still pass NaN on to the gradient.
        present: Any = self._mask
        value = fill_padding(value, present, self.event_dim)
        return torch.where(present, self.base_dist.log_prob(value), 0.0)

    @property
    def mean(self) -> Tensor:
        """The mean of each step, 0 where none is there."""
        return self._cut(self.base_dist.mean)

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw steps, with 0 where none is there."""
        return self._cut(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw steps with gradients, with 0 where none is there."""
        return self._cut(self.base_dist.rsample(sample_shape))

    def _cut(self, value: Tensor) -> Tensor:
        present: Any = self._mask
        return value.masked_fill(~present[(..., *[None] * self.event_dim)], 0)


class _PresentSupport(constraints.independent):
    """A support that asks nothing of steps that are not there."""

    def __init__(self, base: constraints.Constraint, mask: Tensor | None):
        super().__init__(base, 1)
        self._present, self._step_dim = mask, base.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Which sequences lie in the support."""
        return super().check(fill_padding(value, self._present, self._step_dim))
