"""Angles, simplexes, edges, masks, flat priors and several modes: exact guides pass, others do not.

Each model has its posterior in closed form. Seeds are fixed; the false-alarm rate of calibration
and of NUTS is 5 % for each exact guide, by their own statement.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from latente.inference import annealed_evidence, log_evidence, simulate
from latente.inference.diagnostics.calibration import calibrate
from latente.inference.diagnostics.finding import Level
from latente.inference.diagnostics.inference_gap import inference_gap, judge_gap
from latente.inference.diagnostics.latent_information import latent_information
from latente.inference.diagnostics.nuts import judge_nuts, nuts_posterior
from latente.inference.diagnostics.predictive_checks import predictive_check
from latente.inference.pairs.coordinates import LogRatios, OpenCircle, Wrap
from latente.inference.simulation.predictive import posterior_means

SHORT = {"num_samples": 100, "warmup_steps": 50, "num_temperatures": 10}
MODES = {"num_samples": 40, "warmup_steps": 30, "num_temperatures": 60}


def data(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


class Angle:
    """z ~ von Mises(0, ½), x ~ von Mises(z, 4): z|x is von Mises."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_tensor(0.0), 0.5))
            pyro.sample("x", dist.VonMises(z, 4.0), obs=x)

    def guide(self, sharpen=1.0, turn=0.0):
        def guide(x):
            along, across = 0.5 + 4 * x.cos(), 4 * x.sin()
            size = sharpen * (along**2 + across**2).sqrt()
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.VonMises(torch.atan2(across, along) + turn, size))

        return guide


class Parts:
    """z ~ Dirichlet(0.1, 0.1, 0.1), x counts 3 draws of z: z|x ~ Dirichlet(x + 0.1)."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(x.new_full((3,), 0.1)))
            pyro.sample("x", dist.Multinomial(3, z, validate_args=False), obs=x)

    def guide(self, factor=1.0):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Dirichlet(factor * (x + 0.1)))

        return guide


class Share:
    """z ~ Beta(0.1, 0.1), x ~ Binomial(3, z): z|x ~ Beta(x + 0.1, 3.1 − x)."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(x.new_tensor(0.1), x.new_tensor(0.1)))
            pyro.sample("x", dist.Binomial(3, z, validate_args=False), obs=x)

    def guide(self, factor=1.0):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Beta(factor * (x + 0.1), factor * (3.1 - x)))

        return guide


class Rate:
    """z ~ Gamma(a, 1), x ~ Poisson(z): z|x ~ Gamma(x + a, 2); at 0.01, 4 of 10 draws underflow."""

    def __init__(self, shape=0.01):
        self.shape = shape

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(self.shape), x.new_tensor(1.0)))
            pyro.sample("x", dist.Poisson(z, validate_args=False), obs=x)

    def guide(self, factor=1.0):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Gamma(factor * (x + self.shape), x.new_tensor(2.0)))

        return guide


COUNTS = data([1.0, 2.0, 0.0], [0.0, 0.0, 3.0], dtype=torch.float32)


CASES = {
    "circle": (Angle(), data(3.1, -3.0), {"sharpen": 3.0}),
    "simplex": (Parts(), COUNTS, {"factor": 2.0}),
    "edges": (Share(), data(0.0, 2.0, dtype=torch.float32), {"factor": 2.0}),
    "underflow": (Rate(), data(0.0, 2.0, dtype=torch.float32), {"factor": 3.0}),
}  # fmt: skip


NUTS_CASES = ["circle", *(pytest.param(name, marks=pytest.mark.slow) for name in list(CASES)[1:])]


@pytest.mark.parametrize("name", CASES)
def test_ranks_of_an_exact_guide_are_uniform_and_of_a_wrong_one_are_not(name):
    pair, x, wrong = CASES[name]
    settings = {"num_simulations": 300, "num_draws": 60, "seed": 1}
    assert calibrate(pair.model, pair.guide(), x, **settings).miscalibrated == {}
    found = calibrate(pair.model, pair.guide(**wrong), x, **settings)
    assert found.miscalibrated["log q(z|x)"] == "overconfident"


@pytest.mark.parametrize("name", NUTS_CASES)
def test_nuts_passes_an_exact_guide(name):
    pair, x, _ = CASES[name]
    nuts = nuts_posterior(pair.model, pair.guide(), x, **SHORT)
    assert nuts.converged.any()
    assert not nuts.misses().any()
    settled = nuts.converged
    assert (nuts.ratio[settled].log().abs() < 0.35).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nuts_does_not_pass_a_wrong_guide(name):
    pair, x, wrong = CASES[name]
    nuts = nuts_posterior(pair.model, pair.guide(**wrong), x, **SHORT)
    assert nuts.misses().any()


