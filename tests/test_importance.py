"""Importance-weighted bounds: definitions by hand, exact limits, bias and signal of gradients."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import nn

from latente.guides import DiagonalNormal, ExactPosterior, FullRankNormal, NormalizingFlow, inverse
from latente.inference import Beta_ELBO, Gradient, ImportanceWeighted_ELBO
from latente.inference.pairs.minibatch_scaling import ScaleData
from latente.models import PPCA, VampPrior

from .oracles import LinearGaussian, OneBatchDimension, linear_data
from .test_regularized import (
    BITS,
    LATENT,
    SEED,
    assert_is,
    at_seed,
    bernoulli_pair,
    gradients_of,
    log_bits,
    log_normal,
    normal_kl,
    parameters_of,
    standard_draws,
)

PLAIN, LANDING, DOUBLE = Gradient

BOUNDS = {
    "IWAE": {"k": 5},
    "ELBO": {"k": 1, "m": 4},
    "MIWAE": {"k": 3, "m": 2},
    "CIWAE": {"k": 4, "elbo_weight": 0.3},
    "PIWAE": {"k": 3, "m": 2, "partial": True},
    "mixed PIWAE": {"k": 3, "m": 2, "partial": True, "elbo_weight": 0.3},
}


def weighted_bound(log_weight, k=5, m=1, elbo_weight=0.0):
    """c · ELBO + (1 − c) · L_{k,m}, summed over the data, of log w (k m, N)."""
    groups = [log_weight[j * k : (j + 1) * k].exp().mean(0).log() for j in range(m)]
    return elbo_weight * log_weight.mean(0).sum() + (1 - elbo_weight) * sum(groups).sum() / m


def shares_squared(log_weight, k=5, m=1, elbo_weight=0.0):
    """What each draw's path counts for, doubly reparameterized: (k m, N)."""
    weight = log_weight.exp()
    squares = [
        (weight[j * k : (j + 1) * k] / weight[j * k : (j + 1) * k].sum(0)) ** 2 for j in range(m)
    ]
    return elbo_weight / (k * m) + (1 - elbo_weight) / m * torch.cat(squares)


def by_definition(log_joint, log_posterior, draws, parameters, gradient, **options):
    """The bound of plain tensors, and its gradient of the model's and the guide's parameters.

    Args:
        log_joint: of the latent variables (S, N, K), one tensor a site, to (S, N).
        log_posterior: the same, and whether its distribution is cut from its parameters.
        draws: the latent variables, with their paths.
        parameters: of the model, and of the guide.
        gradient: how it reaches the guide.
        **options: k, m, ``elbo_weight`` and ``partial``.
    """
    of_model, of_guide = parameters
    partial = options.pop("partial", False)
    k, m = options.pop("k"), options.pop("m", 1)
    whole = {"k": k * m, "m": 1} if partial else {"k": k, "m": m}
    log_weight = log_joint(*draws) - log_posterior(*draws, cut=False)
    bound = weighted_bound(log_weight, **whole, **options)
    slopes = list(gradients_of(bound, of_model))
    if gradient is not DOUBLE:
        cut = gradient is LANDING
        log_weight = log_joint(*draws) - log_posterior(*draws, cut=cut)
        return bound, slopes + list(
            gradients_of(weighted_bound(log_weight, k=k, m=m, **options), of_guide)
        )
    leaves = [z.detach().requires_grad_() for z in draws]
    log_weight = log_joint(*leaves) - log_posterior(*leaves, cut=True)
    count = shares_squared(log_weight.detach(), k=k, m=m, **options)
    total = [torch.zeros_like(p) for p in of_guide]
    for draw in range(k * m):
        arriving = gradients_of(log_weight[draw].sum(), leaves)
        for z, slope in zip(draws, arriving, strict=True):
            path = (z[draw] * count[draw][:, None] * slope[draw]).sum()
            total = [a + b for a, b in zip(total, gradients_of(path, of_guide), strict=True)]
    return bound, slopes + total


@pytest.mark.parametrize("gradient", Gradient, ids=lambda gradient: gradient.name)
@pytest.mark.parametrize("options", BOUNDS.values(), ids=BOUNDS)
def test_bound_and_gradients_are_those_of_the_definition(options, gradient):
    vae, guide = bernoulli_pair()
    mean, log_scale = guide.encoder(BITS).chunk(2, -1)
    z = mean + log_scale.exp() * standard_draws(options["k"] * options.get("m", 1), 7, LATENT)

    def log_joint(z):
        return log_bits(vae, BITS, z) + log_normal(z).sum(-1)

    def log_posterior(z, *, cut):
        distribution = (mean.detach(), log_scale.exp().detach()) if cut else (mean, log_scale.exp())
        return log_normal(z, *distribution).sum(-1)

    parameters = list(vae.parameters()), list(guide.parameters())
    bound, slopes = by_definition(log_joint, log_posterior, [z], parameters, gradient, **options)
    objective = ImportanceWeighted_ELBO(gradient=gradient, **options)
    assert_is(objective, (vae, guide), BITS, bound, slopes)
    narrow = OneBatchDimension(vae.decoder, LATENT)
    folded = type(vae)(vae.prior, narrow, vae.likelihood)
    with ScaleData(21):
        assert_is(objective, (folded, guide), BITS, 3 * bound, [3 * slope for slope in slopes])


