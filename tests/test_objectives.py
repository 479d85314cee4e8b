"""ELBO estimators: agreement in expectation, gradients by hand, variances by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, ExactPosterior, NormalizingFlow, planar
from latente.inference import ScoreFunction_ELBO, fit
from latente.inference.objectives.score_function import _CutPaths
from latente.models import PPCA, VAE, GaussianMixture, Normal, StandardNormal, mlp

from .oracles import empty, linear_data
from .test_guides import GUIDES

POINTS = (-1.0, 2.0)
MEANS, SCALE = (0.3, 0.9), 0.6


class TwoPoints:
    """z ~ N(0, 1), x | z ~ N(z, 1), at two data, each repeated with a posterior of its own.

    q(z|x) = N(m, s²). The gradient of the loss of all in one repetition's (m, log s) is then a
    one-sample estimate for its datum, and as many independent ones come from one call.
    """

    def __init__(self, repetitions):
        self.x = torch.tensor(POINTS).double().repeat_interleave(repetitions)
        mean = torch.tensor(MEANS).double().repeat_interleave(repetitions)
        self.mean = nn.Parameter(mean)
        self.log_scale = nn.Parameter(torch.full_like(mean, math.log(SCALE)))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.mean, self.log_scale.exp()))

    def gradients(self, objective):
        """Estimates of ∇ELBO: (2 data, 2 parameters m and log s, repetitions)."""
        loss = objective.differentiable_loss(self.model, self.guide, self.x)
        by_mean, by_log_scale = torch.autograd.grad(-loss, [self.mean, self.log_scale])
        return torch.stack([by_mean.view(2, -1), by_log_scale.view(2, -1)], dim=1)


def expected_gradient(x, m, s):
    """∇ELBO in (m, log s): ELBO = −½((x − m)² + s²) − ½(m² + s²) + log s + constant."""
    return x - 2 * m, 1 - 2 * s**2


def pathwise_variances(x, m, s):
    """z = m + sε: d/dm = x − 2z; d/d log s = (x − 2z) sε + 1."""
    return 4 * s**2, (x - 2 * m) ** 2 * s**2 + 8 * s**4


def analytic_kl_variances(x, m, s):
    """d/dm = (x − z) − m; d/d log s = (x − z) sε − s² + 1."""
    return s**2, (x - m) ** 2 * s**2 + 2 * s**4


def score_function_variances(x, m, s):
    """f ∇log q, where f = log p(x, z) − log q(z) = c + bε + aε² and ∇log q = (ε/s, ε² − 1)."""
    a, b = 0.5 - s**2, s * (x - 2 * m)
    c = -0.5 * math.log(2 * math.pi) - 0.5 * (x - m) ** 2 - 0.5 * m**2 + math.log(s)
    by_mean = (c**2 + 2 * b**2 + 15 * a**2 + 6 * a * c) / s**2
    return by_mean, 2 * c**2 + 10 * b**2 + 74 * a**2 + 20 * a * c


ESTIMATORS = {
    "pathwise": (Trace_ELBO(), pathwise_variances),
    "pathwise, analytic KL": (TraceMeanField_ELBO(), analytic_kl_variances),
    "score function": (ScoreFunction_ELBO(), score_function_variances),
}


@pytest.mark.parametrize(("objective", "variances"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_gradients_of_the_two_point_model_have_the_mean_and_variance_derived_by_hand(
    objective, variances
):
    """Four means and four variances, each within 4 standard errors: false alarm 5e-4 in all."""
    repetitions = 200_000
    estimates = TwoPoints(repetitions).gradients(objective).detach()
    for datum, (x, m) in enumerate(zip(POINTS, MEANS, strict=True)):
        for parameter in range(2):
            values = estimates[datum, parameter]
            centred = values - values.mean()
            variance = centred.square().mean()
            error = (variance / repetitions).sqrt()
            assert abs(values.mean() - expected_gradient(x, m, SCALE)[parameter]) < 4 * error
            error = ((centred**4).mean() - variance**2).sqrt() / math.sqrt(repetitions)
            assert abs(variance - variances(x, m, SCALE)[parameter]) < 4 * error


def test_the_score_function_varies_more_by_the_derived_factor():
    """The factor of the notebook, (c² + 2b² + 15a² + 6ac) / 4s⁴, at each point."""
    repetitions = 200_000
    pathwise, score = (
        TwoPoints(repetitions).gradients(objective).var(-1)[:, 0].tolist()
        for objective in (Trace_ELBO(), ScoreFunction_ELBO())
    )
    for datum, (x, m) in enumerate(zip(POINTS, MEANS, strict=True)):
        factor = score_function_variances(x, m, SCALE)[0] / pathwise_variances(x, m, SCALE)[0]
        assert factor > 5
        assert score[datum] / pathwise[datum] == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: Trace_ELBO(num_particles=s, vectorize_particles=True, max_plate_nesting=1),
        lambda s: TraceMeanField_ELBO(
            num_particles=s, vectorize_particles=True, max_plate_nesting=1
        ),
        lambda s: ScoreFunction_ELBO(
            num_particles=s, vectorize_particles=True, max_plate_nesting=1
        ),
    ],
    ids=["Trace", "TraceMeanField", "ScoreFunction"],
)
def test_s_samples_divide_the_variance_by_s(make):
    """Ratio of variances of 50,000 draws each, to a tenth: some 4 standard errors or more."""
    one, eight = (TwoPoints(50_000).gradients(make(s)).var(-1) for s in (1, 8))
    assert torch.allclose(one / eight, torch.full((2, 2), 8.0).double(), rtol=0.1)


WITH_BOTH = {
    name: make
    for name, make in GUIDES.items()
    if name.split()[0] in ("DiagonalNormal", "FullRankNormal", "ExactPosterior")
}


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_monte_carlo_and_analytic_elbo_agree_in_expectation(make, request):
    """The two estimates' difference over 4,000 draws, against zero: false alarm 6e-5 a guide."""
    has_both = request.node.callspec.id in WITH_BOTH
    guide, x = make(2, 5).double(), linear_data(5, 2, 20)
    vae = VAE(StandardNormal(2), mlp(2, 6, out=5), Normal((5,))).double()
    if not has_both:
        with pytest.raises(NotImplementedError):
            kl_divergence(guide.posterior(x), vae.prior())
        return
    settings = {"num_particles": 4000, "vectorize_particles": True, "max_plate_nesting": 1}
    with torch.no_grad():
        analytic = kl_divergence(guide.posterior(x), vae.prior()).sum()
        posterior = guide.posterior(x)
        z = posterior.sample((4000,))
        kl = (posterior.log_prob(z) - vae.prior().log_prob(z)).sum(-1)
        assert abs(kl.mean() - analytic) < 4 * kl.std() / math.sqrt(4000)
        # And the objectives themselves, which draw the same z from the same seed.
        losses = []
        for objective in (Trace_ELBO, TraceMeanField_ELBO):
            torch.manual_seed(11)
            losses.append(objective(**settings).loss(vae, guide, x))
        assert abs(losses[0] - losses[1]) < 4 * kl.std().item() / math.sqrt(4000)


