"""Contract of priors, and what is particular to each."""

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import nn

from latente.guides import (
    DiagonalNormal,
    ExactPosterior,
    FullRankNormal,
    NormalizingFlow,
    PointPosterior,
    planar,
)
from latente.inference import fit, log_evidence
from latente.models import (
    PPCA,
    VAE,
    Bernoulli,
    ConditionalNormal,
    FlowPrior,
    NormalMixture,
    StandardNormal,
    VampPrior,
    mlp,
)


def vamp(make_guide):
    return lambda k: VampPrior(make_guide(k), torch.randn(4, 3))


PRIORS = {
    "StandardNormal": lambda k: StandardNormal(k),
    "NormalMixture": lambda k: NormalMixture(k, 3),
    "VampPrior": vamp(lambda k: DiagonalNormal(mlp(3, 6, out=2 * max(k, 1)), k)),
    "VampPrior full-rank": vamp(
        lambda k: FullRankNormal(mlp(3, 6, out=FullRankNormal.num_features(max(k, 1))), k)
    ),
    "VampPrior flow": vamp(
        lambda k: NormalizingFlow(
            mlp(3, 6, out=2 * max(k, 1) + 2), k, planar(max(k, 1), 2, transforms=2), context=2
        )
    ),
    "FlowPrior": lambda k: FlowPrior(zuko.flows.MAF(k, transforms=2, hidden_features=(8,))),
    "ConditionalNormal": lambda k: ConditionalNormal(mlp(1, 6, out=2 * max(k, 1)), k),
}
EVERY = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)


def context_of(prior):
    return (torch.randn(1, 1).double(),) if getattr(prior, "conditional", False) else ()


@EVERY
def test_prior_contract(make):
    prior = make(2).double()
    context = context_of(prior)
    distribution = prior(*context)
    assert distribution.batch_shape == ((1,) if context else ())
    assert distribution.event_shape == (2,)
    z = distribution.sample((4, 7)).reshape(4, 7, 2)
    with pyro.plate("data", 7, dim=-1):
        expanded = pyro.poutine.trace(lambda: pyro.sample("z", prior(*context))).get_trace()
        site = expanded.nodes["z"]
    assert site["fn"].batch_shape == (7,)
    assert torch.allclose(site["fn"].log_prob(z), distribution.log_prob(z))
    if list(prior.parameters()):
        distribution.log_prob(z).sum().backward()
    assert all((p.grad != 0).any() for p in prior.parameters())
    again = make(2).double()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again(*context).log_prob(z), distribution.log_prob(z))
    assert "2" in repr(prior)


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "FlowPrior"])
def test_a_prior_of_no_dimension_is_refused(name):
    with pytest.raises(ValueError, match="at least 1"):
        PRIORS[name](0)


@EVERY
def test_prior_density_integrates_to_one(make):
    prior = make(2).double()
    with torch.no_grad():
        distribution = prior(*context_of(prior))
        grid = torch.linspace(-14, 14, 401).double()
        points = torch.cartesian_prod(grid, grid)[:, None]
        density = distribution.log_prob(points).exp().reshape(401, 401)
    total = torch.trapezoid(torch.trapezoid(density, grid), grid).item()
    assert total == pytest.approx(1, abs=1e-6)


@EVERY
def test_prior_sample_and_density_agree(make):
    """E_p[1 / p(z)] over a box of volume V that p fills is V; z-test, false alarm 6e-5."""
    prior = make(2).double()
    with torch.no_grad():
        distribution = prior(*context_of(prior))
        z = distribution.sample((100_000,)).reshape(-1, 1, 2)
        centre, half = z.mean(0), 0.7 * z.std(0)
        inside = ((z - centre).abs() < half).all(-1)
        weights = torch.where(inside, (-distribution.log_prob(z)).exp(), 0.0).flatten()
        error = weights.std() / len(weights) ** 0.5
        assert abs(weights.mean() - (2 * half).prod()) < 4 * error