class TwoLayers(nn.Module):
    """z₁ ~ N(0, I), z₂ | z₁ ~ N(tanh(A z₁), 0.8²), x | z₁, z₂ normal; the guide draws z₂ by z₁."""

    SCALE = 0.8

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.upper, self.decoder = nn.Linear(2, 3), nn.Linear(5, 4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(6, 6)
        self.double()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            zeros = x.new_zeros(len(x), 2)
            first = pyro.sample("first", dist.Normal(zeros, 1.0).to_event(1))
            distribution = dist.Normal(self.upper(first).tanh(), self.SCALE).to_event(1)
            second = pyro.sample("second", distribution)
            mean = self.decoder(torch.cat([first, second], -1))
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            mean, scale = self.distribution_of_first(x)
            first = pyro.sample("first", dist.Normal(mean, scale).to_event(1))
            mean, scale = self.distribution_of_second(x, first)
            pyro.sample("second", dist.Normal(mean, scale).to_event(1))

    def distribution_of_first(self, x):
        mean, log_scale = self.first(x).chunk(2, -1)
        return mean, log_scale.exp()

    def distribution_of_second(self, x, first, layer=None):
        x = x.expand(*first.shape[:-1], 4)
        mean, log_scale = (layer or self.second)(torch.cat([x, first], -1)).chunk(2, -1)
        return mean, log_scale.exp()

    def draws(self, x, num_samples):
        mean, scale = self.distribution_of_first(x)
        first = mean + scale * standard_draws(num_samples, len(x), 2)
        noise = torch.normal(torch.zeros(num_samples, len(x), 3).double(), 1.0)
        mean, scale = self.distribution_of_second(x, first)
        return [first, mean + scale * noise]

    def log_likelihood(self, x, first, second):
        return log_normal(x, self.decoder(torch.cat([first, second], -1))).sum(-1)

    def log_joint(self, x, first, second):
        upper = log_normal(second, self.upper(first).tanh(), self.SCALE).sum(-1)
        return self.log_likelihood(x, first, second) + log_normal(first).sum(-1) + upper

    def log_posterior(self, x, first, second, *, cut):
        """log q(z₁, z₂|x); cut: without the layers' parameters, but with z₁ in the distribution of
        z₂."""
        distribution = [part.detach() if cut else part for part in self.distribution_of_first(x)]
        layer = nn.Linear(6, 6).double().requires_grad_(False)
        layer.load_state_dict(self.second.state_dict())
        other = self.distribution_of_second(x, first, layer if cut else None)
        return log_normal(first, *distribution).sum(-1) + log_normal(second, *other).sum(-1)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("free_bits", [0.0, 1.5])
def test_the_kl_of_two_sites_is_the_sum_of_their_own(num_samples, free_bits):
    pair, x = TwoLayers(), 0.3 * linear_data(4, 2, 6)
    first, second = pair.draws(x, num_samples)
    distribution = pair.distribution_of_second(x, first)
    kls = [
        normal_kl(*pair.distribution_of_first(x)),
        normal_kl(*distribution, pair.upper(first).tanh(), pair.SCALE).mean(0),
    ]
    by_dimension = torch.cat(kls, -1).mean(0)
    assert not free_bits or by_dimension.min() < free_bits < by_dimension.max()
    paid = by_dimension.clamp(min=free_bits).sum()
    bound = pair.log_likelihood(x, first, second).mean(0).sum() - 2.5 * 6 * paid
    objective = Beta_ELBO(2.5, free_bits=free_bits, num_particles=num_samples)
    assert_is(objective, (pair.model, pair.guide), x, bound)


@pytest.mark.parametrize("gradient", Gradient, ids=lambda gradient: gradient.name)
@pytest.mark.parametrize("options", [BOUNDS["MIWAE"], BOUNDS["mixed PIWAE"]], ids=str)
def test_the_paths_of_two_sites_are_followed_through_each_other(options, gradient):
    pair, x = TwoLayers(), 0.3 * linear_data(4, 2, 6)
    draws = pair.draws(x, options["k"] * options.get("m", 1))
    parameters = [*pair.upper.parameters(), *pair.decoder.parameters()]
    bound, slopes = by_definition(
        lambda *z: pair.log_joint(x, *z),
        lambda *z, cut: pair.log_posterior(x, *z, cut=cut),
        draws,
        (parameters, [*pair.first.parameters(), *pair.second.parameters()]),
        gradient,
        **options,
    )
    objective = ImportanceWeighted_ELBO(gradient=gradient, **options)
    assert_is(objective, (pair.model, pair.guide), x, bound, slopes)


def test_the_kl_of_sites_in_another_order_is_taken_at_the_draws():
    """KL(q(a|b) ‖ p(a)) at a drawn b is no term of the bound where p(b|a) needs a."""
    slope, x = nn.Linear(1, 1).double(), linear_data(4, 2, 6)[:, 0]

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Normal(slope(x[:, None])[:, 0], 0.9))
            pyro.sample("a", dist.Normal(0.4 * b, 0.7))

    loss = at_seed(Beta_ELBO(2.0).loss, (model, guide), x)
    b = slope(x[:, None])[:, 0] + 0.9 * standard_draws(6)
    a = 0.4 * b + 0.7 * torch.normal(torch.zeros(6).double(), 1.0)
    log_q = log_normal(b, slope(x[:, None])[:, 0], 0.9) + log_normal(a, 0.4 * b, 0.7)
    bound = log_normal(x, b) - 2.0 * (log_q - log_normal(a) - log_normal(b, a))
    assert loss == pytest.approx(-bound.sum().item(), rel=1e-12)


