"""Predictive checks: quiet on a model's own data, and firing on what it cannot make."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from latente.guides import DiagonalNormal
from latente.inference.diagnostics import predictive_checks
from latente.inference.diagnostics.finding import Level
from latente.inference.diagnostics.predictive_checks import (
    DEFAULT_QUANTITIES,
    PredictiveCheck,
    PredictiveChecks,
    judge_checks,
    predictive_check,
)
from latente.models import VAE, StandardNormal, mlp

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension, TutorialVAE


@pytest.mark.slow
def test_prior_predictive_p_values_are_uniform_under_the_model_and_posterior_ones_are_not():
    """160 data sets of 10 from the model, with 19 replications each: 20 possible p, in 10 bins.

    χ²(9) is below its 1e-4 quantile for each of two quantities (false alarm 2e-4). The posterior
    p-values of the mean, which use the data twice, vary less than uniform ones: their mean square
    about ½ would be 1/12 ± 0.006 if they were uniform; it is below by six of these.
    """
    oracle = LinearGaussian(1, num_observed=1)
    pair = oracle.pair()
    quantities = {name: DEFAULT_QUANTITIES[name] for name in ("mean", "standard deviation")}
    prior = {name: [] for name in quantities}
    posterior = []
    for seed in range(160):
        x = oracle.sample(10, seed=1000 + seed)
        options = {"num_samples": 19, "seed": seed}
        for name, check in predictive_check(
            *pair, x, quantities, from_prior=True, **options
        ).items():
            prior[name].append(check.p_value)
        posterior.append(predictive_check(*pair, x, quantities, **options)["mean"].p_value)
    for values in prior.values():
        ranks = (torch.tensor(values) * 19).round().long()
        bins = torch.bincount(ranks // 2, minlength=10)
        assert stats.chisquare(bins.numpy()).statistic < stats.chi2.ppf(1 - 1e-4, 9)
    assert (torch.tensor(posterior) - 0.5).square().mean() < 1 / 12 - 6 * 0.006


def test_checks_fire_on_data_that_the_model_cannot_make():
    """Noise three times as large as the model's: no replicated data set spreads so far."""
    oracle = LinearGaussian(2)
    x = oracle.sample(100)
    checks = predictive_check(*oracle.pair(), x, num_samples=50)
    assert set(checks) == set(DEFAULT_QUANTITIES)
    assert 0.01 < checks["standard deviation"].p_value < 0.99
    noisy = x + 2.0 * torch.randn(100, 8).double()
    for from_prior in (True, False):
        checks = predictive_check(*oracle.pair(), noisy, num_samples=50, from_prior=from_prior)
        assert checks["standard deviation"].p_value == 0
        assert checks["standard deviation"].two_sided == 0


def test_replicated_moments_are_those_of_the_predictive_distribution():
    """400 replications of 60 data: within 4.5 standard errors (false alarm 7e-6 each)."""
    oracle = LinearGaussian(1)
    x = oracle.sample(60)
    first = {"first": lambda x: x[:, 0].mean()}
    prior = predictive_check(*oracle.pair(), x, first, num_samples=400, from_prior=True)["first"]
    sd = oracle.marginal.variance[0].sqrt().item() / math.sqrt(60)
    z = (prior.replicated.mean().item() - oracle.bias[0].item()) / (sd / math.sqrt(400))
    assert abs(z) < 4.5
    assert abs(prior.replicated.std().item() / sd - 1) < 4.5 / math.sqrt(2 * 400)
    posterior = predictive_check(*oracle.pair(), x, first, num_samples=400)["first"]
    mean = (oracle.posterior_mean(x) @ oracle.weight.T + oracle.bias)[:, 0].mean()
    variance = (oracle.weight[0] ** 2 * oracle.covariance[0, 0]).item() + oracle.scale**2
    sd = math.sqrt(variance / 60)
    assert abs(posterior.replicated.mean().item() - mean.item()) < 4.5 * sd / math.sqrt(400)
    assert posterior.observed == x[:, 0].mean().item()


def test_p_values_by_hand():
    check = PredictiveCheck(1.0, torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0]).double())
    assert check.p_value == pytest.approx((2 + 2 / 2) / 5)
    assert check.two_sided == pytest.approx(0.8)
    assert repr(check) == "PredictiveCheck(observed=1, replicated=1.4 ± 1, p=0.600, S=5)"


def test_too_few_replications_are_told_with_the_number_and_its_argument():
    checks = {"mean": PredictiveCheck(1.0, torch.arange(20.0).double())}
    (finding,) = judge_checks(PredictiveChecks(checks, None))
    assert finding.level is Level.NOTE
    assert finding.sentence.endswith("Take 41, by Budget(replications=41) or num_samples=41.")


def test_what_all_data_share_is_drawn_once_for_each_replication(monkeypatch):
    """Blocks of four of eleven data: w moves them all together, and w's own spread shows."""
    pair, x = GlobalMean(), torch.linspace(-1, 1, 11).double()
    monkeypatch.setattr(predictive_checks, "BLOCK_ROWS", 4)
    apart = {"apart": lambda x: x[:4].mean() - x[-4:].mean(), "mean": lambda x: x.mean()}
    for from_prior, sd in ((True, 1.0), (False, 0.5)):
        checks = predictive_check(
            pair.model, pair.guide, x, apart, num_samples=400, from_prior=from_prior
        )
        local = 2.0 if from_prior else 1 + 0.8**2
        # A sample variance of 400 draws has a relative error of 0.071: 4.5 of them (7e-6 each).
        variance = checks["mean"].replicated.var().item()
        assert variance == pytest.approx(sd**2 + local / 11, rel=4.5 * 0.071)
        assert checks["apart"].replicated.var().item() == pytest.approx(local / 2, rel=4.5 * 0.071)


