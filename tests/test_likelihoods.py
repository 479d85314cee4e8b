"""What is particular to each likelihood: values, tails, and what is refused."""

import functools
import math

import pytest
import scipy.special
import scipy.stats
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit
from latente.models import (
    VAE,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    NegativeBinomial,
    Normal,
    Poisson,
    StandardNormal,
    StudentT,
    mlp,
)

float64 = functools.partial(torch.tensor, dtype=torch.float64)

REFUSED = {
    "grey between levels": (DiscretizedLogistic((2,)), 0.5, "such as 0.5, in row 3"),
    "grey above": (
        DiscretizedLogistic((2,)),
        1 + 1 / 255,
        "DiscretizedLogisticDistribution.* such as 1.00392",
    ),
    "grey below": (DiscretizedLogistic((2,)), -1 / 255, "such as -0.00392157"),
    "half a class": (Categorical((2,), 4), 2.5, "Categorical at site 'x', such as 2.5"),
    "one class too many": (Categorical((2,), 4), 4.0, "such as 4"),
    "above one": (ContinuousBernoulli((2,)), 1.5, "such as 1.5"),
    "half a count": (Poisson((2,)), 0.5, "Poisson at site 'x', such as 0.5"),
    "a count below none": (NegativeBinomial((2,)), -1.0, "such as -1"),
}


