"""``Example``: a published pair with its data, as its author hands them to ``pyro.infer.SVI``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Example:
    """A model, a guide, the arguments of ``svi.step`` and the published objective."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    data: tuple[Any, ...] | dict[str, Any]
    """Arguments of both programs: by position or by keyword."""
    objective: ELBO
    learning_rate: float = 0.02
    exact: Callable[[], Tensor] | None = None
    """Exact log p(data) under the pair's present parameters, in nats: (N,), or one number."""
    after_step: Callable[[], None] = lambda: None
    """What the example does after each gradient step."""

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function with the arguments of both programs."""
        return function(**self.data) if isinstance(self.data, dict) else function(*self.data)


def grid(num_dims: int, num_points: int, half_width: float = 6.0) -> tuple[Tensor, Tensor]:
    """Standard normal quadrature: points (P, num_dims) and log weights (P,), float64."""
    axis = torch.linspace(-half_width, half_width, num_points, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * num_dims).reshape(-1, num_dims)
    log_weights = -0.5 * points.square().sum(-1)
    return points, log_weights - log_weights.logsumexp(0)


def bernoulli(probs: Tensor, x: Tensor) -> Tensor:
    """Log probabilities (..., N, P) of binary data (..., N, D) under probabilities (..., P, D)."""
    # As torch.distributions.Bernoulli does in float32: a logit is finite.
    probs = probs.float().clamp(EPS, 1 - EPS).double()
    x = x.double()
    return x @ probs.log().mT + (1 - x) @ (-probs).log1p().mT


def digits(num_data: int) -> tuple[Tensor, Tensor]:
    """Binary images of digits (N, 8, 8) and their labels (N,), from scikit-learn."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.from_numpy(loaded.images[:num_data] > 7).float()
    return images, torch.from_numpy(loaded.target[:num_data])
