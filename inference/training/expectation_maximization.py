"""Expectation maximization, for models that know their exact posterior."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..common.progress import progress
from ..data.load_data import Data
from ..data.rows import as_rows
from ..pairs.parameters import place


@runtime_checkable
class HasEMStep(Protocol):
    """A model that can take one step of expectation maximization."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its parameters, which say where data go."""
        ...

    def em_step(self, x: Tensor, /) -> float:
        """Take the step; returns the mean log p(x) that it started from."""
        ...


def expectation_maximization(
    model: HasEMStep,
    data: Any,
    *,
    max_steps: int = 1000,
    tolerance: float = 1e-8,
    show_progress: bool = False,
) -> list[float]:
    """Maximize Σₙ log p(xₙ) by E and M steps, up to a stationary point (Dempster et al. 1977).

    Each E step makes the bound tight, ELBO = log p(x); each M step raises the bound. So the
    likelihood never falls, except by rounding. The model is fitted in place.

    Args:
        model: with a method ``em_step``: :class:`latente.models.GaussianMixture`,
            :class:`latente.models.FactorAnalysis`, :class:`latente.models.PPCA`.
        data: x, a tensor or array (N, D); the training part, of what :func:`load_data` returns.
        max_steps: the largest number of steps.
        tolerance: stop when a step raises the mean log p(x) by less than this, in nats. In float32
            rounding is larger than the default, and may stop it early.
        show_progress: whether to show the steps done.

    Returns:
        the mean log p(x) before each step, in nats.

    Raises:
        ValueError: if ``max_steps`` is less than 1, the model has no ``em_step``, the data cannot
            be used, or the likelihood grows without limit (a covariance becomes singular).

    >>> import torch
    >>> from latente.models import GaussianMixture
    >>> x = torch.tensor([[-3.0], [-2.5], [-2.0], [2.0], [3.0]])
    >>> mixture = GaussianMixture(2, 1).initialize(x)
    >>> history = expectation_maximization(mixture, x)
    >>> history == sorted(history), sorted(mixture.means.flatten().tolist())
    (True, [-2.5, 2.5])
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if not isinstance(model, HasEMStep):
        raise ValueError(
            f"{type(model).__name__} has no em_step: expectation maximization needs an exact "
            "posterior; use fit"
        )
    x, *context = as_rows(data.train if isinstance(data, Data) else data, "data")
    if context:
        raise ValueError("expectation maximization takes data without a context")
    like = next(model.parameters())
    (x,) = place((x[: len(x)],), like.device, like.dtype)
    history: list[float] = []
    with progress("EM", max_steps, show=show_progress) as advance:
        for _ in range(max_steps):
            history.append(model.em_step(x))
            advance(1, f"log p(x) {history[-1]:.4f} nats")
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
    return history