def test_coordinates_are_bijections_with_their_jacobians():
    """Against automatic differentiation, in float64; a part of a simplex keeps its digits."""
    u = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    z = LogRatios()(u)
    assert torch.allclose(z.sum(-1), torch.ones(5).double())
    assert torch.allclose(LogRatios().inv(z), u)
    jacobian = torch.autograd.functional.jacobian(lambda u: LogRatios()(u)[..., :-1], u[0])
    expected = torch.linalg.slogdet(jacobian)[1]
    assert torch.allclose(LogRatios().log_abs_det_jacobian(u, z)[0], expected)
    corner = torch.tensor([[1e-30, 1e-20, 1.0]])
    assert torch.allclose(LogRatios()(LogRatios().inv(corner)), corner, rtol=1e-4, atol=0)
    opened = OpenCircle(torch.tensor(3.0).double())
    v = torch.linspace(-4, 4, 9).double()
    assert (opened(v).abs() <= math.pi).all()
    assert torch.allclose(opened.inv(opened(v)), v)
    step = 1e-6
    slope = Wrap()(opened(v + step) - opened(v - step)) / (2 * step)
    assert torch.allclose(opened.log_abs_det_jacobian(v, v), slope.log(), atol=1e-6)


def test_the_mean_of_an_angle_is_a_direction():
    """Of an exact guide, and of one whose draws are averaged, astride ±π."""
    pair, x = Angle(), data(3.1, -3.1, 3.0, -3.0)
    exact = torch.atan2(4 * x.sin(), 0.5 + 4 * x.cos())
    assert torch.allclose(posterior_means(pair.model, pair.guide(), x)["z"], exact)

    def two_sites(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(exact, 4.0))
            pyro.sample("other", dist.Gamma(x.new_tensor(3.0), 1.0))

    found = posterior_means(two_sites, two_sites, x)["z"]
    assert ((found - exact).cos() > 0.99).all()
    information = latent_information(pair.model, pair.guide(), x)
    assert information.mean_variance["z"] == pytest.approx(
        (exact % (2 * math.pi)).var().item(), abs=1e-6
    )


def test_evidence_of_an_angle_is_that_of_quadrature():
    """The ELBO of normals on the opened circle is just below it; annealing is near it."""
    pair, x = Angle(), data(3.1, 1.0)
    exact = log_evidence(pair.model, pair.guide(), x, num_samples=10).log_px
    z = torch.linspace(-math.pi, math.pi, 2001).double()[:-1, None]
    joint = dist.VonMises(0.0, 0.5).log_prob(z) + dist.VonMises(z, 4.0).log_prob(x)
    assert torch.allclose(exact, joint.logsumexp(0) + math.log(2 * math.pi / 2000), atol=1e-6)
    annealed = annealed_evidence(pair.model, pair.guide(), x, num_temperatures=40)
    assert ((annealed.log_px - exact).abs() < 5 * annealed.standard_error + 0.02).all()
    gap = inference_gap(pair.model, pair.guide(sharpen=0.5), x, num_steps=80, num_samples=500)
    assert torch.allclose(gap.log_px, exact, atol=0.05)
    assert (gap.elbo_full_rank < exact + 0.02).all()
    assert (gap.elbo_full_rank > exact - 0.05).all()


def test_an_unknown_part_of_the_gap_has_its_reason():
    pair, x = Angle(), data(3.1, 1.0)
    gap = inference_gap(pair.model, pair.guide(), x, num_steps=2, num_samples=50)
    assert gap.approximation.isnan().all()
    assert gap.reason == "in the guide's distribution of 'z', draws of VonMises have no gradient"
    assert gap.reason in judge_gap(gap)[0].sentence
    assert gap.reason in repr(gap)


class Missing:
    """z ~ N(0, 1), c ~ N(z, 1) known for some data, x ~ N(c, 1)."""

    def model(self, x, c, known):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            c = pyro.sample("c", dist.Normal(z, 1.0), obs=c, obs_mask=known)
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(self, widen=1.0):
        """z|c ~ N(c/2, ½); z|x ~ N(x/3, ⅔); c|z, x ~ N((z + x)/2, ½)."""

        def guide(x, c, known):
            variance = torch.where(known, x.new_tensor(1 / 2), x.new_tensor(2 / 3))
            with pyro.plate("data", len(x)):
                z = pyro.sample(
                    "z", dist.Normal(torch.where(known, c / 2, x / 3), widen * variance.sqrt())
                )
                with poutine.mask(mask=~known):
                    pyro.sample("c_unobserved", dist.Normal((z + x) / 2, math.sqrt(0.5)))

        return guide


