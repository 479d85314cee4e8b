"""Annealed evidence against closed forms, and the distributions that its weights and moves must
keep."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from latente.inference import log_evidence
from latente.inference.evidence import annealed_importance_sampling as annealing
from latente.inference.evidence.annealed_importance_sampling import annealed_evidence
from latente.inference.evidence.sandwich import bidirectional_evidence
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.latent_space import latent_space

from .oracles import LinearGaussian, OneBatchDimension


def idle_pair(oracle):
    """The oracle's model, with a guide that is its prior."""
    vae, guide = oracle.pair()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    return vae, guide


@pytest.mark.parametrize(
    ("oracle", "num_data", "settings", "off"),
    [
        (LinearGaussian(2), 8, (100, 64, 3), 0.0),
        pytest.param(LinearGaussian(10, 20, 1.2), 3, (500, 250, 5), 5.0, marks=pytest.mark.slow),
        (LinearGaussian(50, 40, 4.0), 3, (400, 100, 5), 5.0),
    ],
    ids=["K=2", "K=10", "K=50"],
)
def test_annealing_is_exact_where_sampling_from_the_prior_is_lost(oracle, num_data, settings, off):
    """A linear Gaussian model, from the prior: mean log p̂ − log p within 4 of its standard errors
    (false alarm 6e-5, were it normal) and 0.1 nats.

    Of K = 2 the prior is proposal enough; beyond, 5,000 draws of it are off by more than 5 nats, on
    the average of five seeds.
    """
    model, guide = idle_pair(oracle)
    x = oracle.sample(num_data)
    exact = oracle.marginal.log_prob(x).mean().item()
    temperatures, chains, leapfrog = settings
    annealed = annealed_evidence(
        model, guide, x, num_temperatures=temperatures, num_chains=chains, num_leapfrog=leapfrog
    )
    error = annealed.mean - exact
    means = [log_evidence(model, guide, x, num_samples=5000, seed=seed).mean for seed in range(5)]
    sampled = sum(means) / len(means) - exact
    print(
        f"AIS {error:+.3f} ± {annealed.mean_standard_error:.3f}, prior {sampled:+.2f}, "
        f"ESS {annealed.ess.mean().item():.0f} of {chains}"
    )
    assert abs(error) < min(0.1, 4 * annealed.mean_standard_error)
    assert sampled < -off if off else abs(sampled) < 0.1
    assert annealed.log_px.dtype == annealed.log_weight.dtype == torch.float64
    assert annealed.log_weight.shape == (chains, num_data)
    assert annealed.num_temperatures == temperatures
    assert ((annealed.acceptance > 0.4) & (annealed.acceptance < 0.9)).all()
    assert torch.allclose(
        annealed.log_px, annealed.log_weight.logsumexp(0) - math.log(chains), rtol=0, atol=1e-10
    )


def test_the_exact_value_lies_between_the_bounds_which_close():
    """Of simulated data: mean lower − 3 se ≤ exact ≤ mean upper + 3 se (false alarm 3e-3, fixed
    seeds), and the gap falls as temperatures grow; with a handful it is wide."""
    oracle = LinearGaussian(5, scale=1.0)
    model, guide = idle_pair(oracle)
    gaps = []
    for num_temperatures in (5, 30, 120):
        both = bidirectional_evidence(
            model, guide, torch.zeros(1, 8), num_data=12, num_temperatures=num_temperatures,
            num_chains=16, num_leapfrog=5, seed=1,
        )  # fmt: skip
        exact = oracle.marginal.log_prob(both.data[0]).mean().item()
        assert both.lower.mean - 3 * both.lower.mean_standard_error <= exact
        assert exact <= both.upper.mean + 3 * both.upper.mean_standard_error
        print(
            f"T={num_temperatures}: {both.lower.mean - exact:+.3f}, {both.upper.mean - exact:+.3f}"
        )
        assert both.gap == both.upper.mean - both.lower.mean
        gaps.append(both.gap)
    assert gaps[0] > 1 > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.2
    assert both.data[0].shape == (12, 8)
    assert both.lower.log_px.shape == both.upper.log_px.shape == (12,)


def test_from_the_posterior_there_is_no_way_to_go():
    """The exact guide as start: every weight is p(x), both ways, whatever the temperatures."""
    oracle = LinearGaussian(2, orthogonal=True)
    model, guide = oracle.pair()
    x = oracle.sample(4)
    annealed = annealed_evidence(model, guide, x, num_temperatures=3, num_chains=4, start=guide)
    assert torch.allclose(
        annealed.log_weight, oracle.marginal.log_prob(x).expand(4, -1), rtol=0, atol=1e-9
    )
    both = bidirectional_evidence(
        model, guide, x, num_data=5, num_temperatures=3, num_chains=4, start=guide
    )
    exact = oracle.marginal.log_prob(both.data[0])
    assert torch.allclose(both.lower.log_px, exact, rtol=0, atol=1e-9)
    assert torch.allclose(both.upper.log_px, exact, rtol=0, atol=1e-9)


