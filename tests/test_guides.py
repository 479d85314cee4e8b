"""Contract of guides, and what is particular to each."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import nn
from torch.distributions import kl_divergence

import latente.guides
from latente.guides import (
    Amortized,
    DiagonalNormal,
    ExactPosterior,
    FullRankNormal,
    NormalizingFlow,
    inverse,
    planar,
)
from latente.guides.flow import Planar
from latente.models import PPCA, VAE, Bernoulli, StandardNormal, mlp


def flow_guide(make):
    def build(k, d):
        flow = make(max(k, 1), 3)
        return NormalizingFlow(mlp(d, 6, out=2 * max(k, 1) + 3), k, flow, context=3)

    return build


GUIDES = {
    "DiagonalNormal": lambda k, d: DiagonalNormal(mlp(d, 6, out=2 * k), k),
    "FullRankNormal": lambda k, d: FullRankNormal(
        mlp(d, 6, out=FullRankNormal.num_features(max(k, 1))), k
    ),
    "NormalizingFlow planar": flow_guide(lambda k, c: planar(k, c, transforms=3)),
    "NormalizingFlow planar, hidden": flow_guide(lambda k, c: planar(k, c, hidden_features=(5,))),
    "NormalizingFlow inverse MAF": flow_guide(
        lambda k, c: inverse(zuko.flows.MAF(k, c, transforms=2, hidden_features=(8,)))
    ),
    "NormalizingFlow inverse NSF": flow_guide(
        lambda k, c: inverse(zuko.flows.NSF(k, c, transforms=2, hidden_features=(8,)))
    ),
    "NormalizingFlow NSF": flow_guide(
        lambda k, c: zuko.flows.NSF(k, c, transforms=2, hidden_features=(8,))
    ),
    "NormalizingFlow unconditional": lambda k, d: NormalizingFlow(
        mlp(d, 6, out=2 * max(k, 1)), k, planar(max(k, 1), 0, transforms=2), context=0
    ),
    "ExactPosterior": lambda k, d: ExactPosterior(PPCA(d, k)),
}
EVERY = pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)


def test_every_exported_guide_is_under_contract():
    under_contract = {name.split()[0] for name in GUIDES}
    others = {
        "Amortized",
        "PointPosterior",
        "inverse",
        "planar",
    }  # a point has no density: test_point.py
    others |= {"FiniteScalar"}  # a mass on a grid: test_codes.py
    others |= {"GumbelSoftmax", "OnCodes", "VectorQuantized"}  # test_codebooks.py
    others |= {"BottomUp", "TopDown", "PrecisionWeighted", "Residual"}  # test_hierarchies.py
    others |= {"SequencePosterior"}  # of sequences: test_state_space.py
    others |= {"DrawPosterior"}  # of steps: test_draw.py
    others |= {"Classifying"}  # of labels: test_half_known_labels.py
    assert set(latente.guides.__all__) == under_contract | others


@EVERY
def test_guide_contract(make):
    guide = make(2, 5).double()
    x = torch.randn(7, 5).double()
    posterior = guide.posterior(x)
    assert posterior.batch_shape == (7,)
    assert posterior.event_shape == (2,)

    trace = pyro.poutine.trace(guide).get_trace(x)
    (frame,) = trace.nodes["z"]["cond_indep_stack"]
    assert (frame.name, frame.dim, frame.size) == ("data", -1, 7)
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    assert torch.allclose(trace.nodes["z"]["log_prob"], posterior.log_prob(z), rtol=0, atol=1e-9)

    (guide.posterior(x).rsample() ** 3).sum().backward()
    assert all((p.grad != 0).any() for p in guide.parameters())

    with pyro.plate("samples", 4, dim=-2):
        assert guide(x).shape == (4, 7, 2)

    width = guide.width if isinstance(guide, Amortized) else 5
    features = torch.randn(4, 3, 7, width).double()
    distribution = (
        guide.family(features) if isinstance(guide, Amortized) else guide.posterior(features)
    )
    assert distribution.batch_shape == (4, 3, 7)
    assert distribution.rsample((2,)).shape == (2, 4, 3, 7, 2)
    assert distribution.log_prob(z).shape == (4, 3, 7)

    again = make(2, 5).double()
    again.load_state_dict(guide.state_dict())
    assert torch.equal(again.posterior(x).log_prob(z), posterior.log_prob(z))
    first, *rest = repr(guide).splitlines()
    assert first == f"{type(guide).__name__}("
    assert "2" in "".join(rest)
    with pytest.raises(ValueError, match="at least 1"):
        make(0, 5)


@EVERY
def test_guide_density_has_the_gradient_of_its_drawing(make):
    """d log q(z(φ)) / dφ by the density that comes with a draw, and by scoring the draw again."""
    guide = make(2, 5).double()
    x = torch.randn(7, 5).double()
    gradients = []
    for again in (False, True):
        torch.manual_seed(5)
        guide.zero_grad()
        posterior = guide.posterior(x)
        z = posterior.rsample()
        (guide.posterior(x) if again else posterior).log_prob(z).sum().backward()
        gradients.append([p.grad.clone() for p in guide.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, rtol=0, atol=1e-8)


@EVERY
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_guide_density_integrates_to_one(make, latent_dim):
    guide = make(latent_dim, 3).double()
    with torch.no_grad():
        posterior = guide.posterior(torch.randn(1, 3).double())
        size = 4001 if latent_dim == 1 else 401
        grid = torch.linspace(-14, 14, size).double()
        points = torch.cartesian_prod(*[grid] * latent_dim).reshape(-1, 1, latent_dim)
        density = posterior.log_prob(points).exp().reshape([size] * latent_dim)
    for _ in range(latent_dim):
        density = torch.trapezoid(density, grid)
    # A spline's density has kinks, which quadrature meets with an error of the grid's size.
    assert density.item() == pytest.approx(1, abs=1e-3 if "NSF" in _name(make) else 1e-6)


def _name(make):
    return next(name for name, known in GUIDES.items() if known is make)


@EVERY
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_guide_sample_and_density_agree(make, latent_dim):
    """E_q[1 / q(z)] over a box of volume V that q fills is V; z-test, false alarm 6e-5."""
    guide = make(latent_dim, 3).double()
    with torch.no_grad():
        posterior = guide.posterior(torch.randn(1, 3).double())
        pilot = posterior.sample((1000,))
        centre, half = pilot.mean(0), 0.7 * pilot.std(0)
        z = posterior.sample((100_000,))
        inside = ((z - centre).abs() < half).all(-1)
        weights = torch.where(inside, (-posterior.log_prob(z)).exp(), 0.0).flatten()
        error = weights.std() / math.sqrt(len(weights))
        assert abs(weights.mean() - (2 * half).prod()) < 4 * error


@EVERY
def test_guide_draws_the_same_without_a_gradient(make):
    """``sample`` is ``rsample`` cut off from the parameters."""
    guide = make(2, 3).double()
    posterior = guide.posterior(torch.randn(4, 3).double())
    torch.manual_seed(1)
    free = posterior.sample()
    torch.manual_seed(1)
    assert torch.allclose(free, posterior.rsample())
    assert not free.requires_grad


def test_diagonal_normal_is_mu_plus_sigma_epsilon():
    features = torch.tensor([[1.0, -2.0, math.log(0.5), math.log(3.0)]]).double()
    guide = DiagonalNormal(nn.Identity(), 2)
    posterior = guide.posterior(features)
    torch.manual_seed(3)
    z = posterior.rsample()
    torch.manual_seed(3)
    noise = torch.normal(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    assert torch.allclose(z, torch.tensor([[1.0, -2.0]]) + torch.tensor([[0.5, 3.0]]) * noise)


def test_full_rank_normal_is_mu_plus_l_epsilon():
    """Features in order μ, log σ, L′ row by row; L = L′ + diag σ."""
    below = [4.0, 5.0, 6.0]
    features = torch.tensor([[1.0, 2.0, 3.0, math.log(0.5), 0.0, math.log(2.0), *below]]).double()
    posterior = FullRankNormal(nn.Identity(), 3).posterior(features)
    factor = torch.tensor([[0.5, 0.0, 0.0], [4.0, 1.0, 0.0], [5.0, 6.0, 2.0]]).double()
    assert torch.allclose(posterior.scale_tril[0], factor)
    torch.manual_seed(3)
    z = posterior.rsample()
    torch.manual_seed(3)
    noise = torch.empty(1, 3).double().normal_()
    assert torch.allclose(z, torch.tensor([[1.0, 2.0, 3.0]]).double() + noise @ factor.T)


def test_kl_of_a_full_covariance_to_a_diagonal_prior():
    torch.manual_seed(2)
    features = torch.randn(6, FullRankNormal.num_features(3)).double()
    posterior = FullRankNormal(nn.Identity(), 3).posterior(features)
    location, scale = torch.randn(3).double(), torch.rand(3).double() + 0.5
    prior = dist.Normal(location, scale).to_event(1)
    other = dist.MultivariateNormal(location, scale_tril=scale.diag())
    assert torch.allclose(kl_divergence(posterior, prior), kl_divergence(posterior, other))
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior, dist.Laplace(location, scale).to_event(1))
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior, dist.Normal(torch.zeros(6, 3), 1.0).to_event(2))
    with pytest.raises(ValueError, match="posterior has 3 dimensions, but the prior has 1"):
        kl_divergence(posterior, StandardNormal(1)())
    features[:, 3:6] = -60.0  # σ whose square float32 cannot hold
    narrow = FullRankNormal(nn.Identity(), 3).posterior(features.float())
    assert kl_divergence(narrow, StandardNormal(3)()).isfinite().all()


def test_a_full_covariance_that_float32_could_not_hold_stays_exact():
    """L′ of 10⁴ beside σ of 10⁻³: LLᵀ, formed in float32, is indefinite; it is never formed."""
    features = torch.tensor([[0.0, 0.0, 0.0, math.log(1e-3), math.log(1e-3), 0.0, 1e4, 0, 0]])
    features[0, 7] = 1e4
    posterior = FullRankNormal(nn.Identity(), 3).posterior(features)
    factor = posterior.scale_tril[0]
    assert torch.linalg.eigvalsh(factor @ factor.T).min() <= 0
    z = posterior.sample((1000,))
    exact = FullRankNormal(nn.Identity(), 3).posterior(features.double())
    # A draw rounds where q has a width of 10⁻³ beside 10⁴: the noise it stands for moves.
    assert posterior.log_prob(z).isfinite().all()
    assert exact.log_prob(z.double()).mean() == pytest.approx(-exact.entropy().item(), abs=2)
    prior = StandardNormal(3)()
    analytic = kl_divergence(posterior, prior).item()
    assert analytic == pytest.approx(kl_divergence(exact, StandardNormal(3).double()()).item())


def test_planar_flow_by_its_definition():
    """f(u) = u + v̂ tanh(wᵀu + b) with wᵀv̂ > −1, and its Jacobian by autograd."""
    torch.manual_seed(4)
    flow = planar(3, 2, transforms=1).double()
    with torch.no_grad():  # away from the identity
        flow.transform.transforms[0].transform.parameters_of[0].weight *= 100
    context = torch.randn(2).double()
    (transform,) = flow.transform.transforms
    forward = transform.inv(context)
    v, w, b = transform.transform.parameters_of(context).split([3, 3, 1])
    inner = 0.999 * (torch.log1p((math.e - 1) * (w @ v).exp()) - 1)
    v_hat = v + (inner - w @ v) * w / (w @ w)
    u = torch.randn(3).double()
    assert torch.allclose(forward(u), u + v_hat * torch.tanh(w @ u + b), atol=1e-9)
    assert (w @ v_hat).item() == pytest.approx(inner.item())
    jacobian = torch.autograd.functional.jacobian(forward, u)
    assert forward.log_abs_det_jacobian(u, None).item() == pytest.approx(
        torch.linalg.slogdet(jacobian).logabsdet.item()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_planar_flow_bent_to_its_limit_is_still_inverted(dtype):
    """wᵀv of −40: wᵀv̂ is −0.999, and f all but flat at one point, its density still finite."""
    v, w = torch.tensor([-20.0, -20.0]).to(dtype), torch.ones(2).to(dtype)
    forward = Planar(v, w, torch.zeros(1).to(dtype))
    u = torch.tensor([[1.0, -0.5], [3.0, 2.0], [-4.0, 1.0], [0.0, 0.0]]).to(dtype)
    assert torch.allclose(forward.inv(forward(u)), u, atol=1e-3 if dtype == torch.float32 else 1e-9)
    assert forward.log_abs_det_jacobian(u, None).isfinite().all()
    still = Planar(v, 0 * w, torch.ones(1).to(dtype))
    assert still(u).isfinite().all()
    assert torch.equal(still.log_abs_det_jacobian(u, None), torch.zeros(4).to(dtype))


def test_a_planar_flow_of_one_dimension_does_not_run_away():
    """w(h) passes through zero between data; v̂ stays bounded there."""
    torch.manual_seed(0)
    for _ in range(30):
        flow = planar(1, 3)
        for layer in flow.transform.transforms:
            layer.transform.parameters_of[0].weight.data[:1] *= 100
        assert flow(torch.randn(200, 3)).sample().abs().max() < 30


def test_planar_flow_in_float32_scores_what_it_drew():
    guide = GUIDES["NormalizingFlow planar"](2, 5)
    x = torch.randn(50, 5)
    z = (drawn := guide.posterior(x)).rsample()
    assert torch.allclose(drawn.log_prob(z), guide.posterior(x).log_prob(z), rtol=0, atol=1e-4)


def test_planar_takes_as_many_transformations_as_it_is_told():
    assert len(planar(2, 3, transforms=5).transform.transforms) == 5
    with pytest.raises(ValueError, match="at least 1 feature, 1 transformation"):
        planar(2, 3, transforms=0)
    with pytest.raises(ValueError, match="no negative context"):
        planar(2, -1)


def test_inverse_autoregressive_flow_is_the_flow_run_the_other_way():
    flow = zuko.flows.MAF(3, 2, transforms=3, hidden_features=(8,)).double()
    context, u = torch.randn(5, 2).double(), torch.randn(5, 3).double()
    assert torch.allclose(inverse(flow)(context).transform(flow(context).transform(u)), u)
    # One affine transformation, by hand: z = shift + scale · u, from the network's one pass.
    single = zuko.flows.MAF(3, 2, transforms=1, hidden_features=(8,)).double()
    turned = inverse(single)(context)
    assert torch.allclose(turned.transform.inv(u), single(context).transform(u))


def test_importing_guides_leaves_the_validation_of_pytorch_on():
    with pytest.raises(ValueError, match="Expected parameter scale"):
        torch.distributions.Normal(0.0, -1.0, validate_args=None)


def test_the_exact_posterior_of_a_model_without_one_is_refused():
    vae = VAE(StandardNormal(2), mlp(2, out=4), Bernoulli((4,)))
    with pytest.raises(ValueError, match="VAE has no exact posterior: use DiagonalNormal"):
        ExactPosterior(vae)
    with pytest.raises(ValueError, match="DiagonalNormal has no exact posterior"):
        ExactPosterior(DiagonalNormal(mlp(4, out=4), 2))


def test_a_flow_of_other_dimensions_is_refused():
    encoder = mlp(3, out=7)
    with pytest.raises(ValueError, match=r"make it for 2 features .* and 3 of context"):
        NormalizingFlow(encoder, 2, zuko.flows.MAF(2, 4), context=3)
    with pytest.raises(ValueError, match=r"make it for 2 features .* and 3 of context"):
        NormalizingFlow(encoder, 2, planar(3, 3), context=3)
    with pytest.raises(ValueError, match="must not be negative"):
        NormalizingFlow(encoder, 2, planar(2, 0), context=-1)
    for narrow in (planar(1, 3), inverse(zuko.flows.NSF(1, 3))):
        with pytest.raises(ValueError, match=r"make it for 2 features"):
            NormalizingFlow(encoder, 2, narrow, context=3)
    with pytest.raises(ValueError, match="NCSF draws in a bounded region"):
        NormalizingFlow(encoder, 2, zuko.flows.NCSF(2, 3), context=3)
    with pytest.raises(ValueError, match=r"takes a zuko flow"):
        NormalizingFlow(encoder, 2, nn.Linear(3, 2), context=3)


def test_an_encoder_of_another_width_is_refused():
    guide = DiagonalNormal(mlp(3, out=3), 2)
    with pytest.raises(ValueError, match=r"takes 4 encoder features .* give it out=4"):
        guide.posterior(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"latent_dim=3 takes 9 .* give it out=9"):
        FullRankNormal(mlp(3, out=6), 3).posterior(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"context=4 takes 8 .* give it out=8"):
        NormalizingFlow(mlp(3, out=4), 2, planar(2, 4), context=4).posterior(torch.zeros(1, 3))


def test_an_encoder_that_keeps_a_dimension_of_the_data_is_refused():
    guide = DiagonalNormal(mlp(16, out=4), 2)
    with pytest.raises(
        ValueError, match=r"one row for each .* an mlp takes .* mlp\(\(1, 4, 4\), …\)"
    ):
        guide.posterior(torch.zeros(7, 1, 4, 4))
    guide = DiagonalNormal(mlp((1, 4, 4), out=4), 2)
    assert guide.posterior(torch.zeros(7, 1, 4, 4)).batch_shape == (7,)
    with pytest.raises(ValueError, match="one row for each of the N data"):
        DiagonalNormal(nn.Linear(4, 4), 2).posterior(torch.zeros(3, 7, 4))
    halved = DiagonalNormal(nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Flatten(1)), 4)
    with pytest.raises(ValueError, match="one row for each of the N data"):
        halved.posterior(torch.zeros(6, 4))


def test_a_family_that_was_not_written_says_so():
    with pytest.raises(NotImplementedError, match="Amortized has no posterior family"):
        Amortized(mlp(3, out=2), 1, 2).posterior(torch.zeros(1, 3))


def test_a_family_that_leaves_its_dimensions_independent_is_told_how_to_join_them():
    class Split(Amortized):
        def family(self, features):
            return dist.Laplace(features[..., :2], 1.0)

    with pytest.raises(ValueError, match=r"event shape \(\), not \(2,\): end it with \.to_event"):
        Split(mlp(3, out=4), 2, 4).posterior(torch.ones(5, 3))


def test_a_flow_says_that_it_knows_no_moments():
    posterior = GUIDES["NormalizingFlow planar"](2, 5).posterior(torch.zeros(1, 5))
    for moment in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match="use posterior_means"):
            getattr(posterior, moment)
