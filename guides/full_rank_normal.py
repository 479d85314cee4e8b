"""Amortized normal posterior with a full covariance, and its KL to a diagonal normal prior."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.kl import register_kl

from ..models.latent_shape import check_vector
from .amortized import Amortized


class FullRankNormal(Amortized):
    """The normal posterior with a full covariance, q(z|x) = N(z; μ(x), L(x) L(x)ᵀ), amortized.

    The encoder's features of a datum are (μ, log σ, L′), where L′ holds the entries below the
    diagonal, row by row. With L = L′ + diag σ and ε ~ N(0, I), a draw is z = μ + Lε (Kingma and
    Welling 2019, section 2.5.1, arXiv 1906.02691). The covariance is never formed, so rounding
    cannot make it indefinite. The KL to a diagonal normal prior is exact; to N(0, I) it is
    ½(Σᵢⱼ Lᵢⱼ² + μᵀμ − K − 2 Σₖ log σₖ).

    Args:
        encoder: a network from x (N, *event_shape) to features (N, K (K + 3) / 2).
        latent_dim: dimension K of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or a shape, or, when run, if the encoder does
            not give K (K + 3) / 2 features.

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
        """Number of features that the encoder gives: K of μ, K of log σ, K (K − 1) / 2 of L′."""
        check_vector(latent_dim, "a FullRankNormal")
        return latent_dim * (latent_dim + 3) // 2

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, K (K + 3) / 2) to q(z|x)."""
        (dim,) = self.event_shape
        mean, log_scale, below = features.split([dim, dim, self.width - 2 * dim], dim=-1)
        rows, columns = torch.tril_indices(dim, dim, -1, device=features.device)
        scale_tril = torch.diag_embed(log_scale.exp())
        scale_tril[..., rows, columns] = below
        return dist.MultivariateNormal(mean, scale_tril=scale_tril)


@register_kl(dist.MultivariateNormal, dist.Independent)
def _kl_to_diagonal(q: dist.MultivariateNormal, p: dist.Independent) -> Tensor:
    """KL(N(μ, LLᵀ) ‖ N(m, diag s²)), which neither PyTorch nor Pyro implements."""
    prior = p.base_dist
    if not isinstance(prior, torch.distributions.Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"the posterior has {q.event_shape[0]} dimensions, but the prior has "
            f"{p.event_shape[0]}: give both the same latent_dim"
        )
    diagonal = q.scale_tril.diagonal(dim1=-2, dim2=-1)
    squares = q.scale_tril.square().sum(-1) + (q.loc - prior.loc).square()
    terms = squares / prior.scale.square() - 1 + 2 * (prior.scale.log() - diagonal.log())
    return 0.5 * terms.sum(-1)
