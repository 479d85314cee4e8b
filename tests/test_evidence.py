"""Evidence against closed forms, and the properties that make it trustworthy."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats

from latente.guides import DiagonalNormal
from latente.inference import log_evidence
from latente.inference.evidence.importance_sampling import PER_DATUM_FIELDS, Evidence
from latente.inference.evidence.pareto_smoothing import pareto_khat, summarize_weights
from latente.inference.pairs import scoring
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.log_terms import draw, score
from latente.inference.pairs.scoring import DRAWS_AT_ONCE
from latente.models import VAE, StandardNormal

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension


@pytest.mark.parametrize("num_latent", [1, 2, 5])
def test_evidence_of_a_linear_model_agrees_with_its_closed_form(num_latent):
    """log p̂ − log p over its standard error, over 200 data, float64, S = 2,000.

    Under a right estimator the sum of squared z-scores is χ²(200) up to the smallness of the
    bias; the test allows the 1e-4 quantiles on both sides (false alarm 2e-4), and the mean
    z-score 4 standard errors (6e-5).
    """
    oracle = LinearGaussian(num_latent)
    x = oracle.sample(200)
    evidence = log_evidence(*oracle.pair(widen=1.3), x, num_samples=2000, seed=4)
    error = evidence.log_px - oracle.marginal.log_prob(x)
    scores = error / evidence.standard_error
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 200)
    assert low < scores.square().sum().item() < high
    assert abs(scores.mean().item()) < 4 / math.sqrt(200)
    assert evidence.log_px.dtype == torch.float64
    assert evidence.elbo < evidence.mean


def test_the_exact_posterior_has_no_error():
    """K = 1: all weights equal p(x), so error is 0, ESS is S, and k̂ says no tail."""
    oracle = LinearGaussian(1)
    x = oracle.sample(20)
    evidence = log_evidence(*oracle.pair(), x, num_samples=100)
    assert torch.allclose(evidence.log_px, oracle.marginal.log_prob(x), rtol=0, atol=1e-10)
    assert evidence.standard_error.max() < 1e-10
    assert torch.allclose(evidence.ess, torch.full((20,), 100.0).double())
    assert (evidence.khat == -math.inf).all()
    assert evidence.khat_bad_fraction == 0
    assert evidence.elbo == pytest.approx(evidence.mean, abs=1e-10)


def test_a_narrow_guide_is_found_out():
    """A guide of a third of the width: k̂ is bad, ESS small, and the error estimate large."""
    oracle = LinearGaussian(2)
    x = oracle.sample(50)
    good = log_evidence(*oracle.pair(widen=1.3), x, num_samples=3000)
    bad = log_evidence(*oracle.pair(widen=1 / 3), x, num_samples=3000)
    assert good.khat_bad_fraction == 0
    assert bad.khat_bad_fraction > 0.5
    assert bad.ess.median() < good.ess.median() / 5


@pytest.mark.parametrize("chunk_size", [1, 7, 100, 1000])
def test_the_result_does_not_depend_on_the_chunk_size(chunk_size):
    oracle = LinearGaussian(2)
    x = oracle.sample(33)
    pair = oracle.pair(widen=1.3)
    expected = log_evidence(*pair, x, num_samples=300, seed=1)
    found = log_evidence(*pair, x, num_samples=300, chunk_size=chunk_size, seed=1)
    for name in ("log_px", "standard_error", "ess", "khat", "reconstruction", "kl"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-10), (
            name
        )


def test_no_datum_is_dropped():
    """Any number of data, with a last batch of any size, in their order."""
    oracle = LinearGaussian(1)
    num_samples = DRAWS_AT_ONCE // 10
    for num in (1, 9, 10, 11, 25):
        x = oracle.sample(num)
        evidence = log_evidence(*oracle.pair(), x, num_samples=num_samples)
        assert torch.allclose(evidence.log_px, oracle.marginal.log_prob(x), rtol=0, atol=1e-9)


def test_the_seed_decides(make_pair, binary_images):
    pair = make_pair()
    first, again, other = (
        log_evidence(*pair, binary_images, num_samples=20, seed=seed).log_px for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_network_of_one_batch_dimension_gives_the_same_evidence():
    """A pair that cannot be run under a plate of samples is run on repeated data instead."""
    oracle = LinearGaussian(2)
    x = oracle.sample(30)
    vae, guide = oracle.pair(widen=1.3)
    narrow = VAE(StandardNormal(2), OneBatchDimension(vae.decoder, 2), vae.likelihood).double()
    assert inspect_pair(vae, guide, (x,)).vectorized
    assert not inspect_pair(narrow, guide, (x,)).vectorized
    evidence = log_evidence(narrow, guide, x, num_samples=3000, chunk_size=17)
    scores = (evidence.log_px - oracle.marginal.log_prob(x)) / evidence.standard_error
    assert scores.abs().max() < 5  # false alarm 2e-5
    whole = log_evidence(narrow, guide, x, num_samples=3000)
    assert torch.allclose(whole.log_px, evidence.log_px, rtol=0, atol=1e-10)


def test_a_network_that_mixes_samples_with_data_is_not_vectorized():
    class Mixing(torch.nn.Module):
        def forward(self, z):
            return z - z.mean(0, keepdim=True) if z.dim() == 3 else z

    oracle = LinearGaussian(2)
    vae, guide = oracle.pair()
    mixing = VAE(
        StandardNormal(2), torch.nn.Sequential(Mixing(), vae.decoder), vae.likelihood
    ).double()
    assert not inspect_pair(mixing, guide, (oracle.sample(5),)).vectorized


def test_terms_are_the_densities_whatever_the_scale():
    """Hand-written log terms; poutine.scale inside the model does not enter, masks do."""

    def model(x):
        with pyro.plate("data", len(x)), poutine.scale(scale=7.0):
            z = pyro.sample("z", dist.Normal(0.5, 2.0))
            keep = torch.tensor([True, False, True])
            with poutine.mask(mask=keep):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.3))

    x = torch.tensor([0.0, 1.0, 2.0])
    draws = draw(guide, (x,), 4, inspect_pair(model, guide, (x,)))
    terms = score(model, draws)
    z = draws.trace.nodes["z"]["value"]
    assert z.shape == (4, 3)
    log_likelihood = dist.Normal(z, 1.0).log_prob(x) * torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(terms.log_likelihood, log_likelihood)
    assert torch.allclose(terms.log_prior, dist.Normal(0.5, 2.0).log_prob(z))
    assert torch.allclose(terms.log_posterior, dist.Normal(x, 0.3).log_prob(z))


def test_two_sites_and_an_inner_plate():
    """Three observations of each datum in a plate of their own, and a second latent layer."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(top, 1.0))
            with pyro.plate("views", 3, dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", dist.Normal(x.mean(1) / 2, 1.1))
            pyro.sample("z", dist.Normal((3 * x.mean(1) + top) / 4, 0.6))

    x = torch.randn(6, 3).double()
    covariance = torch.eye(3).double() + 2
    exact = dist.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x)
    evidence = log_evidence(model, guide, x, num_samples=20_000)
    scores = (evidence.log_px - exact) / evidence.standard_error
    assert scores.abs().max() < 4.5  # false alarm 4e-5