ALIKE = ("NormalizingFlow NSF", "NormalizingFlow planar, hidden")
"""Guides whose like is there too: the same flow the other way, or without hidden units."""


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if name in ALIKE else [])
        for name, make in GUIDES.items()
    ],
)
def test_the_score_function_agrees_with_the_path_for_every_guide(make):
    """Up to 10 gradients by either way, 40 means of 250 draws: false alarm 4e-5, by Student's t."""
    guide, x = make(2, 4).double(), linear_data(4, 2, 3)
    model = PPCA(4, 2).double()
    settings = {"num_particles": 250, "vectorize_particles": True, "max_plate_nesting": 1}
    chosen = list(guide.parameters())[-1]
    estimates = []
    for objective in (Trace_ELBO(**settings), ScoreFunction_ELBO(**settings)):
        draws = []
        for _ in range(40):
            loss = objective.differentiable_loss(model, guide, x)
            (gradient,) = torch.autograd.grad(loss, chosen)
            draws.append(gradient.flatten()[:10])
        estimates.append(torch.stack(draws))
    assert not torch.equal(*estimates)
    error = sum(part.var(0) / len(part) for part in estimates).sqrt()
    difference = (estimates[0].mean(0) - estimates[1].mean(0)).abs()
    assert (difference <= 5 * error + 1e-9).all()


