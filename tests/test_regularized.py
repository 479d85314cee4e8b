"""Reweighed bounds: each against its definition on plain tensors, value and gradients."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import nn
from torch.nn.functional import softplus

from latente.guides import DiagonalNormal, FullRankNormal, NormalizingFlow, PointPosterior, inverse
from latente.inference import (
    Beta_ELBO,
    ImportanceWeighted_ELBO,
    Info_ELBO,
    TotalCorrelation_ELBO,
    gaussian_kernel,
    inverse_multiquadratic,
)
from latente.inference.pairs.minibatch_scaling import ScaleData
from latente.models import VAE, Bernoulli, NormalMixture, StandardNormal, mlp

from .oracles import GlobalMean, OneBatchDimension

PIXELS, LATENT, SEED = 6, 2, 11
BITS = torch.rand(7, PIXELS, generator=torch.Generator().manual_seed(3)).round().double()


def bernoulli_pair(prior=None, family=DiagonalNormal, decoder=None):
    torch.manual_seed(5)
    decoder = decoder or mlp(LATENT, 4, out=PIXELS)
    vae = VAE(prior or StandardNormal(LATENT), decoder, Bernoulli((PIXELS,)))
    encoder = mlp(PIXELS, 4, out=family.num_features(LATENT))
    return vae.double(), family(encoder, LATENT).double()


def standard_draws(*shape):
    """ε, as Pyro draws it at the seed that every loss here is taken at."""
    torch.manual_seed(SEED)
    return torch.normal(torch.zeros(shape).double(), torch.ones(shape).double())


def log_normal(z, mean=0.0, scale=1.0):
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return -0.5 * ((z - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


def log_bits(vae, x, z):
    """log p(x|z) of each draw of each datum."""
    logits = vae.decoder(z)
    return (x * logits - softplus(logits)).sum(-1)


def diagonal_draws(guide, x, num_samples=1):
    """μ and σ (N, K) and the draws (S, N, K)."""
    mean, log_scale = guide.encoder(x).chunk(2, -1)
    scale = log_scale.exp()
    return mean, scale, mean + scale * standard_draws(num_samples, len(x), LATENT)


def normal_kl(mean, scale, prior_mean=0.0, prior_scale=1.0):
    """KL(N(mean, scale²) ‖ N(prior_mean, prior_scale²)) of each number."""
    prior_scale = torch.as_tensor(prior_scale, dtype=torch.float64)
    ratio = (scale / prior_scale) ** 2
    return 0.5 * (ratio + ((mean - prior_mean) / prior_scale) ** 2 - 1 - ratio.log())


def mixture_log_prob(prior, z):
    means, scales, logits = prior.means, prior.log_scales.exp(), prior.logits
    parts = log_normal(z[..., None, :], means, scales).sum(-1)
    return (logits.log_softmax(-1) + parts).logsumexp(-1)


def parameters_of(*parts):
    """All parameters of programs, modules or methods of modules, each once."""
    owners = [getattr(part, "__self__", part) for part in parts]
    return list({id(p): p for owner in owners for p in owner.parameters()}.values())


def gradients_of(total, parameters):
    return torch.autograd.grad(
        total, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def at_seed(evaluate, pair, *args):
    torch.manual_seed(SEED)
    return evaluate(*pair, *args)


def assert_is(objective, pair, x, bound, expected=None):
    """The loss is minus a bound of all data, by value, and by gradient of all parameters.

    Args:
        objective: what is tested.
        pair: model and guide.
        x: a batch.
        bound: the definition, a number with its graph.
        expected: gradients of the bound, parameter by parameter, where they are not autograd's.
    """
    parameters = parameters_of(*pair)
    loss = at_seed(objective.differentiable_loss, pair, x)
    assert at_seed(objective.loss, pair, x) == pytest.approx(-bound.item(), rel=1e-12)
    assert loss.item() == pytest.approx(-bound.item(), rel=1e-12)
    expected = gradients_of(bound, parameters) if expected is None else expected
    for found, wanted in zip(gradients_of(loss, parameters), expected, strict=True):
        torch.testing.assert_close(-found, wanted, rtol=1e-10, atol=1e-10)
    assert sum(wanted.abs().sum() for wanted in expected) > 0


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_the_kl_of_the_beta_elbo_is_weighed(beta, num_samples):
    vae, guide = bernoulli_pair()
    mean, scale, z = diagonal_draws(guide, BITS, num_samples)
    bound = log_bits(vae, BITS, z).mean(0).sum() - beta * normal_kl(mean, scale).sum()
    assert_is(Beta_ELBO(beta, num_particles=num_samples), (vae, guide), BITS, bound)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_free_bits_are_those_of_each_dimension_averaged_over_the_batch(num_samples):
    vae, guide = bernoulli_pair()
    mean, scale, z = diagonal_draws(guide, BITS, num_samples)
    by_dimension = normal_kl(mean, scale).mean(0)
    low, high = by_dimension.min().item(), by_dimension.max().item()
    assert low < high - 0.01
    free = (low + high) / 2
    paid = sum(max(kl, kl.new_tensor(free)) for kl in by_dimension)
    bound = log_bits(vae, BITS, z).mean(0).sum() - 0.5 * len(BITS) * paid
    objective = Beta_ELBO(0.5, free_bits=free, num_particles=num_samples)
    assert_is(objective, (vae, guide), BITS, bound)


@pytest.mark.parametrize("share", [0.0, 0.9, 1.1])
def test_the_free_bits_of_a_full_covariance_are_those_of_all_its_dimensions(share):
    vae, guide = bernoulli_pair(family=FullRankNormal)
    mean, log_scale, below = guide.encoder(BITS).split([2, 2, 1], -1)
    scale = torch.diag_embed(log_scale.exp())
    scale = scale + torch.nn.functional.pad(below[..., None], (0, 1, 1, 0))
    z = mean + (scale @ standard_draws(3, len(BITS), LATENT)[..., None])[..., 0]
    kl = 0.5 * (scale.square().sum((-1, -2)) + (mean**2 - 1 - 2 * log_scale).sum(-1))
    free = share * kl.mean().item() / LATENT
    paid = max(kl.mean(), kl.new_tensor(LATENT * free))
    bound = log_bits(vae, BITS, z).mean(0).sum() - 2.0 * len(BITS) * paid
    objective = Beta_ELBO(2.0, free_bits=free, num_particles=3)
    assert_is(objective, (vae, guide), BITS, bound)


@pytest.mark.parametrize("share", [0.0, 0.9, 1.1])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_kl_to_a_mixture_is_taken_at_the_draws(share, num_samples):
    torch.manual_seed(2)
    vae, guide = bernoulli_pair(prior=NormalMixture(LATENT, 3))
    mean, scale, z = diagonal_draws(guide, BITS, num_samples)
    kl = log_normal(z, mean, scale).sum(-1) - mixture_log_prob(vae.prior, z)
    assert kl.mean() > 0
    free = share * kl.mean().item() / LATENT
    paid = max(kl.mean(), kl.new_tensor(LATENT * free))
    bound = log_bits(vae, BITS, z).mean(0).sum() - 1.5 * len(BITS) * paid
    objective = Beta_ELBO(1.5, free_bits=free, num_particles=num_samples)
    assert_is(objective, (vae, guide), BITS, bound)


class ThreeParts(nn.Module):
    """z₁, z₂, z₃ ~ N(0, I) of two dimensions in a plate of their own, and a number x by all."""

    def __init__(self, nested):
        super().__init__()
        torch.manual_seed(6)
        self.nested = (
            nested  # whether x leaves room for the plate of parts, left of which draws lie
        )
        self.encoder, self.decoder = mlp(1, out=12).double(), mlp((3, 2), out=1).double()

    def parts(self, x):
        mean, log_scale = self.encoder(x).view(-1, 2, 3, 2).unbind(1)
        return mean, log_scale.exp()

    def decode(self, z):
        return self.decoder(z).squeeze(-1)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = self.decode(z.movedim(-3, -2))
            pyro.sample(
                "x", dist.Normal(mean[..., None, :] if self.nested else mean, 1.0), obs=x[:, 0]
            )

    def guide(self, x):
        mean, scale = (part.transpose(0, 1) for part in self.parts(x))
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal(mean, scale).to_event(1))


@pytest.mark.parametrize("nested", [False, True], ids=["folded", "plated"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_plate_within_a_datum_has_dimensions_of_its_own(share, nested):
    pair, x = ThreeParts(nested), BITS[:, :1] + 0.3
    mean, scale = pair.parts(x)
    noise = standard_draws(4, 3, 7, 2) if nested else standard_draws(3, 4, 7, 2).transpose(0, 1)
    z = mean + scale * noise.transpose(1, 2)
    by_dimension = normal_kl(mean, scale).mean(0)
    free = share * by_dimension.max().item()
    assert not free or by_dimension.min() < free
    reconstruction = log_normal(x[:, 0], pair.decode(z)).mean(0).sum()
    bound = reconstruction - 1.5 * 7 * by_dimension.clamp(min=free).sum()
    objective = Beta_ELBO(1.5, free_bits=free, num_particles=4)
    assert_is(objective, (pair.model, pair.guide), x, bound)
    kl = objective._read(pair.model, pair.guide, (x,), {}).kl
    torch.testing.assert_close(kl, normal_kl(mean, scale).sum((1, 2)).expand(4, -1))


KERNELS = {
    "inverse multiquadratic": (
        inverse_multiquadratic,
        lambda a, b, c: c / (c + ((a - b) ** 2).sum()),
    ),
    "gaussian": (gaussian_kernel, lambda a, b, c: torch.exp(-((a - b) ** 2).sum() / c)),
}


def mmd_by_loops(z, v, kernel):
    """The unbiased estimate, one pair of draws at a time."""
    n = len(z)
    apart = list(itertools.permutations(range(n), 2))
    within = sum(kernel(z[i], z[j]) + kernel(v[i], v[j]) for i, j in apart)
    across = sum(kernel(z[i], v[j]) for i in range(n) for j in range(n))
    return within / (n * (n - 1)) - 2 * across / n**2


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_info_elbo_trades_kl_for_the_mean_discrepancy(alpha, kernel, scale):
    make, by_hand = KERNELS[kernel]
    vae, guide = bernoulli_pair()
    mean, spread, z = diagonal_draws(guide, BITS)
    v = torch.normal(torch.zeros(7, 2).double(), 1.0)  # drawn after z
    mmd = mmd_by_loops(z.flatten(0, 1), v, lambda a, b: by_hand(a, b, scale or 2 * LATENT))
    bound = log_bits(vae, BITS, z).mean(0).sum() - (1 - alpha) * normal_kl(mean, spread).sum()
    bound = bound - len(BITS) * (alpha + 3.0 - 1) * mmd
    objective = Info_ELBO(alpha, 3.0, kernel=make(scale))
    assert_is(objective, (vae, guide), BITS, bound)


def test_info_elbo_without_its_discrepancy_is_the_elbo():
    pair = bernoulli_pair()
    expected = pytest.approx(at_seed(Beta_ELBO(1.0).loss, pair, BITS), rel=1e-12)
    assert at_seed(Info_ELBO(0.0, 1.0).loss, pair, BITS) == expected


def total_correlation_parts(mean, scale, z, num_data):
    """I, TC and the dimensions' KL, by loops over the draws i and the posteriors j."""
    batch, parts = len(z), []
    for i in range(batch):
        joint, product = 0.0, torch.zeros(LATENT).double()
        for j in range(batch):
            weight = 1 / num_data if i == j else (num_data - 1) / num_data / (batch - 1)
            density = log_normal(z[i], mean[j], scale[j]).exp()
            joint, product = joint + weight * density.prod(), product + weight * density
        log_q = log_normal(z[i], mean[i], scale[i]).sum()
        log_product, log_prior = product.log().sum(), log_normal(z[i]).sum()
        log_qz = joint.log()
        parts.append(torch.stack([log_q - log_qz, log_qz - log_product, log_product - log_prior]))
    return torch.stack(parts)