def test_from_a_guide_the_way_is_shorter():
    """Standard deviation of log weights at the same 40 temperatures: below a third of that from
    the prior, and log p(x) within 4 standard errors (false alarm 6e-5, were it normal)."""
    oracle = LinearGaussian(5)
    model, guide = oracle.pair(widen=1.2, shift=0.3)
    x = oracle.sample(6)
    settings = {"num_temperatures": 40, "num_chains": 32, "num_leapfrog": 5, "seed": 2}
    near = annealed_evidence(model, guide, x, start=guide, **settings)
    far = annealed_evidence(model, guide, x, **settings)
    assert near.log_weight.std(0).mean() < far.log_weight.std(0).mean() / 3
    exact = oracle.marginal.log_prob(x).mean().item()
    assert abs(near.mean - exact) < 4 * near.mean_standard_error


def test_weights_are_unbiased_however_few_the_temperatures():
    """E[w] = p(x): 20,000 chains of 4 temperatures, K = 1; z-scores below 4 (false alarm 2e-4)."""
    oracle = LinearGaussian(1, 3, 1.5)
    x = oracle.sample(3)
    annealed = annealed_evidence(
        *idle_pair(oracle), x, num_temperatures=4, num_chains=20_000, num_leapfrog=2, seed=5
    )
    ratio = (annealed.log_weight - oracle.marginal.log_prob(x)).exp()
    scores = (ratio.mean(0) - 1) / (ratio.std(0) / math.sqrt(len(ratio)))
    print(scores, ratio.std(0))
    assert (ratio.std(0) > 0.2).all()  # weights that are all the same would show nothing
    assert (scores.abs() < 4).all()


def test_weights_are_unbiased_backwards():
    """E[w] = 1 / p(x) from exact draws: 4,000 simulated data, 4 temperatures; a z-score below 4
    (false alarm 6e-5)."""
    oracle = LinearGaussian(1, 3, 1.5)
    both = bidirectional_evidence(
        *idle_pair(oracle), torch.zeros(1, 3), num_data=4000, num_temperatures=4, num_chains=4,
        num_leapfrog=2, seed=6,
    )  # fmt: skip
    exact = oracle.marginal.log_prob(both.data[0])
    for weight in (both.upper.log_weight + exact, both.lower.log_weight - exact):
        ratio = weight.exp().mean(0)
        score = (ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio)))
        print(score, ratio.std())
        assert ratio.std() > 0.1
        assert abs(score) < 4


