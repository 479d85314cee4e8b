"""Linear Gaussian models with exact answers: probabilistic PCA and factor analysis."""

from typing import Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods.normal import Normal
from .networks.mlp import mlp
from .priors.standard_normal import StandardNormal
from .vae import VAE


class LinearGaussian(VAE):
    """A VAE with a linear decoder: its evidence and posterior are known in closed form.

    ::

        z ~ N(0, I),   x | z ~ N(Wz + b, Ψ),   Ψ = diag ψ²
        x ~ N(b, WWᵀ + Ψ)
        z | x ~ N(Λ⁻¹WᵀΨ⁻¹(x − b), Λ⁻¹),   Λ = I + WᵀΨ⁻¹W

    :class:`PPCA` and :class:`FactorAnalysis` differ only in Ψ. Λ is never formed: its Cholesky
    factor comes from a QR factorization of (I, Ψ^(−½)W), so that rounding cannot make it
    indefinite, in float32 too.

    Args:
        observed_dim: D, length of x.
        latent_dim: K, less than D.
        scale: ψ, of shape () or (D,), positive.

    Raises:
        ValueError: if K is not between 1 and D − 1.
    """

    likelihood: Normal

    def __init__(self, observed_dim: int, latent_dim: int, scale: Tensor):
        if not 1 <= latent_dim < observed_dim:
            raise ValueError(
                f"latent_dim must be at least 1 and less than the {observed_dim} dimensions of the "
                f"data, got {latent_dim}; with as many, nothing is left for the noise: use a "
                "GaussianMixture of one component for a full covariance"
            )
        likelihood = Normal((observed_dim,), scale=nn.Parameter(scale))
        super().__init__(StandardNormal(latent_dim), mlp(latent_dim, out=observed_dim), likelihood)

    @property
    def weight(self) -> nn.Parameter:
        """W, (D, K)."""
        return self.decoder.get_submodule("1").weight  # pyright: ignore

    @property
    def bias(self) -> nn.Parameter:
        """b, (D,)."""
        return self.decoder.get_submodule("1").bias  # pyright: ignore

    @property
    def scale(self) -> Tensor:
        """ψ, standard deviations of the noise, (D,)."""
        return self._log_scale.exp().expand(self.bias.shape)

    @property
    def _log_scale(self) -> nn.Parameter:
        assert self.likelihood.log_scale is not None
        return self.likelihood.log_scale

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z|x) of data (N, D): batch shape (N,), event shape (K,)."""
        self._check_shape(x)
        x = x.to(self.weight)
        scaled = self.weight / self.scale[:, None]
        scale_tril = _inverse_root(scaled)
        gain = scale_tril @ scale_tril.mT @ scaled.mT / self.scale
        mean = (x - self.bias) @ gain.mT
        return dist.MultivariateNormal(mean, scale_tril=scale_tril.expand(*mean.shape[:-1], -1, -1))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of data (N, D), exact, in nats: (N,).

        Bayes' rule at the posterior mean, log p(x) = log p(x, z) − log p(z|x), avoids factorizing
        a D × D covariance.
        """
        posterior, x = self.posterior(x), x.to(self.weight)
        z = posterior.mean
        log_joint = self.prior().log_prob(z) + self.likelihood(self.decoder(z)).log_prob(x)
        return log_joint - posterior.log_prob(z)

    def em_step(self, x: Tensor) -> float:
        """Make one step of expectation maximization (Rubin and Thayer 1982) on data (N, D).

        Returns:
            the mean log p(x) before the step, in nats; the step does not lower it.

        Raises:
            ValueError: if the data do not have this shape, are not finite, or leave no noise for
                some element; the model is then unchanged.
        """
        x = torch.as_tensor(x).to(self.weight)
        self._check_dataset(x)
        with torch.no_grad():
            before = self.log_prob(x).mean().item()
            centred = x - x.mean(0)
            posterior = self.posterior(centred + self.bias)
            mean, factor = posterior.mean, posterior.scale_tril[0]
            moment = mean.mT @ mean / len(x) + factor @ factor.mT
            weight = torch.linalg.solve(moment, centred.mT @ mean / len(x), left=False)
            # Not C − W E[zxᵀ]: rounding can make that difference negative.
            residual = (centred - mean @ weight.mT).square().mean(0)
            residual = residual + (weight @ factor).square().sum(-1)
            self._set_parameters(x.mean(0), weight, residual, centred.square().mean(0))
        return before

    def _set_parameters(self, bias: Tensor, weight: Tensor, noise: Tensor, total: Tensor) -> None:
        """Set all parameters; set none if the noise is negligible in the total variance."""
        if self._log_scale.dim() == 0:
            noise, total = noise.mean(), total.mean()
        limit = 100 * torch.finfo(total.dtype).eps * total
        if not bool((noise > limit).all()):
            raise ValueError(
                "the data leave no noise around the linear model, so its likelihood has no "
                "maximum: take a smaller latent_dim, or drop elements that are constant or linear "
                "functions of others"
            )
        self.bias.copy_(bias)
        self.weight.copy_(weight)
        self._log_scale.copy_(noise.log() / 2)

    def _check_shape(self, x: Tensor, *, batched: bool = True) -> None:
        dim = self.weight.shape[0]
        if not x.shape or x.shape[-1] != dim or (not batched and len(x.shape) != 2):
            raise ValueError(
                f"{type(self).__name__} takes data of shape (N, {dim}), got {tuple(x.shape)}"
            )

    def _check_dataset(self, x: Tensor) -> None:
        self._check_shape(x, batched=False)
        if not bool(x.isfinite().all()):
            raise ValueError("the data hold NaN or infinity")

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class PPCA(LinearGaussian):
    """Probabilistic PCA (Tipping and Bishop 1999): z ~ N(0, I), x | z ~ N(Wz + b, σ²I).

    This is a VAE with a linear decoder. Its evidence, posterior and maximum-likelihood parameters
    are known in closed form, and guides, estimators and diagnostics can be compared with them.

    Args:
        observed_dim: D, length of x.
        latent_dim: K, less than D.

    Raises:
        ValueError: if K is not between 1 and D − 1.

    >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    >>> model = PPCA(5, 2).maximum_likelihood(x)
    >>> model.log_prob(x).shape, model.posterior(x).event_shape
    (torch.Size([100]), torch.Size([2]))
    """

    def __init__(self, observed_dim: int, latent_dim: int):
        super().__init__(observed_dim, latent_dim, torch.ones(()))

    def maximum_likelihood(self, x: Tensor, rotation: Tensor | None = None) -> Self:
        """Set b, W, σ to the values that maximize Σₙ log p(xₙ), in closed form.

        With u₁ … u_D and λ₁ ≥ … ≥ λ_D the principal directions and variances of x::

            b = mean x,   σ² = Σ_{j>K} λⱼ / (D − K),   W = (u₁ … u_K) diag √(λⱼ − σ²) R

        Args:
            x: data (N, D), a tensor or array.
            rotation: an orthogonal R, (K, K); all of them have the same likelihood. By default the
                identity, with which the posterior is a diagonal normal.

        Returns:
            the model itself.

        Raises:
            ValueError: if the data do not have this shape, are not finite, or vary in at most K
                directions, so that σ would be zero; the model is then unchanged.
        """
        x = torch.as_tensor(x).to(self.weight)
        self._check_dataset(x)
        observed_dim, latent_dim = self.weight.shape
        with torch.no_grad():
            _, spread, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
            variances = spread.square() / len(x)
            noise = variances[latent_dim:].sum() / (observed_dim - latent_dim)
            weight = (
                directions[:latent_dim].mT * (variances[:latent_dim] - noise).clamp(min=0).sqrt()
            )
            if rotation is not None:
                weight = weight @ rotation.to(weight)
            if weight.shape != self.weight.shape:  # fewer than K data: no variance is left
                weight, noise = self.weight, torch.zeros_like(noise)
            self._set_parameters(x.mean(0), weight, noise, variances.sum() / observed_dim)
        return self