def test_score_function_elbo_runs_in_plain_pyro_svi():
    model, guide = PPCA(4, 2), DiagonalNormal(mlp(4, out=4), 2)
    x = linear_data(4, 2, 50).float()
    optimizer = pyro.optim.Adam({"lr": 0.01})  # pyright: ignore
    objective = ScoreFunction_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, optimizer, objective)
    losses = [svi.step(x) for _ in range(120)]
    assert sum(losses[-20:]) < sum(losses[:20])


def test_the_bound_of_the_score_function_is_that_of_trace_elbo():
    model, guide = PPCA(4, 2).double(), DiagonalNormal(mlp(4, out=4), 2).double()
    x = linear_data(4, 2, 50)
    bounds = []
    for objective in (Trace_ELBO(), ScoreFunction_ELBO()):
        for evaluate in (objective.loss, objective.differentiable_loss):
            torch.manual_seed(3)
            bounds.append(torch.as_tensor(evaluate(model, guide, x)).item())
    assert bounds == pytest.approx([bounds[0]] * 4)


def test_loss_and_grads_of_the_score_function_cuts_the_path_too():
    """The way plain ``SVI`` takes: the gradient of ``differentiable_loss``, not the path's."""
    x, gradients = linear_data(4, 2, 5), {}
    model, guide = PPCA(4, 2).double(), DiagonalNormal(mlp(4, out=4), 2).double()
    weight = guide.encoder[1].weight

    def differentiate(objective):
        torch.manual_seed(3)
        objective.differentiable_loss(model, guide, x).backward()

    def step(objective):
        torch.manual_seed(3)
        objective.loss_and_grads(model, guide, x)

    for name, objective in (("score", ScoreFunction_ELBO()), ("path", Trace_ELBO())):
        for take in (differentiate, step):
            weight.grad = None
            take(objective)
            gradients[name, take.__name__] = weight.grad.clone()
    assert torch.equal(gradients["score", "differentiate"], gradients["score", "step"])
    assert not torch.allclose(gradients["score", "step"], gradients["path", "step"])


def test_the_score_function_leaves_the_data_alone_and_draws_what_is_marked():
    """Observed distributions keep their own; sites marked to be enumerated are drawn without
    complaint."""
    x = linear_data(4, 2, 20)
    mixture = GaussianMixture(2, 4).double().initialize(x)
    loss = ScoreFunction_ELBO().differentiable_loss(mixture, ExactPosterior(mixture), x)
    assert loss.item() == pytest.approx(-mixture.log_prob(x).sum().item())

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("seen", dist.Normal(0.0, 1.0), obs=x)

    trace = pyro.poutine.trace(_CutPaths()(guide)).get_trace(torch.zeros(3))
    assert not trace.nodes["z"]["fn"].has_rsample
    assert trace.nodes["seen"]["fn"].has_rsample


def chosen_objective(model, guide, x, **options):
    run = fit(model, guide, x, epochs=1, batch_size=len(x), show_progress=False, **options)
    return run.config, run


def test_the_objective_suits_the_pair(tmp_path):
    """Closed-form KL where there is one, enumeration where it is asked for, else plain draws."""
    x = linear_data(4, 2, 20)
    flow = NormalizingFlow(mlp(4, out=6), 2, planar(2, 2), context=2)
    mixture = GaussianMixture(2, 4).double().initialize(x)
    pairs = {
        "TraceMeanField_ELBO": (PPCA(4, 2).double(), DiagonalNormal(mlp(4, out=4), 2).double()),
        "Trace_ELBO": (PPCA(4, 2).double(), flow.double()),
        "TraceEnum_ELBO": (mixture, empty),
    }
    for name, (model, guide) in pairs.items():
        config, _ = chosen_objective(model, guide, x, out=tmp_path / name)
        assert config["fit"]["objective"] == name
    config, _ = chosen_objective(mixture, ExactPosterior(mixture), x, out=tmp_path / "exact")
    assert config["fit"]["objective"] == "TraceEnum_ELBO"