@pytest.mark.parametrize("num_data", [7, 50])
def test_the_parts_of_the_kl_are_weighed_apart(num_data):
    vae, guide = bernoulli_pair()
    mean, scale, z = diagonal_draws(guide, BITS)
    parts = total_correlation_parts(mean, scale, z[0], num_data)
    weighed = (parts * torch.tensor([0.5, 4.0, 1.5])).sum()
    bound = num_data / 7 * (log_bits(vae, BITS, z).sum() - weighed)
    with ScaleData(num_data):
        objective = TotalCorrelation_ELBO(4.0, alpha=0.5, gamma=1.5)
        assert_is(objective, (vae, guide), BITS, bound)


def test_the_parts_of_the_kl_make_up_the_kl():
    vae, guide = bernoulli_pair()
    mean, scale, z = diagonal_draws(guide, BITS)
    kl = (log_normal(z, mean, scale) - log_normal(z)).sum()
    assert_is(TotalCorrelation_ELBO(1.0), (vae, guide), BITS, log_bits(vae, BITS, z).sum() - kl)


def test_on_all_data_the_aggregated_posterior_is_their_mean():
    vae, guide = bernoulli_pair()
    mean, scale, z = diagonal_draws(guide, BITS)
    posteriors = dist.Normal(mean, scale).to_event(1)
    log_qz = posteriors.log_prob(z[0][:, None]).exp().mean(1).log()
    kl = log_qz - log_normal(z[0]).sum(-1)
    objective = TotalCorrelation_ELBO(1.0, alpha=0.0)
    assert_is(objective, (vae, guide), BITS, log_bits(vae, BITS, z).sum() - kl.sum())


