"""Posterior families held against the exact posterior of probabilistic PCA, after a fit."""

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, FullRankNormal
from latente.inference import fit, hold_then_fall, log_evidence
from latente.models import PPCA

from .oracles import linear_data

EPOCHS = {2: 1500, 5: 1500, 10: 3000}
"""Gradient steps, each on all data."""
DIMS = [2, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (5, 10))]


class OneCovariance(nn.Module):
    """An encoder whose μ is linear in x and whose covariance is the same for all, as PPCA's."""

    def __init__(self, observed_dim, latent_dim, out):
        super().__init__()
        self.mean = nn.Linear(observed_dim, latent_dim)
        self.rest = nn.Parameter(torch.zeros(out - latent_dim))

    def forward(self, x):
        return torch.cat([self.mean(x), self.rest.expand(len(x), -1)], dim=-1)


def amortized(family, latent_dim):
    encoder = OneCovariance(20, latent_dim, family.num_features(latent_dim))
    return family(encoder, latent_dim).double()


def fit_on_all(model, guide, x, epochs=None, learning_rate=0.03):
    epochs = epochs or EPOCHS[guide.latent_dim]
    fit(
        model, guide, x, epochs=epochs, batch_size=len(x), learning_rate=learning_rate,
        schedule=hold_then_fall(epochs, hold=0.2), show_progress=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("latent_dim", [2, 5, 10])
def test_svi_finds_the_ppca_subspace_and_the_full_rank_guide_its_posterior(latent_dim):
    x = linear_data(20, latent_dim, 2000)
    best = PPCA(20, latent_dim).double().maximum_likelihood(x)
    model, guide = PPCA(20, latent_dim).double(), amortized(FullRankNormal, latent_dim)
    fit_on_all(model, guide, x)
    exact = model.log_prob(x)
    gap = kl_divergence(guide.posterior(x), model.posterior(x)).mean().item()
    evidence = log_evidence(model, guide, x, num_samples=50)
    print(
        f"K={latent_dim}: KL(q‖p(z|x)) {gap:.2e}; log p(x) − ELBO "
        f"{exact.mean().item() - evidence.elbo:.2e}; below the maximum likelihood "
        f"{(best.log_prob(x).mean() - exact.mean()).item():.2e}"
    )
    assert gap < 1e-3
    assert abs(exact.mean().item() - evidence.elbo) < 1e-3
    assert 0 <= (best.log_prob(x).mean() - exact.mean()).item() < 1e-3
    bases = [torch.linalg.qr(m.weight).Q for m in (best, model)]
    assert torch.linalg.svdvals(bases[0].T @ bases[1]).min() > 0.999


@pytest.mark.parametrize("latent_dim", DIMS)
def test_the_diagonal_guide_stops_at_its_closed_form_gap(latent_dim):
    """The best diagonal has the diagonal of the precision Λ: ½(Σ log diag Λ − log |Λ|)."""
    few = latent_dim == 2
    x = linear_data(20, latent_dim, 500 if few else 2000)
    rotation = torch.linalg.qr(torch.randn(latent_dim, latent_dim).double()).Q
    model = PPCA(20, latent_dim).double().maximum_likelihood(x, rotation)
    model.requires_grad_(False)
    guide = amortized(DiagonalNormal, latent_dim)
    fit_on_all(model, guide, x, **({"epochs": 600, "learning_rate": 0.05} if few else {}))
    precision = torch.eye(latent_dim).double() + model.weight.T @ model.weight / model.scale[0] ** 2
    known = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
    elbo = -fit_loss(model, guide, x)
    gap = model.log_prob(x).mean().item() - elbo
    print(f"K={latent_dim}: gap {gap:.5f}, closed form {known:.5f}")
    assert known > 0.01
    assert gap == pytest.approx(known, abs=1e-3)


def fit_loss(model, guide, x):
    """−ELBO in closed form: E_q[log p(x|z)] of a linear decoder, and the KL."""
    posterior = guide.posterior(x)
    mean, variance = posterior.mean, posterior.variance
    spread = (variance @ model.weight.square().T).sum(-1)
    likelihood = model.likelihood(model.decoder(mean)).log_prob(x)
    reconstruction = likelihood - 0.5 * spread / model.scale[0] ** 2
    return (kl_divergence(posterior, model.prior()) - reconstruction).mean().item()