def test_a_mixture_is_the_weighted_sum_of_its_normals():
    prior = NormalMixture(3, 4).double()
    with torch.no_grad():
        for value in prior.parameters():
            value.normal_()
    z = torch.randn(5, 3).double()
    weights = prior.logits.softmax(0)
    by_hand = sum(
        weight * dist.Normal(mean, log_scale.exp()).log_prob(z).sum(-1).exp()
        for weight, mean, log_scale in zip(weights, prior.means, prior.log_scales, strict=True)
    )
    assert torch.allclose(prior().log_prob(z), by_hand.log(), atol=1e-12)
    # In float32, with components far from z and narrow, the digits that matter are there too.
    narrow = NormalMixture(3, 4)
    with torch.no_grad():
        narrow.log_scales.fill_(-5.0)
        narrow.means.add_(3.0)
    z = narrow.means[2].detach() + 0.01 * torch.randn(3)
    exact = NormalMixture(3, 4).double()
    exact.load_state_dict(narrow.state_dict())
    assert torch.allclose(narrow().log_prob(z).double(), exact.double()().log_prob(z.double()),
                          atol=1e-2)  # fmt: skip


def test_a_vamp_prior_is_the_mean_of_its_guides_posteriors():
    guide = DiagonalNormal(mlp(3, 6, out=4), 2).double()
    inputs = torch.randn(5, 3).double()
    prior = VampPrior(guide, inputs)
    z = torch.randn(7, 2).double()
    by_hand = torch.stack([guide.posterior(u[None]).log_prob(z).exp() for u in inputs]).mean(0)
    assert torch.allclose(prior().log_prob(z), by_hand.log())
    with torch.no_grad():
        guide.encoder[1].weight.add_(0.5)  # it follows the guide
    moved = torch.stack([guide.posterior(u[None]).log_prob(z).exp() for u in inputs]).mean(0)
    assert torch.allclose(prior().log_prob(z), moved.log())


def test_a_vamp_prior_is_fitted_kept_and_loaded_with_its_guide(tmp_path, binary_images):
    def pair(seed):
        torch.manual_seed(seed)
        guide = DiagonalNormal(mlp((4, 4), 8, out=4), 2)
        prior = VampPrior(guide, binary_images[:6])
        return VAE(prior, mlp(2, 8, out=16), Bernoulli((4, 4))), guide

    model, guide = pair(0)
    before = model.prior.pseudo_inputs.detach().clone()
    whole = fit(model, guide, binary_images, epochs=4, out=tmp_path / "a", show_progress=False)
    assert (model.prior.pseudo_inputs != before).any()
    assert model.prior.guide is guide
    half, its_guide = pair(0)
    fit(half, its_guide, binary_images, epochs=2, out=tmp_path / "b", show_progress=False)
    again, its_guide = pair(1)
    rest = fit(again, its_guide, binary_images, epochs=4, out=tmp_path / "b", resume=True,
               show_progress=False)  # fmt: skip
    assert rest.history[-1]["loss"] == whole.history[-1]["loss"]
    pairs = (model, guide), (again, its_guide)
    first, second = (log_evidence(*pair, binary_images[:9]).mean for pair in pairs)
    assert first == second


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda g: VampPrior(g, torch.randn(4, 5)), r"shape \(4, 5\) do not fit the guide"),
        (lambda g: VampPrior(g, torch.randn(0, 3)), "finite numbers"),
        (lambda g: VampPrior(g, torch.tensor(1.0)), "finite numbers"),
        (lambda g: VampPrior(g, torch.full((2, 3), torch.nan)), "NaN or infinity"),
        (lambda g: VampPrior(lambda x: x, torch.randn(4, 3)), "not of a function"),
        (
            lambda g: VampPrior(PointPosterior(mlp(3, out=2), 2), torch.randn(4, 3)),
            "without a density",
        ),
        (lambda g: FlowPrior(zuko.flows.MAF(2, 3)), "without a context"),
        (lambda g: FlowPrior(zuko.flows.NCSF(2)), "bounded region"),
        (lambda g: FlowPrior(nn.Linear(2, 2)), "zuko flow, not a Linear"),
        (lambda g: NormalMixture(2, 0), "num_components must be at least 1"),
        (lambda g: ConditionalNormal(mlp(1, out=3), 2)(torch.randn(5, 1)), "give it out=4"),
        (lambda g: ConditionalNormal(mlp(1, out=4), 2)(), r"tuple \(x, context\)"),
    ],
)
def test_what_a_prior_refuses(make, reason):
    with pytest.raises(ValueError, match=reason):
        make(DiagonalNormal(mlp(3, out=4), 2))


def test_a_vamp_prior_takes_an_exact_posterior():
    model = PPCA(3, 2)
    assert VampPrior(ExactPosterior(model), torch.randn(4, 3))().event_shape == (2,)