def test_khat_has_the_right_sign_and_finds_known_tails():
    """Weights r^(−k), r uniform, have Pareto tail index k exactly.

    Five sets of 20,000 draws each. k̂ comes from the M = 3√S = 424 largest, with standard error
    (1 + k) / √M; the mean of five lies within 4 standard errors (false alarm 6e-5 each).
    """
    rng = np.random.default_rng(0)
    for k in (0.1, 0.3, 0.5, 0.7, 0.9):
        log_weight = torch.as_tensor(-k * np.log(rng.random((20_000, 5))))
        khat = pareto_khat(log_weight)
        error = (1 + k) / math.sqrt(424 * 5)
        assert khat.mean().item() == pytest.approx(k, abs=4 * error)
        assert pareto_khat(-log_weight).max() < 0


def test_weigh_by_hand():
    log_weight = torch.tensor([[0.0], [math.log(3.0)]]).double()
    figures = summarize_weights(log_weight - 1000)
    assert figures["log_px"].item() == pytest.approx(math.log(2) - 1000)
    # Weights 1/2 and 3/2 of their mean: variance 1/2, over S = 2, square root.
    assert figures["standard_error"].item() == pytest.approx(0.5)
    assert figures["ess"].item() == pytest.approx(16 / 10)


def test_weights_that_are_mostly_zero_have_no_tail_to_trust():
    """A prior on z > 0 and a guide that mostly draws z < 0: one draw in forty counts."""
    log_weight = torch.full((1000, 2), -math.inf).double()
    log_weight[:10] = 0.0
    log_weight[:500, 1] = torch.randn(500).double() / 10
    khat = pareto_khat(log_weight)
    assert khat[0] == math.inf
    assert khat[1] < 0.5

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.HalfNormal(1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(-2.0 + 0 * x, 1.0))

    evidence = log_evidence(model, guide, torch.ones(20), num_samples=1000)
    assert evidence.khat_bad_fraction == 1


