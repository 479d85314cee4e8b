"""Calibration on pairs whose posterior is exact, and on ones that are wrong in a known way."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from latente.inference.diagnostics.calibration import (
    LOG_JOINT,
    LOG_Q,
    WORDS,
    Calibration,
    Words,
    _pit,
    calibrate,
    describe_pit,
)
from latente.inference.diagnostics.ecdf_band import ecdf_band

from .oracles import LinearGaussian, OneBatchDimension, TutorialVAE

LIKE = torch.zeros(1, 8, dtype=torch.float64)
COORDINATES = {"z[0]", "z[1]"}


def oracle() -> LinearGaussian:
    """A linear model of orthogonal columns: its posterior's covariance is diagonal."""
    made = LinearGaussian(2)
    made.weight = torch.linalg.qr(made.weight)[0] * torch.tensor([1.5, 0.6], dtype=torch.float64)
    precision = torch.eye(2).double() + made.weight.T @ made.weight / made.scale**2
    made.covariance = precision.inverse()
    return made


def collapsed():
    """The same model, with a guide that is its prior."""
    vae, guide = oracle().pair()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    return vae, guide


def counts(count):
    """z ~ Gamma(3, 2), x ~ Poisson(z)."""
    with pyro.plate("data", len(count)):
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        pyro.sample("count", dist.Poisson(rate), obs=count)


def gamma_guide(count):
    with pyro.plate("data", len(count)):
        pyro.sample("rate", dist.Gamma(3.0 + count, 3.0))