def counts(x):
    """z ~ Gamma(3, 2), x ~ Poisson(z)."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), x.new_tensor(2.0)))
        pyro.sample("count", dist.Poisson(rate), obs=x)


def guide_of_counts(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(x.new_full((len(x),), 1.0), x.new_tensor(1.0)))


def test_counts_with_a_gamma_prior_are_negative_binomial():
    """Each datum within 4 standard errors (6e-5, were it normal) and 0.1 nats of the exact value,
    whichever the start."""
    x = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
    exact = dist.NegativeBinomial(torch.tensor(3.0).double(), probs=1 / 3).log_prob(x)
    for start in (None, guide_of_counts):
        annealed = annealed_evidence(
            counts, guide_of_counts, x, num_temperatures=60, num_chains=100, num_leapfrog=3,
            start=start,
        )  # fmt: skip
        error = annealed.log_px - exact
        assert (error.abs() < 4 * annealed.standard_error).all()
        assert (error.abs() < 0.1).all()


def test_the_seed_decides_and_leaves_the_global_state_alone():
    oracle = LinearGaussian(2)
    model, guide = oracle.pair()
    x = oracle.sample(3)
    settings = {"num_temperatures": 5, "num_chains": 3, "num_leapfrog": 2}

    def run(seed):
        return annealed_evidence(model, guide, x, seed=seed, **settings).log_weight

    before = torch.random.get_rng_state()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    both = [
        bidirectional_evidence(model, guide, x, num_data=3, seed=4, **settings) for _ in range(2)
    ]
    assert torch.equal(both[0].upper.log_weight, both[1].upper.log_weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_keep_the_order_of_the_data_and_their_contexts(monkeypatch):
    """x ~ N(z + 10 c, 1): p(x|c) is known, and 7 data in blocks of 2 have it each for itself."""

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + 10 * c, 1.0), obs=x)

    def guide(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 10 * c) / 2, math.sqrt(0.5)))

    seen = []

    def watched(model, guide, args, structure):
        seen.append(len(args[0]))
        return latent_space(model, guide, args, structure)

    monkeypatch.setattr(annealing, "CHAINS_PER_BLOCK", 100)
    monkeypatch.setattr(annealing, "latent_space", watched)
    c = torch.arange(7).double()
    x = 10 * c + torch.linspace(-3, 3, 7).double()
    settings = {"num_temperatures": 30, "num_chains": 50, "num_leapfrog": 3}
    annealed = annealed_evidence(model, guide, (x, c), **settings)
    assert seen == [2, 2, 2, 1]
    exact = dist.Normal(10 * c, math.sqrt(2)).log_prob(x)
    assert (annealed.log_px - exact).abs().max() < 0.2
    both = bidirectional_evidence(model, guide, (x, c), num_data=7, start=guide, **settings)
    assert torch.equal(both.data[1], c)
    exact = dist.Normal(10 * c, math.sqrt(2)).log_prob(both.data[0])
    assert torch.allclose(both.upper.log_px, exact, rtol=0, atol=1e-9)
    assert torch.allclose(both.lower.log_px, exact, rtol=0, atol=1e-9)


def test_a_pair_that_cannot_be_vectorized():
    """The same draws in another order: within 4 standard errors (6e-5, were it normal)."""
    oracle = LinearGaussian(2, scale=1.5)
    model, guide = oracle.pair()
    model.decoder = OneBatchDimension(model.decoder, 2)
    x = oracle.sample(4)
    annealed = annealed_evidence(model, guide, x, num_temperatures=50, num_leapfrog=3)
    exact = oracle.marginal.log_prob(x).mean().item()
    assert abs(annealed.mean - exact) < 4 * annealed.mean_standard_error


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_a_transition_leaves_the_distribution_at_its_temperature_as_it_is(beta):
    """From 4,000 exact draws of f_β, 20 moves: Kolmogorov's test of each coordinate, and of those
    along the distribution's axes, above 1e-4 (false alarm 4e-4).

    Steps are so long that a third of them are refused: a rule that takes them all would show.
    """
    oracle = LinearGaussian(2, 3, 1.0)
    model, guide = oracle.pair()
    x = oracle.sample(1)
    precision = torch.eye(2).double() + beta * oracle.weight.T @ oracle.weight
    covariance = precision.inverse()
    mean = beta * ((x - oracle.bias) @ oracle.weight @ covariance)[0]
    distribution = dist.MultivariateNormal(mean, covariance)
    torch.manual_seed(3)
    first = distribution.sample((4000, 1))
    with torch.no_grad():
        space = latent_space(model, guide, (x,), inspect_pair(model, guide, (x,)))
        settings = annealing.AnnealingSettings(2, 4000, 3, None)
        path = annealing.AnnealingPath(space, settings, lambda *_: None)
        state, accepted = path._evaluate(first), []
        size = torch.full((1,), 1.6 * covariance.diagonal().min().sqrt().item())
        for _ in range(20):
            state, moved = path._transition(state, beta, size)
            accepted.append(moved.mean())
    rate = torch.stack(accepted).mean().item()
    print(f"accepted {rate:.2f}")
    assert 0.4 < rate < 0.85
    points, scale = state.points[:, 0], distribution.scale_tril
    assert (points != first[:, 0]).any(-1).double().mean() > 0.99
    white = torch.linalg.solve_triangular(scale, (points - mean)[..., None], upper=False)[..., 0]
    marginal = (points - mean) / covariance.diagonal().sqrt()
    for values in torch.cat([white, marginal], -1).T:
        assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4


def discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(x.new_tensor(0.5)))
        pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)


def guide_of_discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(x.new_tensor(0.5)))


@pytest.mark.parametrize("estimate", [annealed_evidence, bidirectional_evidence])
def test_what_cannot_be_annealed_is_refused_in_one_line(estimate):
    x = torch.zeros(3).double()
    for name, least in (("num_temperatures", 2), ("num_chains", 2), ("num_leapfrog", 1)):
        with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {least - 1}$"):
            estimate(counts, guide_of_counts, x, **{name: least - 1})
    with pytest.raises(ValueError, match="'kind' is discrete"):
        estimate(discrete, guide_of_discrete, x)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bidirectional_evidence(counts, guide_of_counts, x, num_data=0)