def test_a_guide_whose_sites_stand_in_another_order_gets_plain_draws(tmp_path):
    """KL(q(a|b) ‖ p(a)) at a drawn b is not a term of the bound when p(b|a) needs a."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(2 * a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", x.new_tensor(0.5))
        weight = pyro.param("weight", x.new_tensor(0.3))
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Normal(slope * x, math.sqrt(5 / 6)))
            pyro.sample("a", dist.Normal(weight * b, math.sqrt(1 / 5)))

    x = math.sqrt(6) * torch.randn(500, generator=torch.Generator().manual_seed(0)).double()
    run = fit(
        model, guide, x, epochs=60, batch_size=100, learning_rate=0.02, show_progress=False,
        out=tmp_path / "run",
    )  # fmt: skip
    assert run.config["fit"]["objective"] == "Trace_ELBO"
    values = run.model.store["params"]
    assert values["weight"].item() == pytest.approx(0.4, abs=0.03)
    assert values["slope"].item() == pytest.approx(5 / 6, abs=0.03)


def test_a_guide_with_one_site_that_cannot_be_reparameterized_gets_plain_draws(tmp_path):
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Bernoulli(x.new_tensor(0.5)))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        logit = pyro.param("logit", x.new_zeros(()))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("b", dist.Bernoulli(logits=logit * x))

    config, _ = chosen_objective(model, guide, torch.randn(20), out=tmp_path / "run")
    assert config["fit"]["objective"] == "Trace_ELBO"


def test_enumeration_takes_the_nesting_of_the_pair(tmp_path):
    def model(x):
        weights = pyro.param("weights", x.new_ones(2) / 2, constraint=dist.constraints.simplex)
        with (
            pyro.plate("inner", 3, dim=-2),
            pyro.plate("data", len(x), dim=-1),
        ):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x.T)

    config, run = chosen_objective(model, empty, torch.randn(20, 3), out=tmp_path / "run")
    assert config["fit"]["objective"] == "TraceEnum_ELBO"
    assert math.isfinite(run.history[0]["elbo"])


@pytest.mark.parametrize("objective", [Trace_ELBO(), ScoreFunction_ELBO(), TraceMeanField_ELBO()])
def test_a_site_left_to_be_summed_out_is_not_drawn_from_the_prior(objective):
    mixture = GaussianMixture(2, 4)
    with pytest.raises(ValueError, match=r"no site 'z', .* summed out, .* use TraceEnum_ELBO"):
        chosen_objective(mixture, empty, torch.randn(20, 4), objective=objective)


def test_analytic_kl_asked_of_a_flow_is_refused():
    flow = NormalizingFlow(mlp(4, out=6), 2, planar(2, 2), context=2)
    x = linear_data(4, 2, 20).float()
    with pytest.raises(ValueError, match=r"'z' .* no closed form, .* use Trace_ELBO\(\)"):
        chosen_objective(PPCA(4, 2), flow, x, objective=TraceMeanField_ELBO())
    chosen_objective(PPCA(4, 2), flow, x, objective=Trace_ELBO())


def test_a_discrete_guide_without_enumeration_gets_score_function_gradients(tmp_path):
    mixture = GaussianMixture(2, 1).double()
    logits = nn.Parameter(torch.zeros(20, 2).double())

    def guide(x):
        pyro.param("logits", logits)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Categorical(logits=logits))

    x = torch.randn(20, 1).double()
    config, _ = chosen_objective(mixture, guide, x, out=tmp_path / "run")
    assert config["fit"]["objective"] == "Trace_ELBO"