BATCHED = {
    "beta": Beta_ELBO(2.0, num_particles=3),
    "free bits": Beta_ELBO(2.0, free_bits=0.05, num_particles=3),
    "info": Info_ELBO(0.5, 3.0),
    "importance": ImportanceWeighted_ELBO(3, 2),
    "partial": ImportanceWeighted_ELBO(3, 2, gradient="doubly reparameterized", partial=True),
}


def loss_and_gradients(objective, pair, x):
    loss = at_seed(objective.differentiable_loss, pair, x)
    return torch.cat([g.flatten() for g in (loss[None], *gradients_of(loss, parameters_of(*pair)))])


@pytest.mark.parametrize("objective", BATCHED.values(), ids=BATCHED)
def test_a_minibatch_stands_for_all_data(objective):
    """Also where the decoder takes the draws folded into the batch."""
    vae, guide = bernoulli_pair()
    alone = loss_and_gradients(objective, (vae, guide), BITS)
    folded = VAE(vae.prior, OneBatchDimension(vae.decoder, LATENT), vae.likelihood)
    for model in (vae, folded):
        with ScaleData(35):
            scaled = loss_and_gradients(objective, (model, guide), BITS)
            value = at_seed(objective.loss, (model, guide), BITS)
        torch.testing.assert_close(scaled, 5 * alone, rtol=1e-10, atol=1e-10)
        assert value == pytest.approx(scaled[0].item(), rel=1e-12)
    torch.testing.assert_close(
        loss_and_gradients(objective, (folded, guide), BITS), alone, rtol=1e-10, atol=1e-10
    )


