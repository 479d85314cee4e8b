"""The exact posterior as a guide, for models that know theirs."""

from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from .amortized import Amortized


class ExactPosterior(nn.Module):
    """The guide q(z|x) = p(z|x) of a model that has it in closed form.

    With it the ELBO is log p(x), whatever z is drawn, every importance weight is the same, and
    gradient steps on the ELBO climb the likelihood itself. It is the answer that other guides
    are held against. The model's parameters are the guide's too, and followed as they change.

    Args:
        model: a model with a method ``posterior(x)``, such as :class:`latente.models.PPCA`,
            :class:`latente.models.FactorAnalysis` or :class:`latente.models.GaussianMixture`.

    Raises:
        ValueError: if the model has none, or is itself a guide.

    >>> import torch
    >>> from latente.models import PPCA
    >>> guide = ExactPosterior(PPCA(5, 2))
    >>> guide(torch.zeros(3, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(self, model: nn.Module):
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
        return self.model.posterior(x)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z."""
        posterior = self.posterior(x)
        # A discrete z is summed out by TraceEnum_ELBO; other objectives draw it.
        infer: Any = {"enumerate": "parallel"} if posterior.has_enumerate_support else None
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", posterior, infer=infer)
