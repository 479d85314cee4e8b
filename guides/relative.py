"""Posteriors of one level relative to its prior: weighted by precision, or as a residual."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .normal_features import NormalFeatures
from .own_features import Features


class Relative(NormalFeatures):
    """Base class of the posteriors of a level below the top that start from its prior.

    A subclass implements :meth:`combine`. It is a part of a :class:`TopDown` guide, no guide by
    itself. The prior is a diagonal normal distribution given the levels above.
    """

    def combine(
        self, mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_scale: Tensor
    ) -> dist.TorchDistribution:
        """Features and prior, each (…, *event_shape), to q(z|x, levels above)."""
        raise NotImplementedError(f"{type(self).__name__} has no posterior family")

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Refuse to be a guide by itself, without the prior of a level."""
        raise self._without_prior()

    def _without_prior(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} starts from the prior of its level: make it a part of TopDown, "
            "below the top; at the top take DiagonalNormal"
        )

    def posterior_of_level(
        self, features: Features, state: tuple[Tensor, ...], prior: dist.TorchDistribution | None
    ) -> dist.TorchDistribution:
        """q(z|features, state) with any leading batch shape; see :class:`Amortized`."""
        if prior is None:
            raise self._without_prior()
        normal = prior.base_dist if isinstance(prior, dist.Independent) else None
        if not isinstance(normal, torch.distributions.Normal):
            raise ValueError(
                f"{type(self).__name__} starts from a diagonal normal prior of its level, such as "
                f"ConditionalNormal, got {type(normal or prior).__name__}: take DiagonalNormal"
            )
        mean, log_scale = self.mean_and_log_scale(self.encode(features, state))
        return self.combine(mean, log_scale, normal.loc, normal.scale)


class PrecisionWeighted(Relative):
    """The posterior of a ladder VAE: the prior of a level, times normal evidence from the data.

    ::

        q(z) ∝ N(z; μ_p, σ_p²) · N(z; μ̂(x), σ̂²(x))
        1/σ² = 1/σ_p² + 1/σ̂²,   μ = σ² (μ_p/σ_p² + μ̂/σ̂²)

    The encoder's features are (μ̂, log σ̂) (Sønderby et al. 2016, arXiv 1602.02282). In a linear
    Gaussian hierarchy with independent dimensions this is the exact posterior of a level.

    Args:
        encoder: a network from the level's features to (μ̂, log σ̂), 2 · latent_dim numbers, or for
            maps 2C channels; one that takes a context, such as :class:`latente.models.Conditional`,
            gets the state of the level above.
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        max_log_scale: m, with log σ̂ = m tanh(feature / m), which stays between −m and m; with
            one for the priors too, no scale overflows. ``None``: log σ̂ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive; when run,
            if the prior of the level is no diagonal normal, or the encoder does not give
            2 · latent_dim features.

    >>> import torch
    >>> from torch import nn
    >>> prior = dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)
    >>> part = PrecisionWeighted(nn.Identity(), latent_dim=2)
    >>> evidence = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(5, 4)  # μ̂ = 1, σ̂ = 1
    >>> q = part.posterior_of_level(evidence, (), prior)
    >>> q.mean[0].tolist(), round(q.variance[0, 0].item(), 4)
    ([0.5, 0.5], 0.5)
    """

    def combine(
        self, mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_scale: Tensor
    ) -> dist.TorchDistribution:
        """Features and prior to the normalized product of both."""
        # weight = σ_p²/(σ_p² + σ̂²), from log scales: no square overflows.
        log_ratio = 2 * (prior_scale.log() - log_scale)
        moved = prior_mean + log_ratio.sigmoid() * (mean - prior_mean)
        return dist.Normal(moved, (-0.5 * softplus(log_ratio)).exp() * prior_scale).to_event(
            len(self.event_shape)
        )


class Residual(Relative):
    """A normal posterior whose mean and scale are told as changes of those of the prior.

    ::

        q(z) = N(z; μ_p + σ_p Δμ(x), (σ_p Δσ(x))²)

    The encoder's features are (Δμ, log Δσ): where they are 0 the level says nothing of x, and its
    KL is ½ Σ (Δμ² + Δσ² − 1) − log Δσ whatever the prior is. Source: Vahdat and Kautz 2020 (arXiv
    2007.03898), who do not scale Δμ by σ_p.

    Args:
        encoder: a network from the level's features to (Δμ, log Δσ), 2 · latent_dim numbers, or for
            maps 2C channels; one that takes a context, such as :class:`latente.models.Conditional`,
            gets the state of the level above.
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        max_log_scale: m, with log Δσ = m tanh(feature / m), which stays between −m and m; with
            one for the priors too, no scale overflows. ``None``: log Δσ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive; when run,
            if the prior of the level is no diagonal normal, or the encoder does not give
            2 · latent_dim features.

    >>> import torch
    >>> from torch import nn
    >>> prior = dist.Normal(torch.ones(5, 2), 3.0).to_event(1)
    >>> q = Residual(nn.Identity(), 2).posterior_of_level(torch.zeros(5, 4), (), prior)
    >>> q.mean[0].tolist(), q.stddev[0].tolist()
    ([1.0, 1.0], [3.0, 3.0])
    """

    layout = "Δμ, log Δσ"

    def combine(
        self, mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_scale: Tensor
    ) -> dist.TorchDistribution:
        """Features and prior to the moved and scaled prior."""
        moved = prior_mean + prior_scale * mean
        return dist.Normal(moved, prior_scale * log_scale.exp()).to_event(len(self.event_shape))