@pytest.mark.parametrize("gradient", Gradient, ids=lambda gradient: gradient.name)
@pytest.mark.parametrize("k", [1, 7])
def test_with_the_exact_posterior_the_bound_is_the_evidence(k, gradient):
    model, x = PPCA(4, 2).double(), linear_data(4, 2, 20)
    objective = ImportanceWeighted_ELBO(k, 2, gradient=gradient)
    exact = model.log_prob(x).sum().item()
    assert -objective.loss(model, ExactPosterior(model), x) == pytest.approx(exact, abs=1e-10)


class Kept(ImportanceWeighted_ELBO):
    """Keeps the bound of each datum."""

    def bound(self, reading):
        self.kept = super().bound(reading)
        return self.kept


def test_the_bound_rises_with_k_to_the_evidence():
    """Four rises, none below −4 standard errors, and the end within 4: false alarm 2e-4."""
    oracle = LinearGaussian(2)
    vae, guide = oracle.pair(widen=0.85, shift=0.5)
    x = oracle.sample(10).repeat_interleave(200, 0)
    gaps, errors = [], []
    for k in (1, 4, 16, 64, 256):
        objective = Kept(k)
        objective.loss(vae, guide, x)
        gap = oracle.marginal.log_prob(x) - objective.kept
        gaps.append(gap.mean().item())
        errors.append((gap.var() / len(x)).sqrt().item())
    for i in range(4):
        assert gaps[i] - gaps[i + 1] > -4 * math.hypot(errors[i], errors[i + 1])
    assert gaps[0] > 20 * errors[0]
    assert abs(gaps[-1]) < 4 * errors[-1] < 0.01


class Rows(nn.Module):
    """Features of a posterior for each row of the data, whatever the data are."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, x):
        return self.features


def guide_gradients(k, gradient, *, copies=20_000, num_latent=2, **posterior):
    """Independent gradients of the bound of one datum in its μ and log σ: (copies, 2K)."""
    torch.manual_seed(SEED)
    oracle = LinearGaussian(num_latent)
    x = oracle.sample(1)
    vae, guide = oracle.pair(**posterior)
    rows = Rows(guide.encoder(x).detach().repeat(copies, 1))
    objective = ImportanceWeighted_ELBO(k, gradient=gradient)
    loss = objective.differentiable_loss(
        vae, DiagonalNormal(rows, num_latent), x.expand(copies, -1)
    )
    return torch.autograd.grad(-loss, rows.features)[0]


OFF = {"widen": 1.3, "shift": 0.3}


def z_scores(gradient, other, k):
    """Of the difference of two estimators' means, for μ and log σ of two dimensions."""
    parts = [guide_gradients(k, kind, **OFF) for kind in (gradient, other)]
    error = sum(part.var(0) / len(part) for part in parts).sqrt()
    return (parts[0].mean(0) - parts[1].mean(0)) / error


def signal_to_noise(k, gradient):
    """|mean| / sd of the gradient in μ and log σ of one dimension."""
    values = guide_gradients(k, gradient, num_latent=1, **OFF)
    return values.mean(0).abs() / values.std(0)