class FactorAnalysis(LinearGaussian):
    """Factor analysis: z ~ N(0, I), x | z ~ N(Wz + b, diag ψ²), a noise scale for each element.

    Maximum likelihood has no closed form; :func:`latente.inference.expectation_maximization`
    finds it iteratively (Rubin and Thayer 1982), and so does ``fit``.

    Args:
        observed_dim: D, length of x.
        latent_dim: K, less than D.

    Raises:
        ValueError: if K is not between 1 and D − 1.

    >>> FactorAnalysis(5, 2).log_prob(torch.zeros(3, 5)).shape
    torch.Size([3])
    """

    def __init__(self, observed_dim: int, latent_dim: int):
        super().__init__(observed_dim, latent_dim, torch.ones(observed_dim))


def _inverse_root(scaled: Tensor) -> Tensor:
    """Compute the lower triangular L with positive diagonal and LLᵀ = (I + AᵀA)⁻¹, A (D, K)."""
    eye = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
    # Columns are reversed: R with RᵀR = I + AᵀA, transposed and reversed back, is upper triangular.
    upper = torch.linalg.qr(torch.cat([eye, scaled]).flip(-1)).R
    upper = upper * upper.diagonal().sign()[:, None]
    root = upper.mT.flip(-1, -2)
    return torch.linalg.solve_triangular(root, eye, upper=True).mT
