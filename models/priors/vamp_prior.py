"""VampPrior: a mixture of the guide's posteriors at learned pseudo-inputs."""

from collections.abc import Iterator
from typing import Protocol, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..contexts import takes_context
from ..latent_shape import check_vector
from .normal_mixture import mixture_of


class GuideWithPosterior(Protocol):
    """What a :class:`VampPrior` asks of the guide: a module that gives q(z|x) as a distribution."""

    training: bool

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) of data (N, *event_shape): batch shape (N,), event shape (latent_dim,)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its parameters, whose dtype and device the pseudo-inputs take."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation mode."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, or with ``False`` to evaluation mode."""
        ...


class VampPrior(nn.Module):
    """A mixture of the guide's posteriors at C learned pseudo-inputs u, p(z) = 1/C Σ_c q(z|u_c).

    Source: Tomczak and Welling 2018 (arXiv 1705.07120). The best prior for a guide is its posterior
    averaged over the data; this one averages it over a few learned inputs instead. The guide's
    encoder is then also part of the model.

    Args:
        guide: the amortized guide of the same pair.
        pseudo_inputs: their initial values, (C, *event_shape); training data are a good choice.
            They may leave the range of the data.

    Raises:
        ValueError: if there are no pseudo-inputs, or they hold NaN or infinity, or do not fit the
            guide's encoder; if the guide has no method ``posterior``, takes a context, is of maps,
            or is a point without a density.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import VAE, Bernoulli, mlp
    >>> guide = DiagonalNormal(mlp(64, 16, out=4), latent_dim=2)
    >>> prior = VampPrior(guide, torch.rand(10, 8, 8))
    >>> vae = VAE(prior, mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, guide: GuideWithPosterior, pseudo_inputs: Tensor):
        super().__init__()
        if not callable(getattr(guide, "posterior", None)):
            raise ValueError(
                "a VampPrior mixes the posteriors of an amortized guide, such as DiagonalNormal, "
                f"not of a {type(guide).__name__}"
            )
        if takes_context(guide):
            raise ValueError(
                "the guide takes a context, which the pseudo-inputs of a VampPrior do not have: "
                "take a ConditionalNormal prior, or an encoder without a context"
            )
        inputs = torch.as_tensor(pseudo_inputs).detach()
        like = next((value for value in guide.parameters()), torch.zeros(()))
        inputs = inputs.to(like)
        if inputs.dim() == 0 or len(inputs) == 0 or not bool(inputs.isfinite().all()):
            raise ValueError(
                f"pseudo-inputs are finite numbers (C, *event_shape), got shape "
                f"{tuple(inputs.shape)}" + (" with NaN or infinity" if inputs.numel() else "")
            )
        training = guide.training
        try:
            with torch.no_grad(), torch.random.fork_rng():
                distribution = guide.eval().posterior(inputs)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"pseudo-inputs of shape {tuple(inputs.shape)} do not fit the guide's encoder; "
                f"give them the shape of the data, (C, *event_shape): {str(error).splitlines()[0]}"
            ) from error
        finally:
            guide.train(training)
        if isinstance(distribution, dist.Delta):
            raise ValueError(
                f"the posterior of {type(guide).__name__} is a point without a density, which a "
                "VampPrior cannot mix"
            )
        if len(distribution.event_shape) > 1:
            check_vector(tuple(distribution.event_shape), "a VampPrior")
        self.guide = guide
        self.latent_dim = distribution.event_shape[-1]
        self.pseudo_inputs = nn.Parameter(inputs.clone())

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        components = self.guide.posterior(self.pseudo_inputs)
        return mixture_of(self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)), components)

    def extra_repr(self) -> str:
        """Number and shape of the pseudo-inputs."""
        count, *shape = self.pseudo_inputs.shape
        return f"{count} pseudo-inputs of {tuple(shape)}"