@pytest.mark.parametrize(("likelihood", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_data_outside_the_support_are_refused(likelihood, value, message):
    support = likelihood(torch.zeros(likelihood.num_features)).base_dist.support
    data = torch.ones(20, 2)
    assert support.check(data).all()
    data[3, 1] = value
    assert (~support.check(data)).nonzero().tolist() == [[3, 1]]
    vae = VAE(StandardNormal(1), mlp(1, out=likelihood.num_features), likelihood)
    with pytest.raises(ValueError, match=message):
        fit(vae, DiagonalNormal(mlp(2, out=2), 1), data, epochs=1, batch_size=10)


ARGUMENTS = {
    "components": (lambda: DiscretizedLogistic((2,), 0), "num_components must be at least 1, got"),
    "levels": (lambda: DiscretizedLogistic((2,), levels=1), "levels must be at least 2, got 1"),
    "classes": (lambda: Categorical((2,), 1), "num_classes must be at least 2, got 1"),
    "r": (lambda: NegativeBinomial((2,), 0.0), "total_count of a NegativeBinomial .* positive"),
    "df": (lambda: StudentT((2,), df=-1.0), "the df of a StudentT likelihood must be positive"),
    "no df": (lambda: StudentT((2,), df=None), "fixed or learned, not predicted"),
    "scale": (lambda: StudentT((2,), scale=math.nan), "the scale of a StudentT .* positive"),
    "shape": (
        lambda: NegativeBinomial((2,), nn.Parameter(torch.ones(3))),
        r"a total_count of shape \(3,\) does not fit data of shape \(2,\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_make_no_distribution_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("likelihood", "shown"),
    [
        (DiscretizedLogistic((2,), 3), "(2,), num_components=3, levels=256"),
        (Categorical((2,), 3), "(2,), num_classes=3"),
        (NegativeBinomial((2,), nn.Parameter(torch.tensor(1.0))), "(2,), total_count=learned"),
        (StudentT((2,), scale=None), "(2,), df=4.0, scale=None"),
    ],
)
def test_a_likelihood_shows_its_arguments(likelihood, shown):
    assert repr(likelihood) == f"{type(likelihood).__name__}({shown})"


# --- Grey levels.


def test_discretized_logistic_by_hand():
    likelihood = DiscretizedLogistic((), num_components=2, levels=5)
    features = float64([0.3, -0.4, 0.1, -0.2, 0.5, 0.7])
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    weight = features[:2].softmax(0)
    loc = float64([0.25 + 0.1, 0.75 - 0.2])
    scale = features[4:].exp() / 10
    edges = float64([-math.inf, 0.125, 0.375, 0.625, 0.875, math.inf])
    by_hand = ((edges[:, None] - loc) / scale).sigmoid().diff(dim=0) @ weight
    distribution = likelihood(features)
    assert torch.allclose(distribution.log_prob(x), by_hand.log(), rtol=0, atol=1e-12)
    assert distribution.mean.item() == pytest.approx((by_hand @ x).item(), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 256, 65_536])
def test_bytes_divided_by_their_maximum_are_levels(levels):
    x = torch.arange(levels).float() / (levels - 1)
    likelihood = DiscretizedLogistic((), levels=levels)
    distribution = likelihood(torch.zeros(2))
    assert distribution.support.check(x).all()
    assert distribution.log_prob(x).exp().double().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("x", [0.0, 100 / 255, 1.0])
@pytest.mark.parametrize("log_scale", [-40.0, -9.0, 0.0, 30.0])
@pytest.mark.parametrize("shift", [-40.0, -0.5, 0.0, 40.0])
def test_discretized_logistic_is_finite_in_float32(x, log_scale, shift):
    likelihood = DiscretizedLogistic((), num_components=2)
    features = torch.tensor([0.0, 0.0, shift, shift, log_scale, log_scale], requires_grad=True)
    log_prob = likelihood(features).log_prob(torch.tensor(x))
    log_prob.backward()
    assert log_prob.isfinite()
    assert log_prob <= 0
    assert features.grad.isfinite().all()


def test_the_tail_of_a_discretized_logistic():
    # 300 scales away the difference of sigmoids is 0 in float64; its log is −300 and a bit:
    # σ(u) − σ(l) → e^u (1 − e^(l−u)) for u ≪ 0.
    scale, step = 1e-3, 1 / 255
    features = torch.tensor([0.0, math.log(10 * scale)])
    x = 51 / 255
    upper = (x + step / 2 - 0.5) / scale
    by_hand = upper + math.log1p(-math.exp(-step / scale))
    assert upper < -290
    log_prob = DiscretizedLogistic(())(features).log_prob(torch.tensor(x))
    assert log_prob.item() == pytest.approx(by_hand, rel=1e-5)


def test_discretized_logistic_draws_follow_its_probabilities():
    # A χ² test at a false-alarm rate of 1e-4, and the seed is fixed.
    likelihood = DiscretizedLogistic((), num_components=3, levels=12).double()
    features = float64([0.0, 1.0, -1.0, 0.0, 0.1, 0.2, -1.0, 0.0, 0.5])
    distribution = likelihood(features)
    draws = distribution.expand((2,)).sample(torch.Size([10_000]))
    assert draws.shape == (10_000, 2)
    assert distribution.support.check(draws).all()
    x = torch.arange(12).double() / 11
    counts = (draws.flatten() * 11).round().long().bincount(minlength=12)
    expected = 20_000 * distribution.log_prob(x).exp()
    assert scipy.stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-4


def test_the_components_start_apart():
    distribution = DiscretizedLogistic((1,), num_components=4)(torch.zeros(12)).base_dist
    assert distribution.loc.flatten().tolist() == [0.125, 0.375, 0.625, 0.875]


# --- Classes and intensities.


def test_categorical_reads_one_block_for_each_class():
    features = float64([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]])  # class × element
    x = float64([2.0, 1.0])
    by_hand = features[2, 0] - features[:, 0].logsumexp(0) - 1 - features[:, 1].logsumexp(0)
    distribution = Categorical((2,), 3)(features.flatten())
    assert distribution.log_prob(x).item() == pytest.approx(by_hand.item(), abs=1e-12)


LOGITS = [-100.0, -17.0, -3.0, -0.2501, -0.2499, -1e-3, 0.0, 1e-6, 0.1, 2.0, 20.0, 300.0]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_by_quadrature(logit):
    # p(x) ∝ e^(fx) on 200 short intervals of Gauss–Legendre: the constant and the mean.
    nodes, weights = _gauss_legendre(200)
    f = float64([logit])
    mass = weights * (f * nodes - f.clamp(min=0)).exp()  # without overflow
    log_constant = mass.sum().log() + f.clamp(min=0)
    distribution = ContinuousBernoulli(())(f)
    log_prob = distribution.log_prob(nodes)
    assert torch.allclose(log_prob, f * nodes - log_constant, rtol=0, atol=1e-10)
    mean = (mass @ nodes / mass.sum()).item()
    assert distribution.mean.item() == pytest.approx(mean, abs=1e-10)
    # float32 keeps its digits: relative to f, whose own rounding moves f x by as much.
    single = f.float().requires_grad_()
    distribution = ContinuousBernoulli(())(single)
    value = distribution.log_prob(torch.tensor(0.3))
    value.backward()
    expected = (0.3 * f - log_constant).item()
    assert value.item() == pytest.approx(expected, abs=1e-6 * max(1, abs(logit)))
    assert single.grad.item() == pytest.approx(0.3 - mean, abs=1e-5)
    assert distribution.mean.item() == pytest.approx(mean, abs=1e-5)


def _gauss_legendre(intervals):
    nodes, weights = map(torch.from_numpy, scipy.special.roots_legendre(10))
    starts = torch.arange(intervals).double()[:, None]
    nodes = (starts + (1 + nodes) / 2) / intervals
    return nodes.flatten(), weights.repeat(intervals) / (2 * intervals)


@pytest.mark.parametrize("logit", [-100.0, -1.0, 0.0, 3.0, 40.0])
def test_continuous_bernoulli_draws_follow_its_density(logit):
    # A Kolmogorov–Smirnov test at a false-alarm rate of 1e-4, and the seed is fixed.
    draws = ContinuousBernoulli(())(float64([logit])).sample(torch.Size([20_000]))
    mass = draws * logit
    mass = mass.expm1() / math.expm1(logit) if logit else draws
    assert scipy.stats.kstest(mass.numpy(), "uniform").pvalue > 1e-4


# --- Counts and outliers.


def test_poisson_against_scipy():
    x = torch.arange(30).double()
    distribution = Poisson(())(float64([1.3]))
    expected = torch.from_numpy(scipy.stats.poisson(math.exp(1.3)).logpmf(x.numpy()))
    assert torch.allclose(distribution.log_prob(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("r", [0.01, 0.7, 9.99, 10.01, 300.0])
def test_negative_binomial_against_scipy(r):
    x, mean = torch.arange(200).double(), math.exp(2.1)
    distribution = NegativeBinomial((), total_count=r)(float64([2.1]))
    expected = torch.from_numpy(scipy.stats.nbinom(r, r / (r + mean)).logpmf(x.numpy()))
    assert torch.allclose(distribution.log_prob(x), expected, rtol=0, atol=1e-9)
    assert distribution.mean.item() == pytest.approx(mean, rel=1e-12)
    assert distribution.variance.item() == pytest.approx(mean + mean**2 / r, rel=1e-12)


@pytest.mark.parametrize("df", [0.5, 4.0, 19.99, 20.01, 1000.0])
def test_student_against_scipy(df):
    x = float64([-1e6, -30.0, -1.0, 0.0, 0.4, 7.0, 1e3])
    distribution = StudentT((), df=df, scale=0.6)(float64([0.4]))
    expected = torch.from_numpy(scipy.stats.t(df, 0.4, 0.6).logpdf(x.numpy()))
    assert torch.allclose(distribution.log_prob(x), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("log_size", [9.0, 14.0, 25.0, 60.0])
def test_limits_are_reached_without_losing_digits(log_size):
    # As r and ν grow: a Poisson distribution, and a normal one. In float32, values and gradients.
    x = torch.arange(40).float()
    features = torch.tensor([[3.0, log_size]]).expand(40, 2).clone().requires_grad_()
    log_prob = NegativeBinomial((), total_count=None)(features).log_prob(x)
    poisson = Poisson(())(torch.tensor([3.0])).log_prob(x)
    log_prob.sum().backward()
    near = 400 * math.exp(-log_size)  # (x − μ)²/2r and the like
    assert torch.allclose(log_prob, poisson, rtol=1e-5, atol=near + 1e-4)
    assert torch.allclose(features.grad[:, 0], x - math.exp(3.0), atol=near + 1e-3)
    assert features.grad[:, 1].abs().max() < near + 1e-4

    student = StudentT((), df=nn.Parameter(torch.tensor(math.exp(log_size))))
    y = torch.linspace(-3, 3, 61)
    log_prob = student(torch.zeros(1)).log_prob(y)
    log_prob.sum().backward()
    near = 30 * math.exp(-log_size)
    assert torch.allclose(log_prob, Normal(())(torch.zeros(1)).log_prob(y), atol=near + 1e-5)
    assert student.log_df.grad.abs() < 61 * near + 1e-4


@pytest.mark.parametrize(
    "likelihood",
    [NegativeBinomial((), nn.Parameter(torch.tensor(2.5))), NegativeBinomial((), 2.5)],
)
def test_a_learned_quantity_starts_from_its_value(likelihood):
    assert likelihood(torch.zeros(1)).total_count.item() == pytest.approx(2.5)
    assert len(list(likelihood.parameters())) == (likelihood.total_count is None)


def test_an_outlier_pulls_less_on_student_than_on_a_normal():
    for x, most in [(1e3, 0.01), (1e6, 1e-5)]:
        loc = torch.zeros(1, requires_grad=True)
        StudentT((), df=4.0)(loc).log_prob(torch.tensor(x)).backward()
        assert 0 < loc.grad.item() < most  # (ν + 1)/x, where a normal's is x