@pytest.mark.parametrize("k", [1, 8])
def test_the_doubly_reparameterized_gradient_is_unbiased(k):
    """Four means of 20,000 gradients, within 4 standard errors: false alarm 2.5e-4."""
    assert z_scores(DOUBLE, PLAIN, k).abs().max() < 4


def test_sticking_the_landing_is_unbiased_for_one_draw_alone():
    """Within 4 standard errors for k = 1, false alarm 2.5e-4; all beyond 20 for k = 8."""
    assert z_scores(LANDING, PLAIN, 1).abs().max() < 4
    assert z_scores(LANDING, PLAIN, 8).abs().min() > 20


def test_more_draws_drown_the_plain_gradient_and_raise_the_doubly_reparameterized():
    """As 1/√k and √k (Rainforth et al. 2018; Tucker et al. 2019); 20,000 copies, some 1% of noise.

    The plain ratio is some 0.02 at k = 64, known to 0.007: below a third of 0.2 by 6 errors.
    """
    assert (signal_to_noise(64, PLAIN) < signal_to_noise(1, PLAIN) / 3).all()
    few, many = signal_to_noise(8, DOUBLE), signal_to_noise(64, DOUBLE)
    assert (few > 1.5 * signal_to_noise(1, DOUBLE)).all()
    torch.testing.assert_close(many / few, torch.full_like(few, math.sqrt(8)), rtol=0.1, atol=0)


@pytest.mark.parametrize("k", [1, 8])
def test_gradients_along_the_path_vanish_at_the_exact_posterior(k):
    for gradient in (LANDING, DOUBLE):
        assert guide_gradients(k, gradient, copies=50, num_latent=1).abs().max() < 1e-10
    assert (guide_gradients(k, PLAIN, copies=50, num_latent=1).std(0) > 0.1).all()


@pytest.mark.parametrize("gradient", Gradient, ids=lambda gradient: gradient.name)
def test_a_flow_that_changes_nothing_has_the_gradient_of_its_base(gradient):
    vae, guide = bernoulli_pair()
    maf = zuko.flows.MAF(LATENT, transforms=1).double()
    nn.init.zeros_(maf.transform.transforms[0].hyper[-1].weight)
    nn.init.zeros_(maf.transform.transforms[0].hyper[-1].bias)
    flow = NormalizingFlow(guide.encoder, LATENT, inverse(maf), context=0)
    full = FullRankNormal(Widened(guide.encoder), LATENT)
    objective = ImportanceWeighted_ELBO(3, 2, gradient=gradient, partial=True)
    parameters = parameters_of(vae, guide)
    expected = gradients_of(at_seed(objective.differentiable_loss, (vae, guide), BITS), parameters)
    for other in (flow, full):
        found = gradients_of(at_seed(objective.differentiable_loss, (vae, other), BITS), parameters)
        for mine, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


class Widened(nn.Module):
    """Features of a diagonal posterior, and zeros for what a full covariance has more."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return nn.functional.pad(self.encoder(x), (0, LATENT * (LATENT - 1) // 2))


def test_a_prior_made_of_the_guide_keeps_its_own_gradient():
    """A VampPrior's log p(z) depends on the encoder, whatever becomes of log q."""
    guide = bernoulli_pair()[1]
    vae = bernoulli_pair(prior=VampPrior(guide, BITS[:3]))[0]
    mean, log_scale = guide.encoder(BITS).chunk(2, -1)
    z = mean + log_scale.exp() * standard_draws(4, 7, LATENT)

    def log_joint(z):
        centre, log_spread = guide.encoder(vae.prior.pseudo_inputs).chunk(2, -1)
        parts = log_normal(z[..., None, :], centre, log_spread.exp()).sum(-1)
        return log_bits(vae, BITS, z) + parts.logsumexp(-1) - math.log(3)

    def log_posterior(z, *, cut):
        distribution = (mean.detach(), log_scale.exp().detach()) if cut else (mean, log_scale.exp())
        return log_normal(z, *distribution).sum(-1)

    everything = parameters_of(vae, guide)
    bound, slopes = by_definition(
        log_joint, log_posterior, [z], (everything[:1], everything), DOUBLE, k=4
    )
    held = z.detach()
    of_distributions = weighted_bound(log_joint(held) - log_posterior(held, cut=True), k=4)
    expected = [
        a + b for a, b in zip(slopes[1:], gradients_of(of_distributions, everything), strict=True)
    ]
    assert_is(ImportanceWeighted_ELBO(4, gradient=DOUBLE), (vae, guide), BITS, bound, expected)
