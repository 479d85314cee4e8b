"""Held-out density and leave-one-out of pairs with shared variables, against exact answers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal

from latente.inference import load_data, log_evidence
from latente.inference.evaluation.leave_one_out import psis_loo
from latente.inference.evaluation.predictive_density import log_predictive_density

from .oracles import GlobalMean, LinearGaussian

X = torch.linspace(-2, 3, 30).double()


class ExactMean(GlobalMean):
    """The oracle's posterior, given ``data``: w, and z given w; or one that is not.

    With z summed out xₙ ~ N(w, 2), so w given N data has precision 1 + N / 2.
    """

    def __init__(self, data, widen=1.0, local_widen=1.0):
        self.precision = 1 + len(data) / 2
        self.loc = data.sum() / 2 / self.precision
        self.widen, self.local_widen = widen, local_widen

    @property
    def scale(self):
        return self.widen / math.sqrt(self.precision)

    def guide(self, x):
        w = pyro.sample("w", dist.Normal(self.loc, self.scale))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - w) / 2, self.local_widen * math.sqrt(0.5)))


def exact_loo(x):
    """log p(xₙ|x₋ₙ) of the oracle's model: each datum under the posterior of the others."""
    precision = 1 + (len(x) - 1) / 2
    loc = (x.sum() - x) / 2 / precision
    return dist.Normal(loc, math.sqrt(2 + 1 / precision)).log_prob(x)


def loo_error(x, num_samples):
    """The estimator's Monte Carlo error at the exact posterior: 1 / p(xₙ|w) is averaged."""
    pair = ExactMean(x)
    w = pair.loc + pair.scale * torch.randn(100_000, 1).double()
    inverse = (-dist.Normal(w, math.sqrt(2)).log_prob(x)).exp()
    return inverse.std(0) / inverse.mean(0) / math.sqrt(num_samples)


def elpds(loo):
    return torch.as_tensor(loo.elpd_i.values)


def test_leave_one_out_of_the_exact_posterior():
    """|z| < 5 at each of 30 data, whose errors go together (false alarm below 2e-5)."""
    pair = ExactMean(X)
    loo = psis_loo(pair.model, pair.guide, X, num_samples=400, inner_samples=1)
    scores = (elpds(loo) - exact_loo(X)) / loo_error(X, 400)
    assert scores.abs().max() < 5
    assert float(loo.elpd) == pytest.approx(float(elpds(loo).sum()))
    assert loo.n_data_points == 30
    assert loo.elpd_i.dims == ("datum",)
    assert not loo.warning
    assert loo.pareto_k.max() < 0.5


def test_leave_one_out_mends_an_approximate_posterior_and_noisy_densities():
    """A wide q(w), and z drawn from a guide that is wide too, so that p̂(x|w) is noise about p(x|w).

    The standard error of Σ elpd is taken from six seeds; their mean lies within 5.9 of its own
    (Student's t of 5 degrees: false alarm 2e-3). Without the correction for q(w), whose spread is
    twice too large, the same draws miss by far.
    """
    x = X[::3]
    pair = ExactMean(x, widen=2.0, local_widen=1.4)
    found = torch.stack(
        [
            elpds(psis_loo(pair.model, pair.guide, x, num_samples=200, inner_samples=40, seed=seed))
            for seed in range(6)
        ]
    ).sum(1)
    error = found.std() / math.sqrt(6)
    exact = exact_loo(x).sum()
    assert error < 0.1
    assert abs(found.mean() - exact) < 5.9 * error
    w = pair.loc + pair.scale * torch.randn(20_000, 1).double()
    log_px = dist.Normal(w, math.sqrt(2)).log_prob(x)
    uncorrected = -((-log_px).logsumexp(0) - math.log(20_000)).sum()
    assert abs(uncorrected - exact) > 10 * error


