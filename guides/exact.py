"""The exact posterior as a guide, for models that have it in closed form."""

from typing import Any, Protocol

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from .amortized import Amortized


class ModelWithPosterior(Protocol):
    """What :class:`ExactPosterior` asks of a model: its posterior in closed form."""

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """p(z|x) of data (N, *event_shape): batch shape (N,)."""
        ...


class ExactPosterior(nn.Module):
    """The guide q(z|x) = p(z|x) of a model that has its posterior in closed form.

    With this guide the ELBO is log p(x) for every draw of z, all importance weights are equal, and
    gradient steps on the ELBO increase the likelihood itself. Other guides are compared with it.
    The guide holds the model, so it follows the model's parameters as they change.

    Args:
        model: a module with a method ``posterior(x)``, such as :class:`latente.models.PPCA`,
            :class:`latente.models.FactorAnalysis` or :class:`latente.models.GaussianMixture`.

    Raises:
        ValueError: if the model has no such method, or is itself a guide.

    >>> import torch
    >>> from latente.models import PPCA
    >>> guide = ExactPosterior(PPCA(5, 2))
    >>> guide(torch.zeros(3, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(self, model: ModelWithPosterior):
        super().__init__()
        is_guide = isinstance(model, Amortized | ExactPosterior)
        if is_guide or not callable(getattr(model, "posterior", None)):
            raise ValueError(
                f"{type(model).__name__} has no exact posterior: use DiagonalNormal, "
                "FullRankNormal or NormalizingFlow"
            )
        self.model = model

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """p(z|x) of data (N, *event_shape): batch shape (N,)."""
        return self.model.posterior(x)

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z."""
        posterior = self.posterior(x)
        # TraceEnum_ELBO sums a discrete z out; other objectives draw it.
        infer: Any = {"enumerate": "parallel"} if posterior.has_enumerate_support else None
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", posterior, infer=infer)
