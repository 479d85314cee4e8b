"""A linear Gaussian state-space model: log p(x) by the Kalman filter, and its exact posterior."""

import pyro.distributions as dist
import torch
from torch import nn

from latente.guides import DiagonalNormal, SequencePosterior
from latente.models import (
    Combiner,
    LinearTransition,
    MarkovChain,
    Normal,
    RecurrentReader,
    StandardNormal,
    StateSpaceModel,
    mlp,
)


class LinearGaussianSequences:
    """z₁ ~ N(0, I), z_t ~ N(A z_{t−1}, Q), x_t ~ N(C z_t, R), all in float64, Q and R diagonal."""

    def __init__(self, latent_dim: int = 3, observed_dim: int = 4, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.a = 0.9 * torch.linalg.qr(normal(latent_dim, latent_dim))[0]
        self.c = normal(observed_dim, latent_dim)
        self.step_sd, self.noise_sd = 0.5, 0.7
        self.latent_dim, self.observed_dim = latent_dim, observed_dim

    def model(self) -> StateSpaceModel:
        """The model as the library has it."""
        transition = LinearTransition(self.latent_dim, self.step_sd)
        emission = mlp(self.latent_dim, out=self.observed_dim)
        likelihood = Normal((self.observed_dim,), self.noise_sd)
        initial = StandardNormal(self.latent_dim)
        model = StateSpaceModel(transition, emission, likelihood, initial=initial).double()
        with torch.no_grad():
            transition.linear.weight.copy_(self.a)
            transition.log_scale.fill_(torch.tensor(self.step_sd).double().log())
            emission[1].weight.copy_(self.c)
            emission[1].bias.zero_()
        return model

    def sample(self, num: int, num_steps: int, seed: int = 1) -> torch.Tensor:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            model = self.model()
            return model.emit(model.prior(num_steps).sample((num,))).sample()

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) of sequences without padding (N, T, F), by Pyro's Kalman filter."""

        def noise(dim, sd):
            return dist.Normal(torch.zeros(dim).double(), sd).to_event(1)

        # Pyro's chain starts at z₀, which is not observed, and then steps to z₁: such a z₀ as gives
        # z₁ ~ N(0, I).
        eye = torch.eye(self.latent_dim).double()
        before = torch.linalg.inv(self.a)
        covariance = before @ (eye * (1 - self.step_sd**2)) @ before.T
        start = dist.MultivariateNormal(torch.zeros(self.latent_dim).double(), covariance)
        return dist.GaussianHMM(
            start,
            self.a.T,
            noise(self.latent_dim, self.step_sd),
            self.c.T,
            noise(self.observed_dim, self.noise_sd),
            duration=x.shape[-2],
        ).log_prob(x)

    def log_prob_of_ragged(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [self.log_prob(row[None, :n])[0] for row, n in zip(x, lengths.tolist(), strict=True)]
        )

    def posterior(self, x, lengths=None, widen: float = 1.0) -> MarkovChain:
        """p(z|x) as a chain: p(z_t | z_{t−1}, x_t … x_T), by backward information filtering.

        With β_t(z) = p(x_t … x_T | z_t) ∝ exp(−½ z'Λ z + z'η).
        """
        num_steps = x.shape[1]
        mask = None if lengths is None else torch.arange(num_steps) < lengths[:, None]
        eye = torch.eye(self.latent_dim).double()
        gain = self.c.T / self.noise_sd**2
        own, q = gain @ self.c, eye * self.step_sd**2
        lam = x.new_zeros(len(x), self.latent_dim, self.latent_dim)
        eta = x.new_zeros(len(x), self.latent_dim)
        at, conditionals = None, []
        for step in reversed(range(num_steps)):
            if at is not None:  # β_{t+1} seen from z_t, through N(z_{t+1}; A z_t, Q)
                lam, eta = at
                root = torch.linalg.inv(eye + lam @ q)
                lam = self.a.T @ (root @ lam) @ self.a
                eta = (root @ eta[..., None]).squeeze(-1) @ self.a
            there = torch.ones(len(x)).bool() if mask is None else mask[:, step]
            lam = torch.where(there[:, None, None], lam + own, 0.0)
            seen = torch.where(there[:, None], x[:, step], 0.0)
            eta = torch.where(there[:, None], eta + seen @ gain.T, 0.0)
            at = lam, eta
            conditionals.append(at)
        lams, etas = (torch.stack(part, 1) for part in zip(*conditionals[::-1], strict=True))

        def given(mean, covariance, steps):
            precision = torch.linalg.inv(covariance) + lams[:, steps]
            cov = torch.linalg.inv(precision)
            shift = etas[:, steps] + mean @ torch.linalg.inv(covariance)
            loc = (cov @ shift[..., None]).squeeze(-1)
            return dist.MultivariateNormal(loc, cov * widen**2)

        return MarkovChain(
            given(x.new_zeros(self.latent_dim), eye, 0),
            lambda z, steps: given(z @ self.a.T, q, steps),
            num_steps,
            mask,
        )

    def exact_guide(self, widen: float = 1.0):
        """The exact posterior as a Pyro program, or one whose conditionals are wider."""
        import pyro

        def guide(x, lengths=None):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", self.posterior(x, lengths, widen))

        return guide


def small_pair(
    latent_dim: int = 2, observed_dim: int = 4, *, mean_field: bool = False
) -> tuple[StateSpaceModel, SequencePosterior]:
    """A deep Markov model of reals and its guide, in float64, with random weights."""
    from latente.models import GatedTransition

    model = StateSpaceModel(
        GatedTransition(latent_dim, 8),
        mlp(latent_dim, 8, out=observed_dim),
        Normal((observed_dim,)),
    )
    reader = RecurrentReader(observed_dim, 8, direction="both" if mean_field else "backward")
    width = reader.num_features
    encoder: nn.Module = Combiner(width, latent_dim, out=2 * latent_dim)
    if mean_field:
        encoder = mlp(width, out=2 * latent_dim)
    guide = SequencePosterior(reader, DiagonalNormal(encoder, latent_dim))
    return model.double(), guide.double()