def chain(x, context):
    """a ~ N(0, 1), b ~ N(a, 1), x ~ N(b + c, 1)."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b + context, 1.0), obs=x)


def chain_guide(x, context):
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Normal((x - context) * 2 / 3, math.sqrt(2 / 3)))
        pyro.sample("a", dist.Normal(b / 2, math.sqrt(0.5)))


def simple(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def simple_guide(x, *context):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


@pytest.mark.slow
def test_an_exact_posterior_raises_no_more_alarms_than_it_may():
    """200 calibrations at level 0.8, M = 200, L = 50.

    Each family of tests may name something in 20 % of them, by Bonferroni; in fact at least the
    rate of one of its tests, 5 % for the bands and 10 % for VSBC. The counts are held between the
    1e-4 quantiles of the binomials of these rates: false alarm 4e-4.
    """
    pair = oracle().pair()
    found = [
        calibrate(*pair, LIKE, num_simulations=200, num_draws=50, level=0.8, seed=seed)
        for seed in range(200)
    ]
    most = stats.binom.isf(1e-4, 200, 0.2)
    bands = sum(bool(one.miscalibrated) for one in found)
    biases = sum(bool(one.biased) for one in found)
    assert stats.binom.ppf(1e-4, 200, 0.05) <= bands <= most
    assert stats.binom.ppf(1e-4, 200, 0.1) <= biases <= most
    for one in found:  # all weights are p(x*)
        assert torch.allclose(one.weighted_pit, one.pit, rtol=0, atol=1e-9)
        assert (one.khat == -math.inf).all()


def test_exact_ranks_are_uniform_over_all_of_their_range():
    """A χ² test in 20 cells of 20,000 ranks of few draws: false alarm 1e-4 for each of 3."""
    found = calibrate(*oracle().pair(), LIKE, num_simulations=20_000, num_draws=3, seed=5)
    assert found.khat.isnan().all()
    for index in range(3):
        cells = np.histogram(found.pit[:, index].numpy(), bins=20, range=(0, 1))[0]
        assert stats.chisquare(cells).pvalue > 1e-4


def test_a_narrow_guide_is_called_narrow_and_covers_as_little_as_it_should():
    """Half the width: coverage in closed form, to 4 binomial errors and 1 / L (3e-4 for 4).

    VSBC looks at bias alone, and its p-values are above 1e-3 but for chance (2e-3).
    """
    exact = calibrate(*oracle().pair(), LIKE, num_simulations=1000, num_draws=200, seed=3)
    found = calibrate(*oracle().pair(widen=0.5), LIKE, num_simulations=1000, num_draws=200, seed=3)
    assert {found.miscalibrated[name] for name in COORDINATES} == {"too narrow"}
    assert found.miscalibrated[LOG_Q] == "overconfident"
    assert found.bias_p_value.min() > 1e-3
    coverage, right = found.coverage((0.5, 0.8)), exact.coverage((0.5, 0.8))
    assert coverage.names == ("z[0]", "z[1]", LOG_Q)
    quantile = stats.norm.isf((1 - 0.8) / 2)
    narrow = 1 - 2 * stats.norm.sf(0.5 * quantile)
    region = stats.chi2.cdf(0.25 * stats.chi2.ppf(0.8, 2), 2)
    wanted = torch.tensor([narrow, narrow, region], dtype=torch.float64)
    assert (
        (coverage.share[:, 1] - wanted).abs() < 4 * coverage.standard_error[:, 1] + 1 / 200
    ).all()
    wanted = torch.tensor([0.5, 0.8], dtype=torch.float64)
    assert ((right.share - wanted).abs() < 4 * right.standard_error).all()
    again = found.coverage((0.8,), weighted=True)
    assert ((again.share[:, 0] - 0.8).abs() < (coverage.share[:, 1] - 0.8).abs() / 2).all()


def test_weights_mend_what_is_a_little_too_narrow():
    """0.8 of the width: found, and with 1,000 weighed draws nothing is left of it (0.05)."""
    found = calibrate(*oracle().pair(widen=0.8), LIKE, num_draws=1000, seed=1)
    assert found.miscalibrated.keys() >= COORDINATES
    assert found.weighted_miscalibrated == {}
    assert (found.khat < 0.7).double().mean() > 0.9


def test_a_shifted_guide_is_called_biased():
    found = calibrate(*oracle().pair(shift=1.0), LIKE, num_simulations=500, seed=2)
    for name in COORDINATES:
        assert found.miscalibrated[name] == found.biased[name] == "biased high"
    other = calibrate(*oracle().pair(shift=-1.0), LIKE, num_simulations=500, seed=2)
    assert other.biased == dict.fromkeys(sorted(COORDINATES), "biased low")


def test_only_the_coordinate_that_is_shifted_is_named():
    """The other one raises a false alarm with probability below 0.05."""
    vae, guide = oracle().pair()
    with torch.no_grad():
        dict(guide.named_parameters())["encoder.1.bias"][0] += 0.4
    found = calibrate(vae, guide, LIKE, seed=2)
    assert found.biased.keys() == {"z[0]"}
    assert COORDINATES & found.miscalibrated.keys() == {"z[0]"}


def test_a_wide_guide_is_called_wide():
    """Twice the width; VSBC is quiet (2e-3)."""
    found = calibrate(*oracle().pair(widen=2.0), LIKE, num_simulations=500, seed=2)
    assert {found.miscalibrated[name] for name in COORDINATES} == {"too wide"}
    assert found.miscalibrated[LOG_Q] == "underconfident"
    assert found.bias_p_value.min() > 1e-3


def test_a_posterior_that_ignores_x_is_found_by_the_joint_density_alone():
    """Ranks of z and log q are uniform (0.05), and weights mend the rest (0.05)."""
    found = calibrate(*collapsed(), LIKE, num_simulations=500, num_draws=1000, seed=2)
    assert found.miscalibrated == {LOG_JOINT: "draws too unlikely"}
    assert found.biased == {}
    assert found.weighted_miscalibrated == {}


@pytest.mark.parametrize(
    ("model", "guide", "like", "names"),
    [
        (counts, gamma_guide, torch.ones(1), ("rate",)),
        (chain, chain_guide, (torch.zeros(3), torch.tensor([-5.0, 0.0, 5.0])), ("b", "a")),
    ],
    ids=["constrained", "two sites, a context"],
)
def test_other_exact_pairs_pass(model, guide, like, names):
    """False alarm at most 0.05 + 0.05 for each, and 4 binomial errors for coverage."""
    found = calibrate(model, guide, like, seed=1)
    assert found.names == (*names, LOG_Q, LOG_JOINT)
    assert found.miscalibrated == found.weighted_miscalibrated == found.biased == {}
    coverage = found.coverage()
    missed = (coverage.share - torch.tensor(coverage.levels)).abs() / coverage.standard_error
    assert missed.max() < 4


def test_a_decoder_of_one_batch_dimension_gives_the_same():
    """False alarm 0.05; and a narrow guide is found there too."""
    for widen, names in ((1.0, set()), (0.5, {*COORDINATES, LOG_Q, LOG_JOINT})):
        vae, guide = oracle().pair(widen=widen)
        vae.decoder = OneBatchDimension(vae.decoder, 2)
        found = calibrate(vae, guide, LIKE, num_simulations=300, num_draws=50, seed=1)
        assert found.miscalibrated.keys() == names


def test_a_foreign_vae_of_flattened_images():
    vae = TutorialVAE()
    found = calibrate(
        vae.model, vae.guide, torch.zeros(5, 8, 8), num_simulations=70, num_draws=30, seed=1
    )
    assert found.names == ("latent[0]", "latent[1]", LOG_Q, LOG_JOINT)
    assert found.pit.shape == found.weighted_pit.shape == (70, 4)
    assert found.khat.shape == (70,)
    assert (found.pit > 0).all()
    assert (found.pit < 1).all()
    assert found.ecdf().shape == (69, 4)
    assert "M=70, L=30" in repr(found)


def test_the_seed_decides_and_the_global_state_is_left():
    pair, before = oracle().pair(), torch.random.get_rng_state()
    first, again, other = (
        calibrate(*pair, LIKE, num_simulations=50, num_draws=20, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.pit, again.pit)
    assert not torch.equal(first.pit, other.pit)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("num", "level"), [(1, 0.9), (20, 0.95), (150, 0.8), (300, 0.99)])
def test_the_band_holds_as_often_as_it_says(num, level):
    """Its probability is exact: 20,000 ECDFs agree to 4 binomial errors (6e-5 for each)."""
    band = ecdf_band(num, level)
    sample = np.sort(np.random.default_rng(0).random((20_000, num)), axis=1)
    share = np.stack([(sample <= point).mean(1) for point in band.points.numpy()], axis=1)
    lower, upper = band.lower.numpy() - 1e-9, band.upper.numpy() + 1e-9
    inside = ((share >= lower) & (share <= upper)).all(1).mean()
    probability = band.probability
    assert level <= probability
    assert abs(inside - probability) <= 4 * math.sqrt(probability * (1 - probability) / 20_000)


def test_uniform_ranks_are_named_as_often_as_the_band_says():
    """5,000 uniform samples, ten at a time, to 4 binomial errors (6e-5)."""
    generator = torch.Generator().manual_seed(0)
    names = (*map(str, range(8)), LOG_Q, LOG_JOINT)
    named = 0
    for _ in range(500):
        pit = torch.rand(200, 10, dtype=torch.float64, generator=generator)
        found = Calibration(names, pit, pit, pit[:, 0], num_draws=50, level=0.5)
        named += len(found.miscalibrated)
    alarm = 1 - ecdf_band(200, 0.95).probability
    assert found.band().probability == 1 - alarm
    assert abs(named / 5000 - alarm) < 4 * math.sqrt(alarm * (1 - alarm) / 5000)


def test_more_quantities_make_a_wider_band():
    found = calibrate(*oracle().pair(), LIKE, num_simulations=100, num_draws=20)
    alone = ecdf_band(100, 0.95)
    assert (found.band().upper >= alone.upper).all()
    assert (found.band().upper > alone.upper).any()
    assert found.band().probability >= 1 - 0.05 / 4
    lenient = replace(found, level=0.5).band()
    assert (lenient.upper < found.band().upper).any()


UNIFORM = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000


@pytest.mark.parametrize(
    ("pit", "word"),
    [
        (UNIFORM, "unclear"),
        (UNIFORM**1.5, "biased high"),
        (UNIFORM**0.5, "biased low"),
        (torch.sin(UNIFORM * math.pi / 2) ** 2, "too narrow"),
        (0.2 + 0.6 * UNIFORM, "too wide"),
        (torch.full((1000,), 1e-3).double(), "biased high"),
    ],
)
def test_a_pit_sample_in_words(pit, word):
    assert describe_pit(pit) == word
    words = Words("low", "high", "ends", "middle")
    told = {"biased high": "low", "biased low": "high", "too narrow": "ends", "too wide": "middle"}
    assert describe_pit(pit, words) == told.get(word, "unclear")
    assert WORDS.keys() == {LOG_Q, LOG_JOINT}


def test_ties_are_broken_by_chance():
    """A quantity that takes two values only has uniform ranks (Kolmogorov–Smirnov, 1e-4)."""
    values = torch.bernoulli(torch.full((11, 5000, 1), 0.5).double())
    noise = torch.rand(5000, 1, dtype=torch.float64)
    plain = torch.ones(10, 5000, dtype=torch.float64)
    pit = _pit(values[:1], values[1:], plain, noise)
    assert stats.kstest(pit.flatten().numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_simulations": 19}, "num_simulations must be at least 20, got 19"),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        calibrate(simple, simple_guide, torch.zeros(3), **settings)


def test_levels_out_of_range():
    found = calibrate(simple, simple_guide, torch.zeros(3), num_simulations=20, num_draws=5)
    for levels in ((), (0.5, 1.0), (0.0,)):
        with pytest.raises(ValueError, match="levels lie between 0 and 1, got"):
            found.coverage(levels)
    with pytest.raises(ValueError, match="an ECDF needs at least one number, got 0"):
        ecdf_band(0, 0.9)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 0"):
        ecdf_band(10, 0)


def _point_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x))


def _guide_beyond(count):
    with pyro.plate("data", len(count)):
        pyro.sample("rate", dist.Normal(torch.full((len(count),), 3.3), 1.0))  # seldom negative


def _auxiliary_guide(x):
    with pyro.plate("data", len(x)):
        noise = pyro.sample("noise", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(noise, 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (simple, _point_guide, "the guide puts all of 'z' on one point"),
        (counts, _guide_beyond, "rate is NaN on data simulated from the model"),
        (simple, _auxiliary_guide, "the guide's 'noise' is no part of the model"),
    ],
    ids=["point", "beyond the prior", "auxiliary"],
)
def test_guides_that_cannot_be_calibrated(model, guide, message):
    with pytest.raises(ValueError, match=message):
        calibrate(model, guide, torch.ones(3), num_simulations=200, num_draws=50)