def test_the_blocks_do_not_change_what_is_observed(monkeypatch):
    oracle = LinearGaussian(2)
    x = oracle.sample(25)
    whole = predictive_check(*oracle.pair(), x, num_samples=3)
    monkeypatch.setattr(predictive_checks, "BLOCK_ROWS", 7)
    blocks = predictive_check(*oracle.pair(), x, num_samples=3)
    for name, check in whole.items():
        assert blocks[name].observed == check.observed
        assert len(blocks[name].replicated) == 3


def test_views_in_an_inner_plate_keep_their_places():
    """Each datum's three views differ in level by construction: replicated ones do likewise."""
    level = torch.tensor([0.0, 10.0, 20.0])

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("views", 3, dim=-2):
                pyro.sample("x", dist.Normal(z + level[:, None], 0.1), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal((x - level).mean(1), 0.1))

    x = torch.randn(5, 1) + level
    steps = {"step": lambda x: (x[:, 1:] - x[:, :-1]).min()}
    for from_prior in (True, False):
        check = predictive_check(model, guide, x, steps, num_samples=20, from_prior=from_prior)
        assert (check["step"].replicated - 10).abs().max() < 1


def test_any_pair_can_be_checked():
    """Flattened grey images, a network of one batch dimension, and labels beside x."""
    vae = TutorialVAE()
    images = torch.rand(12, 8, 8).round()
    checks = predictive_check(vae.model, vae.guide, images, num_samples=4)
    assert set(checks["smallest"].replicated.tolist()) == {0.0}
    assert checks["smallest"].p_value == 0.5
    oracle = LinearGaussian(2)
    wide, guide = oracle.pair()
    narrow = VAE(StandardNormal(2), OneBatchDimension(wide.decoder, 2), wide.likelihood).double()
    x = oracle.sample(6)
    first, second = (predictive_check(part, guide, x, num_samples=5) for part in (wide, narrow))
    assert torch.equal(first["mean"].replicated, second["mean"].replicated)

    def model(x, label):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            pyro.sample("x", dist.Normal(z + 5.0 * label, 0.1), obs=x)

    def guide_of(x, label):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 0.1))

    label = torch.arange(2).repeat(10)
    halves = {"step": lambda x: x[1::2].mean() - x[::2].mean()}
    check = predictive_check(model, guide_of, (5.0 * label, label), halves, from_prior=True)
    assert (check["step"].replicated - 5).abs().max() < 1


def test_the_seed_decides_and_global_state_stays():
    oracle = LinearGaussian(1)
    pair, x = oracle.pair(), oracle.sample(9)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (
        predictive_check(*pair, x, num_samples=3, seed=seed)["mean"].replicated
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not pyro.get_param_store()


def _model_of(transform):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            transform(x, z)

    return model


def _guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


BAD_QUANTITIES = {
    "none": (lambda x: None, "'none' gives a NoneType: it must"),
    "many": (lambda x: x, r"'many' gives a Tensor of shape \(5,\)"),
    "nan": (lambda x: x.mean() * math.nan, "'nan' gives nan"),
    "infinite": (lambda x: -math.inf, "'infinite' gives -inf"),
}


@pytest.mark.parametrize("name", BAD_QUANTITIES)
def test_quantities_that_are_no_number_are_refused(name):
    quantity, message = BAD_QUANTITIES[name]
    oracle = LinearGaussian(1)
    with pytest.raises(ValueError, match=message):
        predictive_check(*oracle.pair(), oracle.sample(5), {name: lambda x: quantity(x[:, 0])})


def test_models_that_do_not_say_x_are_refused():
    x = torch.rand(5) + 1
    model = _model_of(lambda x, z: pyro.sample("y", dist.Normal(z, 1.0), obs=x.log()))
    with pytest.raises(ValueError, match="'y' observes a transform of x: transf"):
        predictive_check(model, _guide, x)
    model = _model_of(lambda x, z: pyro.sample("x", dist.Normal(z + x.roll(1), 1.0), obs=x))
    with pytest.raises(
        ValueError, match="the distribution at 'x' depends on the x that the model is giv"
    ):
        predictive_check(model, _guide, x)
    model = _model_of(lambda x, z: pyro.sample("x", dist.Normal(z, 1.0), obs=x))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        predictive_check(model, _guide, x, num_samples=0)
    with pytest.raises(ValueError, match="there is no quantity to check"):
        predictive_check(model, _guide, x, {})


def test_networks_run_in_evaluation_mode():
    """Dropout is off, and switched on again: replications are those of the network without it."""
    network = mlp(2, out=16)
    decoder = torch.nn.Sequential(torch.nn.Dropout(0.5), network)
    likelihood = LinearGaussian(2, num_observed=16).pair()[0].likelihood.float()
    guide, x = DiagonalNormal(mlp(16, out=4), 2), torch.randn(4, 16)
    first, second = (
        predictive_check(VAE(StandardNormal(2), part, likelihood), guide, x, num_samples=5)["mean"]
        for part in (decoder, network)
    )
    assert torch.equal(first.replicated, second.replicated)
    assert decoder.training