def test_means_errors_and_thresholds_by_hand():
    values = {name: torch.tensor([1.0, 2.0, 4.0, 8.0]).double() for name in PER_DATUM_FIELDS}
    evidence = Evidence(**values, num_samples=1000)
    assert evidence.mean == 3.75
    assert evidence.mean_standard_error == pytest.approx(math.sqrt(1 + 4 + 16 + 64) / 4)
    assert evidence.elbo == 0
    assert evidence.khat_threshold == pytest.approx(1 - 1 / 3)
    assert Evidence(**values, num_samples=10_000).khat_threshold == 0.7
    khat = torch.tensor([0.5, 0.68, math.nan, -math.inf]).double()
    assert Evidence(**{**values, "khat": khat}, num_samples=1000).khat_bad_fraction == 0.5


def test_weights_are_summed_in_float64():
    """Float32 log weights of a thousand nats hold no more than four digits of their spread."""
    oracle = LinearGaussian(1, num_observed=8)
    x = oracle.sample(3).float()
    vae, guide = (part.float() for part in oracle.pair(widen=1.3))
    evidence = log_evidence(vae, guide, x, num_samples=200)
    for name in PER_DATUM_FIELDS:
        assert getattr(evidence, name).dtype == torch.float64
    figures = summarize_weights(torch.tensor([[0.0]] * 3 + [[-25.0]]).double())
    assert figures["log_px"].item() == pytest.approx(math.log((3 + math.exp(-25)) / 4), abs=1e-15)


def test_a_guide_that_mixes_samples_with_data_is_not_vectorized():
    class Mixing(DiagonalNormal):
        def forward(self, x):
            with pyro.plate("data", len(x), dim=-1):
                top = pyro.sample("top", self.posterior(x))
                share = torch.softmax(top, dim=1)  # over K, unless samples stand before N
                return pyro.sample("z", dist.Normal(share, 1.0).to_event(1))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            distribution = dist.Normal(torch.zeros(len(x), 2).double(), 1.0).to_event(1)
            pyro.sample("top", distribution)
            z = pyro.sample("z", distribution)
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x[:, 0])

    guide = Mixing(LinearGaussian(2, num_observed=4).pair()[1].encoder, 2)
    assert not inspect_pair(model, guide, (torch.randn(5, 4).double(),)).vectorized


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_weights_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="1 data have importance weights that are NaN, inf"):
        summarize_weights(torch.tensor([[0.0, value]] * 3).double())


def test_one_impossible_draw_is_not_an_error():
    log_weight = torch.zeros(100, 1).double()
    log_weight[0] = -math.inf
    assert summarize_weights(log_weight)["log_px"].item() == pytest.approx(math.log(0.99))


