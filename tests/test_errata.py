"""The course notes' slips: each printed formula beside the right one, in numbers.

``docs/errata.md`` quotes the numbers; the last test holds it to them.
"""

import math
import re
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, ExactPosterior, FullRankNormal
from latente.inference import log_evidence
from latente.models import PPCA

from .oracles import linear_data

PAGE = Path(__file__).parents[1] / "docs" / "errata.md"
MEAN = torch.tensor([0.5, -1.0]).double()
FACTOR = torch.tensor([[0.8, 0.0], [0.9, 0.5]]).double()
GRID = torch.linspace(-9, 9, 1201).double()


def integrate(values):
    """∫∫ over the plane, of values on the grid."""
    return torch.trapezoid(torch.trapezoid(values, GRID), GRID).item()


def kl_by_quadrature(q, p):
    points = torch.cartesian_prod(GRID, GRID)
    log_q, log_p = q.log_prob(points), p.log_prob(points)
    return integrate((log_q.exp() * (log_q - log_p)).reshape(1201, 1201))


def full_covariance():
    """KL(N(μ, LLᵀ) ‖ N(0, I)): what the guide takes, what is printed."""
    features = torch.cat([MEAN, FACTOR.diagonal().log(), FACTOR[1, :1]])[None]
    posterior = FullRankNormal(nn.Identity(), 2).posterior(features)
    right = kl_divergence(posterior, dist.Normal(torch.zeros(2), 1.0).to_event(1)).item()
    scale = FACTOR.diagonal()
    printed = 0.5 * (MEAN**2 + scale**2 - 1 - 2 * scale.log()).sum().item()
    return printed, right


def test_the_kl_of_a_full_covariance_is_not_that_of_its_diagonal():
    printed, right = full_covariance()
    prior = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    truth = kl_by_quadrature(dist.MultivariateNormal(MEAN, scale_tril=FACTOR), prior)
    by_hand = 0.5 * (FACTOR.square().sum() + MEAN @ MEAN - 2) - FACTOR.diagonal().log().sum()
    assert right == pytest.approx(truth, abs=1e-9)
    assert by_hand.item() == pytest.approx(truth, abs=1e-9)
    assert truth - printed == pytest.approx(0.5 * 0.9**2)


def two_gaussians():
    """KL(N(μ₀, Σ₀) ‖ N(μ₁, Σ₁)), by Σ₁ as printed and by its inverse."""
    first, second = torch.tensor([[1.0, 0.3], [0.3, 0.5]]), torch.tensor([[2.0, 0.8], [0.8, 1.0]])
    first, second = first.double(), second.double()
    shift = torch.tensor([2.0, -1.0]).double()
    rest = 0.5 * ((second.inverse() @ first).trace() - 2 + second.logdet() - first.logdet())
    printed = rest + 0.5 * shift @ second @ shift
    right = rest + 0.5 * shift @ second.inverse() @ shift
    q = dist.MultivariateNormal(torch.zeros(2).double(), first)
    p = dist.MultivariateNormal(shift, second)
    return printed.item(), right.item(), q, p


def test_the_kl_of_two_gaussians_weighs_their_distance_by_the_precision():
    printed, right, q, p = two_gaussians()
    truth = kl_by_quadrature(q, p)
    assert right == pytest.approx(truth, abs=1e-9)
    assert kl_divergence(q, p).item() == pytest.approx(truth, abs=1e-9)
    assert abs(printed - truth) > 0.3


def closed_form_sign():
    """KL(N(μ, diag σ²) ‖ N(0, I)) with either sign in front."""
    mean, scale = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.6, 0.9]).double()
    inner = (1 + scale.square().log() - mean**2 - scale**2).sum().item()
    guide = DiagonalNormal(nn.Identity(), 2)
    posterior = guide.posterior(torch.cat([mean, scale.log()])[None])
    ours = kl_divergence(posterior, dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)).item()
    return 0.5 * inner, -0.5 * inner, ours


def test_the_closed_form_kl_has_a_minus():
    printed, right, ours = closed_form_sign()
    assert ours == pytest.approx(right, abs=1e-12)
    assert ours > 0 > printed


def vae_loss():
    """−E[log p(x|z)] ∓ KL of PPCA with its exact posterior, whose loss is −log p(x)."""
    x = linear_data(6, 2, 300)
    model = PPCA(6, 2).double().maximum_likelihood(x)
    posterior = model.posterior(x)
    mean = posterior.mean
    spread = 0.5 * (posterior.scale_tril[0].T @ model.weight.T).square().sum()
    likelihood = model.likelihood(model.decoder(mean)).log_prob(x)
    reconstruction = (likelihood - spread / model.scale[0] ** 2).mean().item()
    kl = kl_divergence(posterior, model.prior()).mean().item()
    return -reconstruction - kl, -reconstruction + kl, -model.log_prob(x).mean().item()