def test_khat_finds_an_outlier_and_a_narrow_posterior():
    outlying = X.clone()
    outlying[0] = 25.0
    pair = ExactMean(outlying)
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        loo = psis_loo(pair.model, pair.guide, outlying, num_samples=400, inner_samples=1)
    assert loo.warning
    assert loo.pareto_k[0] > 0.7
    assert loo.pareto_k[1:].max() < 0.7
    narrow = ExactMean(X, widen=0.2)
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        loo = psis_loo(narrow.model, narrow.guide, X, num_samples=1000, inner_samples=1)
    assert (loo.pareto_k > loo.good_k).mean() > 0.9


def test_held_out_density_against_its_closed_form():
    """|z| < 4.5 at each of 12 data, whose errors go together (false alarm below 9e-5), and of the
    mean; the local guide is wide, so that its draws have to be averaged."""
    pair = ExactMean(X, local_widen=1.3)
    held_out = torch.linspace(-4, 5, 12).double()
    found = log_predictive_density(
        pair.model, pair.guide, held_out, num_samples=300, inner_samples=10
    )
    exact = dist.Normal(pair.loc, math.sqrt(2 + pair.scale**2)).log_prob(held_out)
    assert ((found.log_density - exact) / found.standard_error).abs().max() < 4.5
    assert abs(found.mean - exact.mean().item()) < 4.5 * found.mean_standard_error
    assert found.standard_error.max() < 0.2
    assert found.khat.max() < 0.7
    assert found.log_density.dtype == torch.float64
    assert repr(found).startswith("PredictiveDensity(mean=-")


def test_the_error_of_the_mean_counts_that_all_data_share_their_draws():
    """Data alike: their mean has each one's error, not that of as many independent ones."""
    pair = ExactMean(X[:1])
    held_out = torch.full((50,), 3.0).double()
    found = log_predictive_density(
        pair.model, pair.guide, held_out, num_samples=200, inner_samples=1
    )
    assert found.mean_standard_error == pytest.approx(found.standard_error[0].item(), rel=1e-6)


def test_khat_of_held_out_density_finds_a_datum_that_few_draws_explain():
    pair = ExactMean(X[:1])
    found = log_predictive_density(
        pair.model, pair.guide, torch.tensor([0.0, 60.0]).double(), inner_samples=1
    )
    assert found.khat[0] < 0.7 < found.khat[1]
    assert found.ess[1] < found.ess[0] / 5


def test_without_shared_variables_the_density_is_the_evidence():
    oracle = LinearGaussian(2)
    pair, x = oracle.pair(widen=1.2), oracle.sample(8)
    found = log_predictive_density(*pair, x, num_samples=20, inner_samples=5, seed=3)
    evidence = log_evidence(*pair, x, num_samples=100, seed=3)
    assert torch.equal(found.log_density, evidence.log_px)
    assert found.mean_standard_error == evidence.mean_standard_error
    with pytest.raises(ValueError, match=r"nothing is latent outside the plate 'data'.*log_evid"):
        psis_loo(*pair, x)


def regression(x, t):
    """x = slope · t + noise, with slope ~ N(0, 1), all latent variables shared."""
    slope = pyro.sample("slope", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(slope * t, 1.0), obs=x)


def test_a_regression_with_a_context_and_an_autoguide():
    """Nothing local, so nothing to average inside: exact but for the draws of the slope."""
    t = torch.linspace(-1, 2, 20)
    x = 0.7 * t + (5 * t).sin()
    guide = AutoDiagonalNormal(regression)
    guide(x, t)
    precision = 1 + t.square().sum()
    with torch.no_grad():
        guide.loc.copy_((x * t).sum() / precision)
        guide.scale = precision.rsqrt().reshape(1)
    rest = precision - t.square()
    loc = ((x * t).sum() - x * t) / rest
    exact = dist.Normal(loc * t, (1 + t.square() / rest).sqrt()).log_prob(x)
    loo = psis_loo(regression, guide, (x, t), num_samples=500)
    # 0.05 is ten standard errors or more at these data.
    assert torch.allclose(elpds(loo), exact.double(), atol=0.05)
    again = psis_loo(regression, guide, (x, t), num_samples=500)
    assert torch.equal(elpds(loo), elpds(again))
    point = AutoDelta(regression)
    with pytest.raises(ValueError, match="puts all of 'slope' on one point"):
        psis_loo(regression, point, (x, t))
    plugged = log_predictive_density(regression, point, (x, t), num_samples=2)
    assert plugged.standard_error.max() == 0


