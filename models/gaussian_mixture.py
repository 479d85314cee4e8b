"""Gaussian mixture: a model with a discrete latent variable and exact answers."""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn


class GaussianMixture(PyroModule):
    """The mixture z ~ Categorical(π), x | z ~ N(μ_z, L_z L_zᵀ), with full covariances.

    It is a Pyro program ``mixture(x)`` with the discrete latent site ``"z"`` and the observed site
    ``"x"`` in a plate named ``"data"``. There are three ways to fit it:
    :func:`latente.inference.expectation_maximization`; ``fit`` with an empty guide
    (``lambda x: None``), where ``TraceEnum_ELBO`` sums z out; and ``fit`` with
    :class:`latente.guides.ExactPosterior` as the guide. The parameters are the Cholesky factors of
    the covariances, so these stay positive definite.

    Args:
        num_components: C.
        observed_dim: D, length of x.

    Raises:
        ValueError: if one of them is less than 1.

    >>> x = torch.tensor([[-3.0], [-2.0], [2.0], [3.0]])
    >>> mixture = GaussianMixture(2, 1).initialize(x, seed=0)
    >>> mixture.posterior(x).probs.shape
    torch.Size([4, 2])
    """

    logits: Tensor
    means: Tensor
    scale_tril: Tensor

    def __init__(self, num_components: int, observed_dim: int):
        super().__init__()
        if min(num_components, observed_dim) < 1:
            raise ValueError(
                "num_components and observed_dim must be at least 1, got "
                f"{num_components} and {observed_dim}"
            )
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.means = nn.Parameter(torch.randn(num_components, observed_dim))
        factors = torch.eye(observed_dim).repeat(num_components, 1, 1)
        self.scale_tril = PyroParam(factors, dist.constraints.lower_cholesky)  # pyright: ignore

    @property
    def weights(self) -> Tensor:
        """π, (C,)."""
        return self.logits.softmax(-1)

    def components(self, x: Tensor) -> Tensor:
        """log p(x, z = c) = log π_c + log N(x; μ_c, Σ_c) of data (N, D), in nats: (N, C)."""
        self._check_shape(x, batched=True)
        distribution = dist.MultivariateNormal(self.means, scale_tril=self.scale_tril)
        return self.logits.log_softmax(-1) + distribution.log_prob(x.unsqueeze(-2))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log Σ_c π_c N(x; μ_c, Σ_c) of data (N, D), exact, in nats: (N,)."""
        return self.components(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> dist.Categorical:
        """p(z|x) of data (N, D): the responsibilities, batch shape (N,)."""
        return dist.Categorical(logits=self.components(x))

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, D); returns the observed x."""
        self._check_shape(x)
        infer: Any = {"enumerate": "parallel"}
        logits, means, scale_tril = self.logits, self.means, self.scale_tril
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Categorical(logits=logits), infer=infer)
            distribution = dist.MultivariateNormal(means[z], scale_tril=scale_tril[z])
            return pyro.sample("x", distribution, obs=x)

    def initialize(self, x: Tensor, *, seed: int = 0) -> Self:
        """Set the means to spread data (k-means++), the covariances to that of the data (N, D).

        Args:
            x: a tensor or array; it is converted to the mixture's dtype and device.
            seed: seed of k-means++.

        Raises:
            ValueError: if the mixture has more components than there are data, or the covariance
                of the data is singular; the mixture is then unchanged.
        """
        from sklearn.cluster import kmeans_plusplus  # slow to import

        x = torch.as_tensor(x).to(self.means)
        self.check_data(x)
        num_components = len(self.logits)
        factor = _factor(x - x.mean(0), x.new_full((len(x),), 1 / len(x)))
        centres, _ = kmeans_plusplus(x.double().cpu().numpy(), num_components, random_state=seed)
        with torch.no_grad():
            self.logits.zero_()
            self.means.copy_(torch.as_tensor(centres))
            self.scale_tril = factor.repeat(num_components, 1, 1)
        return self

    def em_step(self, x: Tensor) -> float:
        """Make one step of expectation maximization (Dempster et al. 1977) on data (N, D).

        ::

            r_nc = p(z = c | x_n),   π_c = Σₙ r_nc / N,   μ_c = Σₙ r_nc x_n / Σₙ r_nc,
            Σ_c = Σₙ r_nc (x_n − μ_c)(x_n − μ_c)ᵀ / Σₙ r_nc

        Returns:
            the mean log p(x) before the step, in nats; the step does not lower it.

        Raises:
            ValueError: if the mixture has more components than there are data, or a component
                has shrunk to so few data that its covariance is singular.
        """
        x = torch.as_tensor(x).to(self.means)
        self.check_data(x)
        with torch.no_grad():
            log_joint = self.components(x)
            log_px = log_joint.logsumexp(-1)
            responsibility = (log_joint - log_px[:, None]).exp()
            total = responsibility.sum(0)
            share = responsibility / total
            means = share.mT @ x
            factors = [
                _factor(x - mean, weight)
                for mean, weight in zip(means, share.unbind(-1), strict=True)
            ]
            self.logits.copy_((total / len(x)).log())
            self.means.copy_(means)
            self.scale_tril = torch.stack(factors)
        return log_px.mean().item()

    def check_data(self, x: Tensor) -> None:
        """Refuse a whole data set that is not (N, D), or has fewer data than components.

        ``fit`` calls it once with all data; a minibatch may be smaller.

        Raises:
            ValueError: if so.
        """
        self._check_shape(x)
        if len(x) < len(self.logits):
            raise ValueError(
                f"a mixture of {len(self.logits)} components cannot be fitted to {len(x)} data: "
                f"take at most {len(x)} components, better many fewer"
            )

    def _check_shape(self, x: Tensor, *, batched: bool = False) -> None:
        dim = self.means.shape[-1]
        if not x.shape or x.shape[-1] != dim or (len(x.shape) != 2 and not batched):
            raise ValueError(f"the mixture takes data of shape (N, {dim}), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{len(self.logits)}, {self.means.shape[-1]}"


def _factor(centred: Tensor, weight: Tensor) -> Tensor:
    """Compute the Cholesky factor of Σₙ wₙ dₙ dₙᵀ, for data d (N, D) and weights (N,).

    It comes from a QR factorization of √w d, without the covariance, which rounding could make
    indefinite.
    """
    rows = centred * weight.sqrt()[:, None]
    upper = torch.linalg.qr(rows, mode="r").R
    diagonal = upper.diagonal()
    spread = rows.square().sum(0).sqrt()
    limit = 100 * torch.finfo(rows.dtype).eps * spread
    if len(diagonal) < rows.shape[1] or not bool((diagonal.abs() > limit).all()):
        raise ValueError(
            "the covariance of a component is singular: it has shrunk to a few data, or elements "
            "of the data are constant or linear functions of others. Take fewer components, drop "
            "such elements, or start again with another seed"
        )
    return (upper * diagonal.sign()[:, None]).mT