def test_the_loss_of_a_vae_adds_the_kl():
    printed, right, truth = vae_loss()
    assert right == pytest.approx(truth, abs=1e-9)
    assert truth - printed > 1
    # As printed it is below −log p(x), which no negative bound can be.
    assert printed < truth


def importance_sampling():
    """log E_q[p(x, z) / p(z|x)], as printed, and log E_q[p(x, z) / q(z|x)], q twice too wide.

    With the exact posterior below, every weight is p(x): the printed form is true for any q, but
    only says p(x) = p(x). Any density but q in the place of the unknown p(z|x) is wrong: the
    prior, say, for which E_q[p(x|z)] is a normal density too.
    """
    x = linear_data(6, 2, 1)[:1]
    torch.manual_seed(0)
    model = PPCA(6, 2).double()
    truth = model.log_prob(x).item()
    posterior = model.posterior(x)
    q = dist.MultivariateNormal(posterior.mean, scale_tril=1.5 * posterior.scale_tril)
    z = q.sample((100_000,))
    log_joint = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x)

    def estimate(log_denominator):
        log_weights = log_joint - log_denominator
        log_mean = log_weights.logsumexp(0) - math.log(len(z))
        error = (log_weights - log_mean).exp().std() / math.sqrt(len(z))
        return log_mean.item(), error.item()

    circular, circular_error = estimate(posterior.log_prob(z))
    right, error = estimate(q.log_prob(z))
    spread_of_x = (model.weight @ q.scale_tril[0]) @ (model.weight @ q.scale_tril[0]).T
    of_x = dist.MultivariateNormal(model.decoder(q.mean), spread_of_x + model.scale.square().diag())
    with_prior = of_x.log_prob(x).item()
    assert estimate(model.prior().log_prob(z))[0] == pytest.approx(with_prior, abs=0.05)
    return truth, circular, circular_error, right, error, with_prior


def test_importance_weights_are_over_q():
    """Right to 4 standard errors (false alarm 6e-5); the printed form holds nothing of q."""
    truth, circular, circular_error, right, error, with_prior = importance_sampling()
    assert circular == pytest.approx(truth, abs=1e-9)
    assert circular_error < 1e-9
    assert 1e-4 < error < 0.01
    assert abs(right - truth) < 4 * error
    assert abs(with_prior - truth) > 0.5
    model = PPCA(6, 2).double()
    guide = ExactPosterior(model)
    x = linear_data(6, 2, 1)
    assert log_evidence(model, guide, x, num_samples=50).mean == pytest.approx(
        model.log_prob(x).item(), abs=1e-9
    )


def reparameterized_variance():
    """Sample variance of z = μ + σε for σ = 0.5, by the guide: σ², not σ."""
    guide = DiagonalNormal(nn.Identity(), 1)
    posterior = guide.posterior(torch.tensor([[1.0, math.log(0.5)]]).double())
    torch.manual_seed(0)
    return 0.5, 0.25, posterior.sample((200_000,)).var().item()


def test_the_reparameterized_density_has_variance_sigma_squared():
    """Var of a sample variance is 2σ⁴/n: within 4 standard errors, false alarm 6e-5."""
    printed, right, seen = reparameterized_variance()
    error = 0.25 * math.sqrt(2 / 200_000)
    assert abs(seen - right) < 4 * error
    assert abs(seen - printed) > 100 * error


def reparameterized_expectation():
    """E f(z) for z ~ N(μ, σ²) and f(z) = z², by quadrature: of f(μ + σε) over either distribution
    of ε."""
    mean, scale = 1.0, 0.5

    def expect(distribution, function):
        return torch.trapezoid(distribution.log_prob(GRID).exp() * function(GRID), GRID).item()

    def moved(noise):
        return (mean + scale * noise) ** 2

    own = torch.distributions.Normal(torch.tensor(mean).double(), scale)
    standard = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    truth = expect(own, torch.square)
    return expect(own, moved), expect(standard, moved), truth


def test_the_noise_is_standard_and_z_is_not():
    printed, right, truth = reparameterized_expectation()
    assert truth == pytest.approx(1.0**2 + 0.5**2, abs=1e-9)
    assert right == pytest.approx(truth, abs=1e-9)
    assert abs(printed - truth) > 1


def test_the_page_of_errata_quotes_these_numbers():
    truth, *_, with_prior = importance_sampling()
    figures = [
        *full_covariance(),
        *two_gaussians()[:2],
        *closed_form_sign()[:2],
        *vae_loss()[:2],
        truth,
        with_prior,
        *reparameterized_variance()[:2],
        *reparameterized_expectation()[:2],
    ]
    quoted = re.findall(r"\*\*(−?\d+\.\d+)\*\*", PAGE.read_text(encoding="utf-8"))
    assert quoted == [f"{figure:.3f}".replace("-", "−") for figure in figures]
