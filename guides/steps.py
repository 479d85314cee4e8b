"""The distribution of z₁, …, z_T, each given all before it: drawn and scored step by step."""

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import Independent, constraints
from torch.types import _size

from ..models.markov_chain import step_kl

Step = Callable[[Any, Tensor | None, int], tuple[dist.TorchDistribution, Any]]
"""What is known after step t − 1, z_{t−1} (…, D) and t, from 0, to the distribution of z_t, batch
shape (…) and event shape (D,), and to what is known of step t without z_t. Before step 0 both are
``None``."""


class Steps(dist.TorchDistribution):
    """The distribution ∏ₜ q(z_t | z₁, …, z_{t−1}), as one event of shape (T, D).

    A step hands on a state, so that z_t may depend on all z before it. To draw takes T steps, and
    so does the log density of values that were not drawn here; that of the latest draw is known.

    Args:
        step: from state and z_{t−1} to the distribution of z_t: see :data:`Step`.
        num_steps: T.

    Raises:
        ValueError: if T is less than 1.

    >>> def walk(state, z, t):  # z_t ~ N(z₁ + … + z_{t−1}, 1)
    ...     total = torch.zeros(3, 1) if z is None else state + z
    ...     return dist.Normal(total, 1.0).to_event(1), total
    >>> steps = Steps(walk, num_steps=4)
    >>> z = steps.rsample((2,))
    >>> z.shape, steps.log_prob(z).shape
    (torch.Size([2, 3, 4, 1]), torch.Size([2, 3]))
    """

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(
        self,
        step: Step,
        num_steps: int,
        *,
        first: tuple[dist.TorchDistribution, Any] | None = None,
        batch_shape: _size | None = None,
    ):
        if num_steps < 1:
            raise ValueError(f"there is at least 1 step, got {num_steps}")
        self.step, self.num_steps = step, num_steps
        self.first = step(None, None, 0) if first is None else first
        self._drawn: tuple[Tensor, list[dist.TorchDistribution], bool] | None = None
        shape = self.first[0].batch_shape if batch_shape is None else batch_shape
        super().__init__(Size(shape), Size((num_steps, *self.first[0].event_shape)))

    @property
    def has_rsample(self) -> bool:  # pyright: ignore
        """Whether draws have gradients: whether those of the first step have."""
        return self.first[0].has_rsample

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        """The support of the first step, at every step."""
        return constraints.independent(self.first[0].support, 1)  # pyright: ignore

    def expand(self, batch_shape: _size, _instance: object = None) -> "Steps":
        """Expand the batch shape."""
        return Steps(self.step, self.num_steps, first=self.first, batch_shape=batch_shape)

    def distributions(self, value: Tensor) -> list[dist.TorchDistribution]:
        """q(z_t | z₁, …, z_{t−1}) of each step, at values z (…, T, D)."""
        if self._drawn is not None:
            drawn, each, with_gradient = self._drawn
            # Parameters of a draw without gradients serve no score that is to have them.
            if drawn is value and (with_gradient or not torch.is_grad_enabled()):
                return each
        return self._run(value.unbind(-2))[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) of values (…, T, D)."""
        steps = zip(self.distributions(value), value.unbind(-2), strict=True)
        total = torch.stack(torch.broadcast_tensors(*[each.log_prob(z) for each, z in steps])).sum(
            0
        )
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def rsample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step."""
        steps, each = self._run(None, Size((*sample_shape, *self.batch_shape)))
        z = torch.stack(steps, -2)
        self._drawn = z, each, torch.is_grad_enabled()
        return z

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _run(
        self,
        given: tuple[Tensor, ...] | None,
        shape: Size = Size(),  # noqa: B008
    ) -> tuple[list[Tensor], list[dist.TorchDistribution]]:
        """All z_t, given or drawn with a batch shape, and their distributions."""
        distribution, state = self.first
        steps, each = [], []
        for step in range(self.num_steps):
            if step:
                distribution, state = self.step(state, steps[-1], step)
            each.append(distribution)
            if given is not None:
                steps.append(given[step])
            elif distribution.batch_shape == shape:
                steps.append(distribution.rsample())
            else:
                steps.append(distribution.expand(shape).rsample())
        return steps, each

    def has_conditional_kl(self, value: Tensor, prior: object) -> bool:
        """Whether :meth:`conditional_kl` has a closed form for a prior."""
        if _prior_steps(prior, self.event_shape) is None:
            return False
        try:
            self.conditional_kl(value, prior)
        except (NotImplementedError, IndexError):
            return False
        return True

    def conditional_kl(self, value: Tensor, prior: Any) -> Tensor:
        """KL(q(z_t | z₁, …, z_{t−1}) ‖ p(z_t)) of each step, at drawn z.

        Summed over the steps, its mean over draws is KL(q ‖ p). It varies less than log q − log p,
        as each z_t is integrated out.

        Args:
            value: z (…, T, D), drawn from this distribution.
            prior: a product over T and D, such as ``StandardNormal((T, D))()``.

        Returns:
            (…, T, D) where the distributions of all steps are products over dimensions, else
            (…, T, 1).

        Raises:
            NotImplementedError: if the prior is no product, or PyTorch has no formula for it.
        """
        priors = _prior_steps(prior, self.event_shape)
        if priors is None:
            raise NotImplementedError("the prior is no product over steps and dimensions")
        batch = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        kls = [step_kl(q, p) for q, p in zip(self.distributions(value), priors, strict=True)]
        return torch.stack([kl.expand(*batch, kl.shape[-1]) for kl in kls], -2)


def _prior_steps(prior: Any, event_shape: Size) -> list[dist.TorchDistribution] | None:
    """p(z_t) of each step of a product of normals over (T, D); ``None``: it is no such prior."""
    if not isinstance(prior, Independent) or prior.event_shape != event_shape:
        return None
    base = prior.base_dist
    if not isinstance(base, torch.distributions.Normal) or prior.reinterpreted_batch_ndims != 2:
        return None
    loc, scale = (part.unbind(-2) for part in (base.loc, base.scale))
    return [dist.Normal(m, s).to_event(1) for m, s in zip(loc, scale, strict=True)]