OBJECTIVES = {**BATCHED, "total correlation": TotalCorrelation_ELBO(4.0)}


@pytest.mark.parametrize("num_samples", [1, 3, 5])
@pytest.mark.parametrize("fixed", [False, True], ids=["any dimensions", "one batch dimension"])
def test_a_plate_that_knows_of_all_data_scales_by_itself(fixed, num_samples):
    """In plain ``SVI`` as within ``fit``; 5 × 7 draws are as many as there are data."""
    vae, guide = bernoulli_pair()

    def model(x):
        with pyro.plate("data", 35, subsample=x, dim=-1):
            z = pyro.sample("z", vae.prior())
            decoder = OneBatchDimension(vae.decoder, LATENT) if fixed else vae.decoder
            pyro.sample("x", vae.likelihood(decoder(z)), obs=x)

    def family(x):
        distribution = guide.posterior(x)
        with pyro.plate("data", 35, subsample=x, dim=-1):
            pyro.sample("z", distribution)

    objective = Beta_ELBO(2.0, num_particles=num_samples)
    expected = 5 * at_seed(objective.loss, (vae, guide), BITS)
    assert at_seed(objective.loss, (model, family), BITS) == pytest.approx(expected, rel=1e-10)
    with ScaleData(35):
        assert at_seed(objective.loss, (model, family), BITS) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_global_latent_variable_counts_once(num_samples):
    pair, x = GlobalMean(), torch.randn(9).double()
    with ScaleData(45):
        objective = Beta_ELBO(2.0, num_particles=num_samples)
        loss = at_seed(objective.differentiable_loss, (pair.model, pair.guide), x)
    loc, scale, slope = (pyro.param(name) for name in ("loc", "scale", "slope"))
    w = loc + scale * standard_draws()
    spread = torch.tensor(0.8, dtype=torch.float64)
    z = slope * x + spread * torch.normal(torch.zeros(num_samples, 9).double(), 1.0)
    local = log_normal(x, z + w).mean(0) - 2.0 * normal_kl(slope * x, spread)
    bound = 45 / 9 * local.sum() + log_normal(w) - log_normal(w, loc, scale)
    assert loss.item() == pytest.approx(-bound.item(), rel=1e-12)
    leaves = [value.unconstrained() for value in (loc, scale, slope)]
    for mine, wanted in zip(gradients_of(-loss, leaves), gradients_of(bound, leaves), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-10)


def flow_guide():
    return NormalizingFlow(mlp(PIXELS, out=6), LATENT, inverse(zuko.flows.MAF(2, 2)), context=2)


@pytest.mark.parametrize("make", [flow_guide, lambda: bernoulli_pair(family=FullRankNormal)[1]])
def test_other_posteriors_get_a_gradient_for_all_parameters(make):
    vae, guide = bernoulli_pair()[0], make().double()
    for name, objective in BATCHED.items():
        found = gradients_of(
            objective.differentiable_loss(vae, guide, BITS), parameters_of(vae, guide)
        )
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in found), name


def test_a_point_may_be_reconstructed_and_spread():
    vae, guide = bernoulli_pair(family=PointPosterior)
    z = guide.encoder(BITS)
    reconstruction = log_bits(vae, BITS, z).sum()
    assert_is(Beta_ELBO(0.0), (vae, guide), BITS, reconstruction)
    mmd = mmd_by_loops(z, standard_draws(7, 2), lambda a, b: 4 / (4 + ((a - b) ** 2).sum()))
    assert_is(Info_ELBO(1.0, 3.0), (vae, guide), BITS, reconstruction - 7 * 3.0 * mmd)