def test_masked_elements_are_left_out():
    """c of the first datum is known: its latent twin has no posterior, and is neither moved nor
    judged."""
    pair = Missing()
    rows = data(1.0, 2.0), data(2.0, 1.0), torch.tensor([True, False])
    nuts = nuts_posterior(pair.model, pair.guide(), rows, **SHORT)
    assert nuts.names == ("z", "c_unobserved")
    assert nuts.judged.tolist() == [[True, False], [True, True]]
    assert nuts.sd[0, 1] < 2  # a standard normal, not a random walk
    assert not nuts.misses().any()
    exact = torch.tensor([[0.5, 1.0], [2 / 3, 2 / 3]]).double().sqrt()
    assert torch.allclose(nuts.sd[nuts.judged], exact[nuts.judged], rtol=0.3)
    assert judge_nuts(nuts)[0].level == Level.GOOD
    with pytest.raises(ValueError, match="'c_unobserved' is masked for some of these data"):
        inference_gap(pair.model, pair.guide(), rows)


def test_masked_elements_are_not_idle():
    """c is known for all data but 2 of 400: it counts for these alone, where its KL is large."""
    pair = Missing()
    x = 3 * torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    known = torch.arange(400) >= 2
    found = latent_information(pair.model, pair.guide(), (x, x.flip(0), known), num_draws=50)
    assert found.idle == ()
    assert found.counted.sum(0).tolist() == [400, 2]
    assert found.latent_dim == 2
    known = torch.ones(400, dtype=torch.bool)
    found = latent_information(pair.model, pair.guide(), (x, x.flip(0), known), num_draws=5)
    assert found.idle == ()
    assert (found.latent_dim, found.active_units) == (1, 1)


class Flat:
    """z under a flat prior, x ~ N(z, 1): z|x ~ N(x, 1)."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0).mask(False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, widen=1.0):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, widen * x.new_ones(())))

        return guide


def test_a_flat_prior_is_not_drawn_from():
    pair, x = Flat(), data(3.0, -2.0)
    masked = "the prior of 'z' is masked, so it has no draws"
    for ask in (
        lambda: simulate(pair.model, pair.guide(), x, 10),
        lambda: calibrate(pair.model, pair.guide(), x),
        lambda: predictive_check(pair.model, pair.guide(), x, from_prior=True),
        lambda: latent_information(pair.model, pair.guide(), x),
        lambda: annealed_evidence(pair.model, pair.guide(), x),
    ):
        with pytest.raises(ValueError, match=masked):
            ask()
    checks = predictive_check(pair.model, pair.guide(), x, num_samples=20)
    assert all(0 <= check.p_value <= 1 for check in checks.values())
    assert not nuts_posterior(pair.model, pair.guide(), x, **SHORT).misses().any()


class Square:
    """z ~ N(0, 2²), x ~ N(z², 0.3²): modes at ±√x. The guide's modes are normal, which is near."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 2.0))
            pyro.sample("x", dist.Normal(z**2, 0.3), obs=x)

    def guide(self, weight):
        def guide(x):
            modes = torch.stack([x.sqrt(), -x.sqrt()], -1)
            width = (0.15 / x.sqrt())[:, None].expand_as(modes)
            weights = dist.Categorical(data(weight, 1 - weight).expand(len(x), 2))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MixtureSameFamily(weights, dist.Normal(modes, width)))

        return guide


def test_a_mode_that_the_guide_misses_is_found():
    """All chains from the guide would stay in its one mode. Both modes have the weight ½."""
    pair, x = Square(), data(4.0, 6.0)
    nuts = nuts_posterior(pair.model, pair.guide(1.0), x, **MODES)
    assert nuts.modes.apart.all()
    assert torch.allclose(nuts.modes.annealed_share, torch.tensor(0.5).double(), atol=0.25)
    (finding,) = judge_nuts(nuts)
    assert finding.level == Level.BAD
    assert "stay in different modes of 2 of 2 coordinates" in finding.sentence
    assert "the guide has 0% of its draws where annealing finds" in finding.sentence
    blind = nuts_posterior(pair.model, pair.guide(1.0), x, **{**MODES, "num_temperatures": 0})
    assert not blind.modes.apart.any()


@pytest.mark.slow
def test_a_guide_with_both_modes_is_not_bad():
    pair, x = Square(), data(4.0, 6.0)
    nuts = nuts_posterior(pair.model, pair.guide(0.5), x, **MODES)
    assert nuts.modes.apart.all()
    assert not nuts.modes.missed().any()
    (finding,) = judge_nuts(nuts)
    assert finding.level == Level.NOTE
    assert "divided among them as annealing says" in finding.sentence
