"""Markov chains beside a guide: exact moments, and what counts as a miss."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from latente.inference.diagnostics.nuts import MAX_COORDINATES, NUTSReference, nuts_posterior

from .oracles import LinearGaussian, OneBatchDimension

SHORT = {"num_samples": 120, "warmup_steps": 60, "num_temperatures": 10}
ORACLE = LinearGaussian(2, scale=1.5, orthogonal=True)


def check_moments(nuts, mean, sd):
    """Within 4 Monte Carlo errors each (false alarm 6e-5 a number, were they normal)."""
    assert ((nuts.mean - mean).abs() < 4 * sd / nuts.ess.sqrt()).all()
    assert ((nuts.sd / sd).log().abs() < 4 / nuts.ess.sqrt()).all()


def test_moments_of_a_linear_model_are_exact_and_its_exact_guide_misses_nothing(capfd):
    """A rotated model, whose diagonal guide has the exact marginals; nothing is printed."""
    oracle = LinearGaussian(2, scale=1.5)
    x = oracle.sample(2)
    nuts = nuts_posterior(
        *oracle.pair(), x, seed=1, num_samples=150, warmup_steps=60, num_temperatures=10
    )
    sd = oracle.covariance.diagonal().sqrt().expand(2, -1)
    check_moments(nuts, oracle.posterior_mean(x), sd)
    assert nuts.names == ("z[0]", "z[1]")
    assert nuts.draws.shape == (2, 150, 2, 2)
    assert nuts.guide_draws.shape[1:] == (2, 2)
    assert nuts.draws.dtype == nuts.mean.dtype == nuts.ess.dtype == torch.float64
    assert nuts.converged.all()
    assert nuts.divergences == 0
    assert torch.allclose(nuts.guide_mean, oracle.posterior_mean(x), atol=5 * sd.max() / 60)
    assert torch.allclose(nuts.guide_sd, sd, rtol=0.06)
    assert not nuts.misses().any()
    # Correlation of the two coordinates, which the guide does not have.
    exact = oracle.covariance[0, 1] / sd[0].prod()
    found = torch.corrcoef(nuts.draws[:, :, 0].flatten(0, 1).T)[0, 1]
    assert found == pytest.approx(exact.item(), abs=0.2)
    assert abs(torch.corrcoef(nuts.guide_draws[:, 0].T)[0, 1]) < 0.1
    assert capfd.readouterr() == ("", "")


def false_alarms(seeds):
    """How often the exact guide shows, with no tolerance but for noise: at most 5 %."""
    model, guide = ORACLE.pair()
    return sum(
        bool(
            nuts_posterior(model, guide, ORACLE.sample(2, seed=1000 + seed), seed=seed, **SHORT)
            .misses(tolerance=0.0)
            .any()
        )
        for seed in seeds
    )


@pytest.mark.slow
def test_the_exact_guide_seldom_shows():
    """Of 2 repetitions none or one (false alarm 0.3 % at a rate of 5 %); 200 are a slow study.

    These seeds have none. Rounding on another processor can lead a chain elsewhere: one of them may
    then show.
    """
    assert false_alarms(range(3, 5)) <= 1


@pytest.mark.slow
def test_the_exact_guide_shows_as_often_as_stated():
    """Of 200 repetitions at most what a rate of 5 % explains (false alarm 1e-3)."""
    found = false_alarms(range(200))
    print(f"{found} of 200")
    assert found <= stats.binom.isf(1e-3, 200, 0.05)


def test_what_is_wrong_with_a_guide_shows():
    """Half as wide, shifted by a standard deviation, collapsed to the prior: of one datum each, by
    its figure."""
    x = ORACLE.sample(3)
    sd = ORACLE.covariance.diagonal().sqrt()

    def guide(x):
        mean = ORACLE.posterior_mean(x)
        loc = torch.stack([mean[0], mean[1] + sd, 0 * mean[2]])
        scale = torch.stack([0.5 * sd, sd, torch.ones_like(sd)])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    nuts = nuts_posterior(ORACLE.pair()[0], guide, x, **SHORT)
    assert nuts.misses().all()
    (narrow, as_wide, idle), (centred, shifted, _) = nuts.ratio, nuts.shift
    assert torch.allclose(narrow, torch.tensor(0.5).double(), atol=0.1)
    assert centred.abs().max() < 0.4
    assert torch.allclose(shifted, torch.tensor(1.0).double(), atol=0.4)
    assert torch.allclose(as_wide, torch.tensor(1.0).double(), atol=0.25)
    assert torch.allclose(idle, 1 / sd, rtol=0.25)


def counts(x):
    """z ~ Gamma(3, 2), x ~ Poisson(z): z|x ~ Gamma(3 + x, 3)."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), x.new_tensor(2.0)))
        pyro.sample("count", dist.Poisson(rate), obs=x)