def test_a_posterior_found_from_all_data_is_drawn_from_all_data():
    """The guide sums over the data it is given: repeated or cut ones would mislead it."""

    class FromData(ExactMean):
        def guide(self, x):
            precision = 1 + len(x) / 2
            w = pyro.sample("w", dist.Normal(x.sum() / 2 / precision, precision**-0.5))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((x - w) / 2, math.sqrt(0.5)))

    told, fixed = FromData(X), ExactMean(X)
    found = psis_loo(told.model, told.guide, X, num_samples=200, inner_samples=3)
    expected = psis_loo(fixed.model, fixed.guide, X, num_samples=200, inner_samples=3)
    assert torch.allclose(elpds(found), elpds(expected))
    with pytest.raises(ValueError, match="infers its posterior of 'w' from the data it is given"):
        log_predictive_density(told.model, told.guide, X)


def test_which_part_of_a_data_set_is_meant():
    """Leave-one-out takes the data that the posterior was found from, held-out density the test."""

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).expand([2]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 0.1))

    data = load_data(torch.randn(60, 2).numpy())
    loo = psis_loo(model, guide, data, num_samples=300)
    assert loo.n_data_points == len(data.train)
    found = log_predictive_density(model, guide, data, num_samples=5)
    assert torch.equal(
        found.log_density,
        log_predictive_density(model, guide, data.test, num_samples=5).log_density,
    )


def test_what_cannot_be_left_out_is_refused():
    pair = ExactMean(X)
    for options, message in (
        ({"num_samples": 24}, "num_samples must be at least 25, got 24"),
        ({"inner_samples": 0}, "inner_samples must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            psis_loo(pair.model, pair.guide, X, **options)
    with pytest.raises(ValueError, match="one datum only"):
        psis_loo(pair.model, pair.guide, X[:1])

    def total(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)
        pyro.sample("total", dist.Normal(z.sum(), 1.0), obs=x.sum())

    with pytest.raises(ValueError, match=r"the site 'total' outside .* data are not independent"):
        psis_loo(total, pair.guide, X)

    def point(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x / 2))

    def summed(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w + k, 1.0), obs=x)

    def of_w(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    for function in (psis_loo, log_predictive_density):
        with pytest.raises(ValueError, match="puts all of 'z' on one point"):
            function(pair.model, point, X)
        with pytest.raises(ValueError, match="'k' outside the plate 'data' is summed") as caught:
            function(summed, of_w, X)
        assert "\n" not in str(caught.value)

    def bounded(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            distribution = dist.Uniform(w - 2.5, w + 2.5, validate_args=False)
            pyro.sample("x", distribution, obs=x)

    with pytest.raises(ValueError, match="draws give no finite density to the data in row"):
        psis_loo(bounded, of_w, X)

    def at_twenty(x):
        pyro.sample("w", dist.Normal(20.0, 1.0))

    with pytest.raises(ValueError, match=r"draws give no finite density to the data in rows 0, 1"):
        log_predictive_density(bounded, at_twenty, X, num_samples=5)

    def low(x):
        w = pyro.sample("w", dist.Normal(-20.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def positive(x):
        pyro.sample("w", dist.HalfNormal(1.0))

    with pytest.raises(
        ValueError, match=r"the guide's distribution of 'w', .* has no mass where the prior"
    ):
        psis_loo(low, positive, X)
