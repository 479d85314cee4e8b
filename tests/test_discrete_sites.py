"""Discrete latent sites that the guide draws: ranks, information, and what needs real numbers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.inference import (
    annealed_evidence,
    calibrate,
    inference_gap,
    latent_information,
    log_evidence,
    nuts_posterior,
)
from latente.inference.diagnostics.calibration import _pit, _settle_ties

COUNTS = torch.arange(60.0)
MEANS = torch.tensor([-1.0, 0.5, 1.5])
PRIORS = {
    "Categorical": (dist.Categorical(torch.tensor([0.2, 0.5, 0.3])), torch.arange(3), MEANS),
    "Bernoulli": (dist.Bernoulli(torch.tensor(0.3)), torch.tensor([0.0, 1.0]), MEANS[:2]),
    "Poisson": (dist.Poisson(torch.tensor(2.0)), COUNTS, COUNTS / 2),
}


class Discrete:
    """k of some prior, x | k ~ N(m_k, 0.7); the guide is p(k|x) to some power, times values."""

    def __init__(self, name, power=1.0):
        self.prior, self.values, self.means = PRIORS[name]
        self.power = power

    def model(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", self.prior)
            pyro.sample("x", dist.Normal(self.means[k.long()], 0.7), obs=x)

    def joint(self, x):
        """log p(x, k), (N, K)."""
        return self.prior.log_prob(self.values) + dist.Normal(self.means, 0.7).log_prob(x[:, None])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            logits = self.power * self.joint(x)
            if isinstance(self.prior, dist.Bernoulli):
                pyro.sample("k", dist.Bernoulli(logits=logits[:, 1] - logits[:, 0]))
            else:
                pyro.sample("k", dist.Categorical(logits=logits))


@pytest.mark.parametrize("name", PRIORS)
def test_exact_guides_of_discrete_sites_are_calibrated(name):
    """Each of 12 repetitions alarms with probability 5 % at most: more than 4 alarms in 2.4e-4."""
    pair = Discrete(name)
    found = [
        calibrate(pair.model, pair.guide, torch.zeros(1), num_simulations=150, num_draws=30, seed=s)
        for s in range(12)
    ]
    for alarms in ("miscalibrated", "weighted_miscalibrated", "biased"):
        assert sum(bool(getattr(one, alarms)) for one in found) <= 4
    # All ranks together are uniform: Kolmogorov's distance, 3 tests at 1e-4.
    pit = torch.cat([one.pit for one in found]).sort(0).values
    expected = (torch.arange(len(pit), dtype=torch.float64)[:, None] + 0.5) / len(pit)
    assert (pit - expected).abs().max() < 2.3 / math.sqrt(len(pit))


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize(("power", "words"), [(0.2, "too wide"), (4.0, "too narrow")])
def test_wrong_guides_of_discrete_sites_are_found(name, power, words):
    """A posterior that is flatter or steeper than the exact one."""
    pair = Discrete(name, power)
    found = calibrate(pair.model, pair.guide, torch.zeros(1), num_simulations=1000, num_draws=30)
    assert found.miscalibrated.keys() & {"k", "log p(x, z)"}
    assert set(found.miscalibrated.values()) & {words, "draws too likely", "draws too unlikely"}


def test_ties_that_rounding_would_decide_are_broken_at_random():
    """z* has its value's density, computed in another run, one unit of rounding below."""
    density = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    drawn = density.expand(50, 1000)[..., None]
    truth = torch.nextafter(density, torch.tensor(-math.inf))[None, :, None]
    weight, noise = torch.ones(50, 1000).double(), torch.linspace(0, 1, 1000).double()[:, None]
    assert _pit(truth, drawn, weight, noise).max() < 0.02
    settled = _pit(truth, _settle_ties(truth, drawn), weight, noise)
    assert torch.allclose(settled, noise)


def test_information_of_a_discrete_site_is_exact():
    """KL, I(x; k) and the aggregated posterior's KL by sums over k; within 5 standard errors."""
    pair = Discrete("Categorical")
    x = 1.5 * torch.randn(300, generator=torch.Generator().manual_seed(0))
    found = latent_information(pair.model, pair.guide, x, num_draws=400)
    log_q, log_p = pair.joint(x).log_softmax(-1), PRIORS["Categorical"][0].probs.log()
    kl = (log_q.exp() * (log_q - log_p)).sum(1)
    assert torch.allclose(found.kl[:, 0], kl.double(), atol=1e-5)
    aggregated = log_q.logsumexp(0) - math.log(300)
    carried = (log_q.exp() * (log_q - aggregated)).sum(1).mean().item()
    error = 5 * found.mutual_information_error
    assert found.mutual_information == pytest.approx(carried, abs=error)
    marginal = (aggregated.exp() * (aggregated - log_p)).sum().item()
    assert found.marginal_kl == pytest.approx(marginal, abs=5 * found.marginal_kl_error)


@pytest.mark.parametrize("name", PRIORS)
def test_evidence_of_an_exact_discrete_guide_is_exact(name):
    pair, x = Discrete(name), torch.linspace(-1, 2, 5)
    evidence = log_evidence(pair.model, pair.guide, x, num_samples=100)
    assert torch.allclose(evidence.log_px, pair.joint(x).logsumexp(-1).double(), atol=1e-4)


@pytest.mark.parametrize("function", [annealed_evidence, inference_gap, nuts_posterior])
def test_what_needs_real_numbers_says_what_to_do(function):
    """Sites of a finite support can be summed out; a Poisson's cannot."""
    told = "'k' is discrete, and this needs real numbers"
    for name, advice in (("Categorical", ": mark it infer="), ("Bernoulli", ": mark it infer=")):
        pair = Discrete(name)
        with pytest.raises(ValueError, match=told + advice):
            function(pair.model, pair.guide, torch.zeros(3))
    pair = Discrete("Poisson")
    with pytest.raises(ValueError, match=told + "$"):
        function(pair.model, pair.guide, torch.zeros(3))
