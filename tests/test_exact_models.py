"""Models with exact answers, against answers found another way."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from sklearn import decomposition, mixture

from latente.guides import ExactPosterior
from latente.inference import (
    evaluate,
    expectation_maximization,
    fit,
    hold_then_fall,
    log_evidence,
)
from latente.models import (
    PPCA,
    VAE,
    FactorAnalysis,
    GaussianMixture,
    Normal,
    StandardNormal,
    mlp,
)

from .oracles import empty, four_gaussians, linear_data


@pytest.fixture
def x():
    return linear_data(8, 3, 400)


@pytest.mark.parametrize("model", [PPCA(8, 3), FactorAnalysis(8, 3)], ids=["PPCA", "FA"])
def test_linear_gaussian_answers_are_those_of_its_joint_normal(model, x):
    """p(x) and p(z|x) by conditioning one normal of (z, x), covariances and all."""
    model.double()
    model.likelihood.log_scale.data.uniform_(-0.5, 0.5)
    weight, scale = model.weight, model.scale
    covariance = weight @ weight.T + scale.square().diag()
    marginal = dist.MultivariateNormal(model.bias, covariance)
    assert torch.allclose(model.log_prob(x), marginal.log_prob(x), rtol=0, atol=1e-9)
    gain = weight.T @ covariance.inverse()
    posterior = model.posterior(x)
    assert torch.allclose(posterior.mean, (x - model.bias) @ gain.T, atol=1e-10)
    expected = torch.eye(3).double() - gain @ weight
    assert torch.allclose(posterior.covariance_matrix, expected.expand(400, 3, 3), atol=1e-10)
    assert (posterior.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_ppca_maximum_likelihood_is_the_peers(x):
    model = PPCA(8, 3).double().maximum_likelihood(x)
    peer = decomposition.PCA(3).fit(x.numpy())
    # The peer divides the covariance by N − 1: it stands a little off the maximum.
    assert model.log_prob(x).mean().item() >= peer.score(x.numpy())
    assert model.log_prob(x).mean().item() == pytest.approx(peer.score(x.numpy()), abs=1e-3)
    subspace = torch.linalg.qr(model.weight).Q
    components = torch.from_numpy(peer.components_)
    cosines = torch.linalg.svdvals(components @ subspace)
    assert torch.allclose(cosines, torch.ones(3).double(), atol=1e-10)


def test_ppca_maximum_likelihood_is_a_stationary_point_whatever_the_rotation(x):
    rotation = torch.linalg.qr(torch.randn(3, 3).double()).Q
    likelihoods = []
    for turn in (None, rotation):
        model = PPCA(8, 3).double().maximum_likelihood(x, turn)
        likelihoods.append(model.log_prob(x).mean())
        gradient = torch.autograd.grad(likelihoods[-1], list(model.parameters()))
        assert all(g.abs().max() < 1e-10 for g in gradient)
    assert likelihoods[0].item() == pytest.approx(likelihoods[1].item(), abs=1e-12)


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
def test_em_climbs_to_the_maximum_of_a_linear_model(kind, x):
    model = kind(8, 3).double()
    history = expectation_maximization(model, x, max_steps=3000, tolerance=1e-11)
    assert all(b - a > -1e-12 * abs(a) for a, b in itertools.pairwise(history))
    if kind is PPCA:
        best = PPCA(8, 3).double().maximum_likelihood(x).log_prob(x).mean().item()
    else:
        peer = decomposition.FactorAnalysis(3, tol=1e-12, max_iter=20_000, svd_method="lapack")
        best = peer.fit(x.numpy()).score(x.numpy())
    assert history[-1] == pytest.approx(best, abs=1e-6)


def test_linear_answers_survive_float32_at_little_noise():
    """Noise of 10⁻⁴ beside signals of 10³: I + WᵀΨ⁻¹W, formed in float32, has no factor.

    The answer is as near as float32 can be asked to come. Rounding alone moves the inverse of R, a
    factor of condition κ, by some ε κ(R) of its norm; from the product RᵀR it would be ε κ(R)².
    """
    torch.manual_seed(0)
    model = PPCA(20, 10)
    with torch.no_grad():
        strong = 1000 * torch.randn(20, 2) @ torch.randn(2, 10)
        model.weight.copy_(strong + 0.1 * torch.randn(20, 10))
        model.likelihood.log_scale.fill_(math.log(1e-4))
    scaled = model.weight / model.scale[:, None]
    with pytest.raises(RuntimeError):
        torch.linalg.cholesky(torch.eye(10) + scaled.T @ scaled)
    z = model.prior().sample((50,))
    x = model.decoder(z).detach()
    posterior = model.posterior(x)
    assert posterior.scale_tril.isfinite().all()
    assert (posterior.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    exact = PPCA(20, 10).double()
    exact.load_state_dict(model.state_dict())
    expected = exact.posterior(x.double()).scale_tril[0]
    error = torch.linalg.matrix_norm(posterior.scale_tril[0] - expected, 2)
    allowed = torch.finfo(torch.float32).eps * torch.linalg.cond(expected)
    assert allowed < 0.02
    assert error < allowed * torch.linalg.matrix_norm(expected, 2)


def test_with_the_exact_posterior_the_bound_is_the_evidence(x):
    model = PPCA(8, 3).double().maximum_likelihood(x)
    guide = ExactPosterior(model)
    evidence = log_evidence(model, guide, x, num_samples=50)
    assert torch.allclose(evidence.log_px, model.log_prob(x), rtol=0, atol=1e-10)
    assert (evidence.standard_error < 1e-10).all()
    assert (evidence.khat == -math.inf).all()
    loss = Trace_ELBO().differentiable_loss(model, guide, x) / len(x)
    assert loss.item() == pytest.approx(-model.log_prob(x).mean().item(), abs=1e-10)


def test_the_elbo_with_the_exact_posterior_climbs_the_likelihood(x):
    """log p(x, z) − log p(z|x) is log p(x) for every z: one draw has its gradient, to rounding."""
    model = PPCA(8, 3).double()
    parameters = list(model.parameters())
    exact = torch.autograd.grad(model.log_prob(x).sum(), parameters)
    loss = Trace_ELBO().differentiable_loss(model, ExactPosterior(model), x)
    for known, found in zip(exact, torch.autograd.grad(-loss, parameters), strict=True):
        assert torch.allclose(found, known, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
@pytest.mark.parametrize("latent_dim", [0, 5, 6])
def test_a_latent_dimension_outside_the_data_is_refused(kind, latent_dim):
    with pytest.raises(ValueError, match=r"less than the 5 dimensions .* GaussianMixture"):
        kind(5, latent_dim)


def test_data_without_noise_are_refused_and_the_model_is_told_what_to_do():
    flat = torch.randn(50, 2).double() @ torch.randn(2, 6).double()
    with pytest.raises(ValueError, match=r"no noise around the linear model.* smaller latent_dim"):
        PPCA(6, 2).double().maximum_likelihood(flat)
    constant = torch.randn(50, 6).double()
    constant[:, 3] = 1.0
    with pytest.raises(ValueError, match="drop elements that are constant"):
        FactorAnalysis(6, 2).double().em_step(constant)
    with pytest.raises(ValueError, match="no noise"):
        PPCA(6, 2).maximum_likelihood(torch.randn(3, 6))
    with pytest.raises(ValueError, match="no noise"):
        PPCA(6, 2).maximum_likelihood(torch.randn(2, 6))


@pytest.mark.parametrize("spoil", ["noise", "NaN"])
def test_a_refusal_leaves_a_linear_model_as_it_was(spoil):
    x = torch.randn(50, 6).double()
    x[:, 3] = 1.0 if spoil == "noise" else math.nan
    flat = x[:, :2] @ torch.randn(2, 6).double() if spoil == "noise" else x
    ppca, factors = PPCA(6, 2).double(), FactorAnalysis(6, 2).double()
    before = [p.clone() for model in (ppca, factors) for p in model.parameters()]
    with pytest.raises(ValueError, match=r"no noise|NaN"):
        ppca.maximum_likelihood(flat)
    with pytest.raises(ValueError, match=r"no noise|NaN"):
        factors.em_step(x)
    after = [p for model in (ppca, factors) for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
def test_data_of_another_shape_are_refused_by_linear_models(kind):
    model = kind(5, 2)
    for ask in (model.log_prob, model.posterior, model.em_step):
        with pytest.raises(ValueError, match=r"data of shape \(N, 5\), got \(3, 1\)"):
            ask(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"data of shape \(N, 5\)"):
        model.em_step(torch.zeros(5))


def test_maximum_likelihood_turns_by_the_rotation_it_is_given(x):
    rotation = torch.linalg.qr(torch.randn(3, 3).double()).Q
    plain = PPCA(8, 3).double().maximum_likelihood(x)
    turned = PPCA(8, 3).double().maximum_likelihood(x, rotation)
    assert torch.allclose(turned.weight, plain.weight @ rotation)


def test_em_ends_where_it_is_told(x):
    assert len(expectation_maximization(PPCA(8, 3).double(), x, max_steps=7, tolerance=0)) == 7
    loose = expectation_maximization(PPCA(8, 3).double(), x, tolerance=1e-2)
    *steps, last = [b - a for a, b in itertools.pairwise(loose)]
    assert last < 1e-2 <= min(steps)


def test_em_takes_arrays_of_another_dtype_and_refuses_what_it_cannot_use(x):
    history = expectation_maximization(FactorAnalysis(8, 3), x.numpy(), max_steps=3)
    assert len(history) == 3
    with pytest.raises(ValueError, match="without a context"):
        expectation_maximization(PPCA(8, 3), (x, x))
    with pytest.raises(ValueError, match="VAE has no em_step"):
        expectation_maximization(VAE(StandardNormal(1), mlp(1, out=8), Normal((8,))), x)


def test_a_mixture_starts_from_arrays_in_its_own_dtype(x):
    model = GaussianMixture(3, 8)
    with torch.no_grad():
        model.logits.copy_(torch.tensor([5.0, 0.0, 0.0]))
    model.initialize(x.numpy())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.weights, torch.full((3,), 1 / 3))
    other = GaussianMixture(3, 8).initialize(x, seed=1)
    assert not torch.equal(model.means, other.means)
    assert torch.equal(other.means, GaussianMixture(3, 8).initialize(x, seed=1).means)
    assert len(expectation_maximization(model, x, max_steps=2)) == 2
    with pytest.raises(ValueError, match=r"data of shape \(N, 8\)"):
        model.posterior(torch.zeros(4, 2))


def test_mixture_answers_by_hand():
    model = GaussianMixture(2, 1).double()
    with torch.no_grad():
        model.logits.copy_(torch.tensor([0.3, 0.7]).log())
        model.means.copy_(torch.tensor([[-1.0], [2.0]]))
        model.scale_tril = torch.tensor([[[0.5]], [[2.0]]]).double()
    x = 0.4

    def normal(mean, sd):
        return math.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))

    parts = [0.3 * normal(-1.0, 0.5), 0.7 * normal(2.0, 2.0)]
    value = torch.tensor([[x]]).double()
    assert model.log_prob(value).item() == pytest.approx(math.log(sum(parts)), abs=1e-7)
    assert model.posterior(value).probs[0, 0].item() == pytest.approx(parts[0] / sum(parts))


def test_em_raises_the_likelihood_of_a_mixture_at_each_step():
    x = four_gaussians()
    model = GaussianMixture(4, 2).double().initialize(x, seed=3)
    history = expectation_maximization(model, x, tolerance=1e-13)
    assert len(history) > 5
    # Rounding of a mean of 1,000 terms: some units in the last place.
    assert all(b - a > -1e-13 * abs(a) for a, b in itertools.pairwise(history))
    peer = mixture.GaussianMixture(4, tol=1e-12, reg_covar=0, max_iter=1000, random_state=0)
    assert history[-1] == pytest.approx(peer.fit(x.numpy()).score(x.numpy()), abs=1e-8)


def test_log_p_by_enumeration_is_the_closed_form():
    x = four_gaussians()
    model = GaussianMixture(4, 2).double().initialize(x)
    exact = model.log_prob(x).sum().item()
    with torch.no_grad():
        for guide in (empty, ExactPosterior(model)):
            loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, x)
            assert loss == pytest.approx(-exact, rel=1e-12)
    evidence = log_evidence(model, ExactPosterior(model), x, num_samples=20)
    assert torch.allclose(evidence.log_px, model.log_prob(x), rtol=0, atol=1e-12)


def test_svi_with_enumeration_reaches_the_optimum_of_em():
    """``fit`` takes enumeration by itself where the model asks for it."""
    x = four_gaussians()
    best = GaussianMixture(4, 2).double().initialize(x)
    expectation_maximization(best, x, tolerance=1e-12)
    model = GaussianMixture(4, 2).double().initialize(x)
    run = fit(
        model, empty, x, epochs=250, batch_size=1000, learning_rate=0.05,
        schedule=hold_then_fall(250), show_progress=False,
    )  # fmt: skip
    optimum = best.log_prob(x).mean().item()
    assert model.log_prob(x).mean().item() == pytest.approx(optimum, abs=1e-6)
    assert run.history[-1]["elbo"] == pytest.approx(optimum, abs=1e-6)
    order = [int((model.means - mean).norm(dim=1).argmin()) for mean in best.means]
    assert torch.allclose(model.means[order], best.means, atol=1e-3)
    assert torch.allclose(model.weights[order], best.weights, atol=1e-3)


def test_a_mixture_goes_through_evaluation_with_its_exact_posterior():
    x = four_gaussians(100)
    model = GaussianMixture(4, 2).double().initialize(x)
    figures = evaluate(model, ExactPosterior(model), x, num_samples=50)
    assert figures["log_evidence"] == pytest.approx(model.log_prob(x).mean().item())
    summed = log_evidence(model, empty, x, num_samples=50)
    assert torch.allclose(summed.log_px, model.log_prob(x), rtol=0, atol=1e-12)


def test_more_components_than_data_are_refused():
    model = GaussianMixture(5, 2).double()
    x = torch.randn(4, 2).double()
    for refused in (
        model.initialize,
        model.em_step,
        lambda x: fit(model, empty, x, batch_size=2, show_progress=False),
    ):
        with pytest.raises(ValueError, match=r"5 components cannot be fitted to 4 data: take at"):
            refused(x)


def test_a_singular_covariance_is_refused_and_nothing_is_lost():
    line = torch.randn(50, 1).double() @ torch.tensor([[1.0, 2.0]]).double()
    model = GaussianMixture(1, 2).double()
    start = model.means.clone()
    with pytest.raises(ValueError, match=r"singular: .* Take fewer components"):
        model.initialize(line)
    assert torch.equal(model.means, start)
    model = GaussianMixture(2, 2).double()
    with torch.no_grad():  # one component sits on a lone datum
        model.means.copy_(torch.tensor([[0.0, 0.0], [50.0, 50.0]]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.cat([torch.randn(40, 2), torch.tensor([[50.0, 50.0]])]).double()
    with pytest.raises(ValueError, match="shrunk to a few data"):
        model.em_step(x)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_mixture_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"data of shape \(N, 2\), got \(5, 3\)"):
        GaussianMixture(2, 2)(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="at least 1"):
        GaussianMixture(0, 2)
    run = fit(  # a minibatch, though, may be smaller than the mixture
        GaussianMixture(5, 2), empty, torch.randn(20, 2), batch_size=4, epochs=1,
        show_progress=False,
    )  # fmt: skip
    assert run.epoch == 1
    with pytest.raises(ValueError, match="max_steps"):
        expectation_maximization(GaussianMixture(1, 1), torch.randn(5, 1), max_steps=0)