def test_bad_arguments_are_refused(make_pair, binary_images):
    pair = make_pair()
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        log_evidence(*pair, binary_images, num_samples=1)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        log_evidence(*pair, binary_images, chunk_size=0)
    with pytest.raises(ValueError, match=r"outside the support of Bernoulli .* row 3"):
        log_evidence(*pair, binary_images + 0.5 * (torch.arange(200) == 3)[:, None, None])
    with pytest.raises(ValueError, match="network of 16 inputs"):
        log_evidence(*pair, torch.zeros(5, 3))

    def point(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def beside(x):
        model(x)
        pyro.sample("total", dist.Normal(0.0, 1.0), obs=x.sum())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    with pytest.raises(ValueError, match="puts all of 'z' on one point"):
        log_evidence(model, point, torch.zeros(5))
    with pytest.raises(ValueError, match="observed site 'total' stands outside the plate"):
        log_evidence(beside, guide, torch.zeros(5))
    pair = GlobalMean()
    assert log_evidence(pair.model, pair.guide, torch.zeros(5)).set_rows == 5


def test_too_few_samples_for_khat_is_said(make_pair, binary_images):
    few = log_evidence(*make_pair(), binary_images[:5], num_samples=10)
    assert "S = 10 is too small for Pareto k̂" in few.sample_size_warning
    assert "no k̂" in repr(few)
    more = log_evidence(*make_pair(), binary_images[:5], num_samples=100)
    assert "threshold of k̂ is 0.50" in more.sample_size_warning
    assert log_evidence(*make_pair(), binary_images[:2], num_samples=2200).sample_size_warning == ""


def positive(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("count", dist.Poisson(z), obs=x)


def test_a_guide_that_does_not_reach_the_prior_is_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("height", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("height", dist.Gamma(2.0, 1.0).expand(x.shape))

    with pytest.raises(
        ValueError, match="guide's distribution of 'height', Gamma, has no mass where the"
    ):
        log_evidence(model, guide, torch.zeros(50))


def test_a_guide_that_leaves_the_support_of_the_prior_is_refused_by_name():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Normal(0.0 * x, 1.0))

    with pytest.raises(ValueError, match="guide draws 'rate' where the prior, Gamma, has no mass"):
        log_evidence(positive, guide, torch.ones(50))


def test_weights_that_are_not_finite_name_the_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0 * x, 1.0))
            distribution = dist.Normal(z, 1.0).mask(True)
            pyro.sample("reading", distribution, obs=x)
            pyro.factor("penalty", torch.full_like(z, -math.inf))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * x, 1.0))

    with pytest.raises(ValueError, match="all zero: the log density of 'penalty' in the model"):
        log_evidence(model, guide, torch.ones(3))


def test_a_pair_without_latent_variables_has_its_density_as_evidence():
    """As a baseline that is fully observed: all weights are one."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.5, 2.0), obs=x)

    def guide(x):
        pass

    x = torch.randn(7, generator=torch.Generator().manual_seed(0))
    evidence = log_evidence(model, guide, x, num_samples=30)
    exact = dist.Normal(0.5, 2.0).log_prob(x).double()
    assert torch.allclose(evidence.log_px, exact, rtol=0, atol=1e-6)
    assert (evidence.standard_error < 1e-6).all()


def test_a_large_latent_variable_is_drawn_a_few_samples_at_a_time(monkeypatch):
    """Of 6 data with 4 numbers each and 100 numbers allowed: 25 draws, 4 samples of each datum."""
    monkeypatch.setattr(scoring, "VALUES_AT_ONCE", 100)
    drawn = []

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):  # the exact posterior: covariance I − 11ᵀ/5, mean x/5
        cov = torch.eye(4) - 0.2
        with pyro.plate("data", len(x)):
            mean = (x / 5)[:, None].expand(-1, 4)
            z = pyro.sample("z", dist.MultivariateNormal(mean, cov))
        drawn.append(z.shape[:-2].numel())

    x = torch.randn(6, generator=torch.Generator().manual_seed(0))
    evidence = log_evidence(model, guide, x, num_samples=21, compile="plain")
    exact = dist.Normal(0.0, math.sqrt(5.0)).log_prob(x).double()
    assert torch.allclose(evidence.log_px, exact, rtol=0, atol=1e-5)
    assert max(drawn) == 4
    assert evidence.num_samples == 21
