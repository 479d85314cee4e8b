"""Amortized normal posteriors: a diagonal covariance, and a full one."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.kl import register_kl

from .amortized import Amortized


class DiagonalNormal(Amortized):
    """The diagonal normal posterior q(z|x) = N(z; μ(x), diag σ²(x)), amortized.

    The encoder's features of a datum are (μ, log σ), in this order, and
    z = μ + σ ⊙ ε with ε ~ N(0, I): the reparameterization through which gradients reach
    the encoder (Kingma and Welling 2014, arXiv 1312.6114).

    The guide is a Pyro program ``guide(x)`` with the site ``"z"`` inside a plate named
    ``"data"`` at dimension −1.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, 2 · latent_dim).
        latent_dim: dimension of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the encoder's
            features are not 2 · latent_dim long.

    >>> from latente.models import mlp
    >>> guide = DiagonalNormal(encoder=mlp(64, 16, out=4), latent_dim=2)
    >>> q = guide.posterior(torch.zeros(5, 8, 8))
    >>> q.batch_shape, q.event_shape
    (torch.Size([5]), torch.Size([2]))
    """

    layout = "μ, log σ"

    def __init__(self, encoder: nn.Module, latent_dim: int):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))

    @staticmethod
    def num_features(latent_dim: int) -> int:
        """How many features the encoder gives: 2 · latent_dim."""
        return 2 * latent_dim

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, 2 · latent_dim) to q(z|x)."""
        mean, log_scale = features.chunk(2, dim=-1)
        return dist.Normal(mean, log_scale.exp()).to_event(1)


class FullRankNormal(Amortized):
    """The normal posterior of full covariance q(z|x) = N(z; μ(x), L(x) L(x)ᵀ), amortized.

    The encoder's features of a datum are (μ, log σ, L′): L′ the entries below the diagonal,
    row by row. With L = L′ + diag σ and ε ~ N(0, I), z = μ + Lε (Kingma and Welling 2019,
    section 2.5.1, arXiv 1906.02691). The covariance is never formed, so none can lose its
    positive definiteness to rounding. To a diagonal normal prior its KL is exact; to N(0, I)
    it is ½(Σᵢⱼ Lᵢⱼ² + μᵀμ − K − 2 Σₖ log σₖ).

    Args:
        encoder: a network from x (N, *event_shape) to features (N, K (K + 3) / 2).
        latent_dim: dimension K of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the encoder's
            features are not K (K + 3) / 2 long.

    >>> from latente.models import mlp
    >>> guide = FullRankNormal(mlp(64, 16, out=FullRankNormal.num_features(2)), latent_dim=2)
    >>> guide.posterior(torch.zeros(5, 8, 8)).scale_tril.shape
    torch.Size([5, 2, 2])
    """

    layout = "μ, log σ, L′ below the diagonal"

    def __init__(self, encoder: nn.Module, latent_dim: int):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))

    @staticmethod
    def num_features(latent_dim: int) -> int:
        """How many features the encoder gives: K of μ, K of log σ, K (K − 1) / 2 of L′."""
        return latent_dim * (latent_dim + 3) // 2

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, K (K + 3) / 2) to q(z|x)."""
        dim = self.latent_dim
        mean, log_scale, below = features.split([dim, dim, self.width - 2 * dim], dim=-1)
        rows, columns = torch.tril_indices(dim, dim, -1, device=features.device)
        scale_tril = torch.diag_embed(log_scale.exp())
        scale_tril[..., rows, columns] = below
        return dist.MultivariateNormal(mean, scale_tril=scale_tril)


@register_kl(dist.MultivariateNormal, dist.Independent)
def _kl_to_diagonal(q: dist.MultivariateNormal, p: dist.Independent) -> Tensor:
    """KL(N(μ, LLᵀ) ‖ N(m, diag s²)), which neither PyTorch nor Pyro knows.

    Every entry of L enters, through the trace of LLᵀ.
    """
    prior = p.base_dist
    if not isinstance(prior, torch.distributions.Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"the posterior is of {q.event_shape[0]} dimensions, the prior of {p.event_shape[0]}"
        )
    diagonal = q.scale_tril.diagonal(dim1=-2, dim2=-1)
    squares = q.scale_tril.square().sum(-1) + (q.loc - prior.loc).square()
    terms = squares / prior.scale.square() - 1 + 2 * (prior.scale.log() - diagonal.log())
    return 0.5 * terms.sum(-1)
