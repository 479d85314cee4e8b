"""The distribution of a Markov chain z₁, …, z_T: drawn step by step, scored in one pass."""

from collections.abc import Callable
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import Independent, constraints, kl_divergence
from torch.types import _size

Transition = Callable[[Tensor, int | slice], dist.TorchDistribution]
"""z_{t−1} (…, D) and t to the distribution of z_t; or z_{t−1} (…, T', D) and a slice of T' steps to
that of all these z_t. Steps are counted from 0, whose z has the initial distribution."""


class MarkovChain(dist.TorchDistribution):
    """The distribution of a Markov chain, as one event of shape (T, D).

    ::

        p(z₁, …, z_T) = p(z₁) ∏ₜ p(z_t | z_{t−1})

    A draw takes T steps. Its log density takes one pass of the transition over all steps, as all
    z_{t−1} are known. Steps after the end of a sequence are 0, and count 0.

    Args:
        initial: the distribution of z₁: event shape (D,), batch shape () or (N,).
        transition: from z_{t−1} and t to the distribution of z_t: see :data:`Transition`.
        num_steps: T.
        present: which steps are there, (N, T) of bool; the first one always is. ``None``: all.
        memoryless: whether z_t does not depend on z_{t−1}; all steps are then drawn at once.

    Raises:
        ValueError: if z₁ is not a vector, or T is less than 1.

    >>> start = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    >>> walk = MarkovChain(start, lambda z, steps: dist.Normal(z, 0.1).to_event(1), num_steps=5)
    >>> z = walk.rsample((3,))
    >>> z.shape, walk.log_prob(z).shape
    (torch.Size([3, 5, 2]), torch.Size([3]))
    """

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(
        self,
        initial: dist.TorchDistribution,
        transition: Transition,
        num_steps: int,
        present: Tensor | None = None,
        *,
        memoryless: bool = False,
        batch_shape: _size | None = None,
    ):
        _check(initial, num_steps)
        self.initial, self.transition = initial, transition
        self.num_steps, self.present, self.memoryless = num_steps, present, memoryless
        rows = Size() if present is None else present.shape[:-1]
        shape = batch_shape or torch.broadcast_shapes(initial.batch_shape, rows)
        super().__init__(Size(shape), Size((num_steps, *initial.event_shape)))

    @property
    def has_rsample(self) -> bool:  # pyright: ignore
        """Whether draws have gradients: whether those of the first step have."""
        return self.initial.has_rsample

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        """The support of the first step, at every step."""
        return constraints.independent(self.initial.support, 1)  # pyright: ignore

    @property
    def mean(self) -> Tensor:
        """The mean, known where steps do not depend on one another; 0 in the padding."""
        return self._without_padding(_moment(self, "mean"))

    @property
    def variance(self) -> Tensor:
        """The variance, known as :attr:`mean` is."""
        return self._without_padding(_moment(self, "variance"))

    def expand(self, batch_shape: _size, _instance: object = None) -> "MarkovChain":
        """Expand the batch shape."""
        return MarkovChain(
            self.initial, self.transition, self.num_steps, self.present,
            memoryless=self.memoryless, batch_shape=batch_shape,
        )  # fmt: skip

    def step(self, step: int, previous: Tensor | None) -> dist.TorchDistribution:
        """The distribution of z_t given z_{t−1} (…, D); step 0 is that of z₁, given nothing."""
        return self.initial if step == 0 or previous is None else self.transition(previous, step)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) of values (…, T, D)."""
        value = self._without_padding(value)
        total = self.initial.log_prob(value[..., 0, :])
        if self.num_steps > 1:
            given = self.transition(value[..., :-1, :], slice(1, None))
            later = given.log_prob(value[..., 1:, :])
            if self.present is not None:
                later = torch.where(self.present[..., 1:], later, 0.0)
            total = total + later.sum(-1)
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def rsample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step."""
        shape = Size((*sample_shape, *self.batch_shape))
        z = self.initial.expand(shape).rsample()
        if self.memoryless and self.num_steps > 1:
            nothing = z.new_zeros(self.num_steps - 1, z.shape[-1])
            later = self.transition(nothing, slice(1, None)).expand((*shape, self.num_steps - 1))
            return self._without_padding(torch.cat([z[..., None, :], later.rsample()], -2))
        steps = [z]
        for step in range(1, self.num_steps):
            given = self.transition(steps[-1], step)
            steps.append((given if given.batch_shape == shape else given.expand(shape)).rsample())
        return self._without_padding(torch.stack(steps, -2))

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def has_conditional_kl(self, value: Tensor, prior: object) -> bool:
        """Whether :meth:`conditional_kl` has a closed form: both are chains over the same steps."""
        if not isinstance(prior, MarkovChain) or not _same(self.present, prior.present):
            return False
        try:
            self.conditional_kl(value, prior)
        except (NotImplementedError, IndexError):
            return False
        return True

    def conditional_kl(self, value: Tensor, prior: "MarkovChain") -> Tensor:
        """KL(q(z_t | z_{t−1}) ‖ p(z_t | z_{t−1})) of each step, at drawn z_{t−1}.

        Summed over the steps, its mean over draws of this chain is KL(q ‖ p). It varies less than
        log q − log p, as each z_t is integrated out.

        Args:
            value: z (…, T, D), drawn from this chain.
            prior: the other chain.

        Returns:
            (…, T, D) where all conditionals are products over dimensions, else (…, T, 1).

        Raises:
            NotImplementedError: if PyTorch has no formula for it.
        """
        value = self._without_padding(value)
        batch = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        first = step_kl(self.initial, prior.initial)
        kl = first.expand(*batch, first.shape[-1])[..., None, :]
        if self.num_steps > 1:
            before, steps = value[..., :-1, :], slice(1, None)
            later = step_kl(self.transition(before, steps), prior.transition(before, steps))
            kl = torch.cat([kl, later.expand(*batch, *later.shape[-2:])], -2)
        return kl if self.present is None else torch.where(self.present[..., None], kl, 0.0)

    def _without_padding(self, value: Tensor) -> Tensor:
        return value if self.present is None else torch.where(self.present[..., None], value, 0.0)


def _check(initial: dist.TorchDistribution, num_steps: int) -> None:
    if len(initial.event_shape) != 1:
        raise ValueError(
            f"each step of a chain is a vector, and z₁ has the event shape "
            f"{tuple(initial.event_shape)}: end it with .to_event(1)"
        )
    if num_steps < 1:
        raise ValueError(f"a chain has at least 1 step, got {num_steps}")


def _moment(chain: MarkovChain, name: str) -> Tensor:
    """A moment of each step, (*batch, T, D).

    Raises:
        NotImplementedError: if steps depend on one another, or have no formula for it.
    """
    if not chain.memoryless:
        raise NotImplementedError(f"the {name} of a chain is not known in closed form")
    first = getattr(chain.initial, name)
    moment = first.expand(*chain.batch_shape, first.shape[-1])[..., None, :]
    if chain.num_steps == 1:
        return moment
    nothing = first.new_zeros(chain.num_steps - 1, first.shape[-1])
    later = getattr(chain.transition(nothing, slice(1, None)), name)
    later = later.expand(*chain.batch_shape, *later.shape[-2:])
    return torch.cat([moment, later], -2)


def step_kl(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q ‖ p), (*batch, D) of products over D dimensions, else (*batch, 1)."""
    if _is_product(q) and _is_product(p):
        return kl_divergence(q.base_dist, p.base_dist)  # pyright: ignore
    return kl_divergence(q, p)[..., None]


def _is_product(distribution: object) -> bool:
    return isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)