def guide_of_counts(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(3.0 + x, x.new_tensor(3.0)))


def test_a_positive_site_is_sampled_as_its_logarithm():
    """log z of Gamma(a, b): mean ψ(a) − log b, variance ψ′(a)."""
    x = torch.tensor([0.0, 5.0], dtype=torch.float64)
    nuts = nuts_posterior(counts, guide_of_counts, x, **SHORT)
    shape = 3 + x[:, None]
    check_moments(nuts, shape.digamma() - math.log(3), torch.polygamma(1, shape).sqrt())
    assert nuts.names == ("rate",)
    assert not nuts.misses().any()
    assert nuts.guide_mean.flatten() == pytest.approx(
        (shape.digamma() - math.log(3)).flatten(), abs=0.05
    )


def by_hand(**changed):
    """Two coordinates of one datum: the guide is right of neither, by its mean and its width."""
    both = torch.ones(1, 2, dtype=torch.float64)
    parts = {
        "names": ("a", "b"),
        "mean": 0 * both,
        "sd": both,
        "guide_mean": torch.tensor([[2.0, 0.0]]).double(),
        "guide_sd": torch.tensor([[1.0, 3.0]]).double(),
        "rhat": both,
        "ess": 1000 * both,
        "divergences": 0,
        "draws": torch.zeros(2, 500, 1, 2).double(),
        "guide_draws": torch.zeros(4000, 1, 2).double(),
    }
    return NUTSReference(**{**parts, **changed})


def test_what_has_not_converged_never_counts():
    both = torch.ones(1, 2, dtype=torch.float64)
    assert by_hand().converged.all()
    assert by_hand().misses().tolist() == [[True, True]]
    stuck = by_hand(rhat=torch.tensor([[1.2, 1.0]]).double())
    assert stuck.converged.tolist() == [[False, True]]
    assert stuck.misses().tolist() == [[False, True]]
    few = by_hand(ess=torch.tensor([[1000.0, 50.0]]).double())
    assert few.misses().tolist() == [[True, False]]
    unknown = by_hand(rhat=both * math.nan, ess=both * math.nan)
    assert not unknown.misses().any()


def test_a_miss_is_beyond_tolerance_and_noise():
    """Of a shift of 0.35, with errors of 0.035 and a quantile of 2.5: over 0.2 + 0.09, not 0.3."""
    both = torch.ones(1, 2, dtype=torch.float64)
    nuts = by_hand(guide_mean=0.35 * both, guide_sd=both)
    assert nuts.misses().all()
    assert not nuts.misses(tolerance=0.3).any()
    assert not by_hand(guide_mean=0.35 * both, guide_sd=both, ess=110 * both).misses().any()
    assert by_hand(guide_mean=0 * both, guide_sd=0.6 * both).misses().all()
    assert not by_hand(guide_mean=0 * both, guide_sd=0.85 * both).misses().any()
    assert by_hand(guide_mean=0 * both, guide_sd=1.5 * both).misses().all()
    assert nuts.shift.tolist() == [[0.35, 0.35]]


def test_the_seed_decides_and_leaves_the_global_state_alone():
    model, guide = ORACLE.pair()
    model.decoder = OneBatchDimension(model.decoder, 2)
    x = ORACLE.sample(1)
    state = torch.random.get_rng_state()

    least = {"num_samples": 10, "warmup_steps": 10, "num_temperatures": 10}

    def run(seed):
        return nuts_posterior(model, guide, x, **least, seed=seed).draws

    first = run(1)
    assert torch.equal(run(1), first)
    assert not torch.equal(run(2), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(value.grad is None for part in (model, guide) for value in part.parameters())


def discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(x.new_tensor(0.5)))
        pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)


def guide_of_discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(x.new_tensor(0.5)))


def test_what_cannot_be_sampled_is_refused_in_one_line():
    x = torch.zeros(3).double()
    for name, least in (("num_samples", 10), ("warmup_steps", 10), ("num_chains", 2)):
        with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {least - 1}$"):
            nuts_posterior(counts, guide_of_counts, x, **{name: least - 1})
    with pytest.raises(ValueError, match=f"give some {MAX_COORDINATES} data at most"):
        nuts_posterior(counts, guide_of_counts, torch.zeros(MAX_COORDINATES + 1).double())
    with pytest.raises(ValueError, match="'kind' is discrete"):
        nuts_posterior(discrete, guide_of_discrete, x)
