"""Posteriors fitted datum by datum, against gaps that are known in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from latente.guides import ExactPosterior, FullRankNormal, NormalizingFlow, inverse
from latente.inference import log_evidence
from latente.inference.diagnostics.inference_gap import inference_gap
from latente.inference.diagnostics.local_posteriors import full_rank, own_family
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.latent_space import latent_space
from latente.models import PPCA, mlp
from latente.models._zuko import zuko

from .oracles import LinearGaussian, OneBatchDimension


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def test_the_gaps_of_a_diagonal_guide_are_its_closed_forms():
    """A rotated linear Gaussian model: the best diagonal normal has the posterior's mean and
    variances 1 / P_kk, so the approximation gap is ½ (Σ log P_kk − log det P), to 1e-3 on the mean;
    the amortization gap of the guide of wide and shifted marginals is KL(q ‖ p) less that.

    Both within 4 standard errors of the ELBOs' (false alarm 1e-4); log p(x) to 1e-6.
    """
    oracle = LinearGaussian(3, 4, 1.0)
    model, guide = oracle.pair(widen=1.5, shift=1.0)
    x = oracle.sample(40)
    num_samples = 4000
    gap = inference_gap(model, guide, x, num_draws=64, num_samples=num_samples)
    exact = oracle.marginal.log_prob(x)
    precision = oracle.precision
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
    with torch.no_grad():
        q = guide.posterior(x)
    q = dist.MultivariateNormal(q.mean, q.variance.diag_embed())
    total = kl_divergence(q, oracle.posterior(x))
    print(
        f"approximation {gap.approximation.mean():.5f}, exact {best:.5f}; amortization "
        f"{gap.amortization.mean():.4f}, exact {(total - best).mean():.4f}; log p(x) off by "
        f"{(gap.log_px - exact).abs().max():.1e}"
    )
    assert best > 0.1
    # Of the diagonal normal z-scores' quadratic form has this variance: ½ ‖scaled P − 1‖².
    scaled = precision / precision.diagonal().outer(precision.diagonal()).sqrt()
    sd = (0.5 * (scaled - torch.eye(3)).square().sum()).sqrt().item()
    error = 4 * sd / math.sqrt(num_samples * len(x))
    assert gap.approximation.mean().item() == pytest.approx(best, abs=error + 1e-3)
    assert (gap.log_px - exact).abs().max() < 1e-6
    assert gap.log_px_error.max() < 1e-6
    assert ((gap.total - total).abs() < 5 * gap.elbo_error).all()
    mean_error = 4 * (gap.elbo_error.square().sum().sqrt() / len(x)).item() + error + 1e-3
    amortization = (total - best).mean().item()
    assert amortization > 1
    assert gap.amortization.mean().item() == pytest.approx(amortization, abs=mean_error)
    assert torch.allclose(gap.approximation + gap.amortization, gap.total, rtol=0, atol=1e-12)
    assert torch.equal(gap.total, gap.log_px - gap.elbo)
    for bound in (gap.elbo_local, gap.elbo_full_rank):
        assert (bound <= exact + 5 * gap.elbo_error).all()
    assert torch.allclose(gap.elbo_full_rank, exact, rtol=0, atol=1e-5)
    # The posteriors found, by their divergence in closed form.
    with torch.no_grad():
        distribution = guide.family(gap.local.parameters[0])
    found = dist.MultivariateNormal(distribution.mean, distribution.variance.diag_embed())
    found = kl_divergence(found, oracle.posterior(x))
    assert (found > best - 1e-9).all()
    assert found.mean().item() == pytest.approx(best, abs=1e-3)


def test_of_the_exact_posterior_there_is_no_gap():
    oracle = LinearGaussian(3, orthogonal=True)
    model, guide = oracle.pair()
    x = oracle.sample(5)
    gap = inference_gap(model, guide, x, num_steps=500, num_samples=100)
    for part in (gap.approximation, gap.amortization, gap.total):
        assert part.abs().max() < 1e-6
    ppca = PPCA(4, 2).double()
    x = torch.randn(5, 4).double()
    gap = inference_gap(ppca, ExactPosterior(ppca), x, num_steps=500, num_samples=100)
    assert [tuple(value.shape) for value in gap.local.parameters] == [(5, 2), (5, 2, 2)]
    for part in (gap.approximation, gap.amortization, gap.total):
        assert part.abs().max() < 1e-6


def test_local_posteriors_serve_as_a_guide_for_any_rows_of_their_data():
    oracle = LinearGaussian(2)
    model, guide = oracle.pair(widen=2.0)
    x = oracle.sample(6)
    gap = inference_gap(model, guide, x)
    exact = oracle.marginal.log_prob(x)
    for rows in ([4], [2, 3], [5, 0, 3, 1, 4, 2], [1, 1, 0, 1]):
        evidence = log_evidence(model, gap.full_rank, x[rows], num_samples=50)
        assert torch.allclose(evidence.log_px, exact[rows], rtol=0, atol=1e-5)
        evidence = log_evidence(model, gap.local, x[rows], num_samples=4000)
        assert ((evidence.log_px - exact[rows]).abs() < 5 * evidence.standard_error).all()
    with pytest.raises(ValueError, match="row 1, counted from 0, is none of the 6 data that"):
        log_evidence(model, gap.local, torch.stack([x[0], x[0] + 1]))
    assert repr(gap.local) == "LocalPosterior(N=6)"


def test_rows_are_told_apart_by_their_context():
    """The same x of two contexts: each has its own posterior, N((x − c) / 2, ½)."""

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)

    def guide(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 1.0))

    x, c = number([1.0, 1.0]), number([0.0, 3.0])
    gap = inference_gap(model, guide, (x, c), num_steps=200)
    exact = dist.Normal(c, math.sqrt(2)).log_prob(x)
    assert torch.allclose(gap.log_px, exact, rtol=0, atol=1e-5)
    assert torch.allclose(gap.elbo_local, exact, rtol=0, atol=1e-3)
    turned = log_evidence(model, gap.full_rank, (x, c.flip(0)), num_samples=50)
    assert torch.allclose(turned.log_px, exact.flip(0), rtol=0, atol=1e-5)
    for same in (x, gap.local._args[0]):
        with pytest.raises(ValueError, match="row 0, counted from 0, is none of the 2 data"):
            gap.local(same, c + 1)


def test_a_pair_that_cannot_be_vectorized():
    oracle = LinearGaussian(2)
    model, guide = oracle.pair(shift=1.0)
    model.decoder = OneBatchDimension(model.decoder, 2)
    x = oracle.sample(4)
    gap = inference_gap(model, guide, x, num_steps=150, num_samples=500)
    exact = oracle.marginal.log_prob(x)
    assert torch.allclose(gap.log_px, exact, rtol=0, atol=1e-4)
    assert (gap.amortization > 0.5).all()
    evidence = log_evidence(model, gap.full_rank, x[[3, 1]], num_samples=50)
    assert torch.allclose(evidence.log_px, exact[[3, 1]], rtol=0, atol=1e-4)


def two_sites(x):
    """Independent given x: a Gamma of a count, and a location of a number."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(number(3.0), number(2.0)))
        scale = pyro.sample("scale", dist.LogNormal(number(0.0), number(1.0)))
        pyro.sample("count", dist.Poisson(rate), obs=x[:, 0])
        pyro.sample("size", dist.LogNormal(scale.log(), number(1.0)), obs=x[:, 1])


def guide_of_two_sites(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2.0 + 0 * x[:, 0], number(1.0)))
        pyro.sample("scale", dist.LogNormal(0 * x[:, 0], number(2.0)))


def test_two_sites_of_a_positive_kind_find_their_exact_posteriors():
    """p(rate|x) = Gamma(3 + x, 3) and p(scale|y) = LogNormal(½ log y, √½) lie in the guide's
    family, which is taken apart by its distributions' parameters: no approximation gap is left."""
    x = number([[0.0, 0.5], [2.0, 1.0], [7.0, 4.0]])
    gap = inference_gap(two_sites, guide_of_two_sites, x, num_steps=300, learning_rate=0.1)
    exact = dist.NegativeBinomial(number(3.0), probs=number(1 / 3)).log_prob(x[:, 0])
    exact = exact + dist.LogNormal(number(0.0), number(math.sqrt(2))).log_prob(x[:, 1])
    assert (gap.amortization > 0.1).all()
    assert gap.approximation.abs().max() < 0.01
    assert torch.allclose(gap.log_px, exact, rtol=0, atol=0.01)
    assert torch.allclose(gap.elbo_local, exact, rtol=0, atol=0.01)
    shape, rate, loc, scale = gap.local.parameters
    assert torch.allclose(shape.exp(), 3 + x[:, 0], rtol=0.05)
    assert torch.allclose(rate.exp(), number(3.0), rtol=0.05)
    assert torch.allclose(loc, x[:, 1].log() / 2, atol=0.05)
    assert torch.allclose(scale.exp(), number(math.sqrt(0.5)), rtol=0.05)


DISTRIBUTIONS = {
    "Gamma": lambda x: dist.Gamma(x[:, 0].exp(), number(2.0)),
    "LogNormal": lambda x: dist.LogNormal(x[:, 0], number(0.5)),
    "Laplace": lambda x: dist.Laplace(x, number(0.5)).to_event(1),
    "StudentT": lambda x: dist.StudentT(number(5.0), x, number([1.0, 2.0])).to_event(1),
    "MultivariateNormal": lambda x: dist.MultivariateNormal(
        x, covariance_matrix=number([[2.0, 0.5], [0.5, 1.0]])
    ),
    "MultivariateStudentT": lambda x: dist.MultivariateStudentT(
        number(4.0), x, number([[1.0, 0.0], [0.5, 2.0]])
    ),
    "LowRankMultivariateNormal": lambda x: dist.LowRankMultivariateNormal(
        x, x[:, :, None], x.exp()
    ),
    "Dirichlet": lambda x: dist.Dirichlet(x.exp()),
    "Beta": lambda x: dist.Beta(x[:, 0].exp(), number(2.0)),
    "twice an event": lambda x: dist.Normal(x[:, :, None], number(1.0)).to_event(1).to_event(1),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_taken_apart_and_put_together_again(name):
    """Densities are the guide's, with one set of parameters for each datum, in any order; they have
    gradients, and one datum's parameters move no other's."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(2)).double()
    distribution = DISTRIBUTIONS[name]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", distribution(x))

    local = own_family(guide, (x,))
    assert all(len(value) == 4 for value in local.parameters)

    def density(program, value, rows):
        return pyro.poutine.trace(pyro.condition(program, {"z": value})).get_trace(x[rows])

    def log_prob(trace):
        trace.compute_log_prob()
        return trace.nodes["z"]["log_prob"]

    value = distribution(x).sample()
    for rows in (slice(None), [2, 0], [1]):
        expected = distribution(x).log_prob(value)[rows]
        assert torch.allclose(log_prob(density(local, value[rows], rows)), expected, atol=1e-8)
    leaves = [one.clone().requires_grad_() for one in local.parameters]
    moved = log_prob(density(local.with_parameters(leaves), value, slice(None)))
    slopes = torch.autograd.grad(moved[1], leaves)
    assert any((slope[1] != 0).any() for slope in slopes)
    assert all((slope[[0, 2, 3]] == 0).all() for slope in slopes)


class Unnamed(dist.TorchDistribution):
    """A distribution of one's own that does not say what its parameters are."""

    support = dist.constraints.real
    has_rsample = True

    def __init__(self, loc):
        self.distribution = dist.Normal(loc, 1.0)
        super().__init__(loc.shape)

    def log_prob(self, value):
        return self.distribution.log_prob(value)

    def rsample(self, sample_shape=()):
        return self.distribution.rsample(sample_shape)


CLOSED = {
    "no parameters": lambda x: Unnamed(x[:, 0]),
    "a transformed distribution": lambda x: dist.TransformedDistribution(
        dist.Normal(x[:, 0], 1.0), [dist.transforms.ExpTransform()]
    ),
    "bounds": lambda x: dist.Uniform(x[:, 0], x[:, 0] + 1),
    "no gradient": lambda x: dist.Poisson(x[:, 0].exp()),
    "a temperature beside": lambda x: dist.RelaxedBernoulli(number(0.5), probs=x[:, 0].sigmoid()),
    "a mask": lambda x: dist.Normal(x[:, 0], 1.0).mask(x[:, 0] > 0),
}


WHY = {
    "no parameters": "Unnamed has no parameters that PyTorch knows",
    "a transformed distribution": "TransformedDistribution has no parameters",
    "bounds": "the support of Uniform moves with its parameters",
    "no gradient": "draws of Poisson have no gradient",
    "a temperature beside": "RelaxedBernoulli has no parameters that PyTorch knows, or more",
    "a mask": "MaskedDistribution has no parameters",
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_distribution_that_cannot_be_taken_apart_has_no_family(name):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", CLOSED[name](x))

    reason = own_family(guide, (torch.randn(4, 2).double(),))
    assert isinstance(reason, str)
    assert reason.startswith("in the guide's distribution of 'z', ")
    assert WHY[name] in reason


class TwoStage:
    """A linear Gaussian model whose z is two sites, the second a number."""

    def __init__(self):
        self.oracle = LinearGaussian(3, 4, 1.0)

    def model(self, x):
        zeros = x.new_zeros(len(x), 3)
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(zeros[:, :2], 1.0).to_event(1))
            low = pyro.sample("low", dist.Normal(zeros[:, 2], 1.0))
            z = torch.cat([top, low[..., None]], -1)
            distribution = dist.Normal(
                z @ self.oracle.weight.T + self.oracle.bias, self.oracle.scale
            )
            pyro.sample("x", distribution.to_event(1), obs=x)

    def dependent(self, x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.3 * x[:, :2], 0.8).to_event(1))
            pyro.sample("low", dist.Normal(0.2 * top.sum(-1), 0.9))

    def independent(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("top", dist.Normal(0.3 * x[:, :2], 0.8).to_event(1))
            pyro.sample("low", dist.Normal(0.2 * x[:, 0], 0.9))


def test_full_rank_over_two_sites_is_their_joint_posterior():
    """The joint posterior is normal: every weight is p(x), whatever the guide it starts from.

    Of the guide whose second site depends on the first no family is known; the rest is.
    """
    pair = TwoStage()
    x = pair.oracle.sample(5)
    exact = pair.oracle.marginal.log_prob(x)
    for guide in (pair.dependent, pair.independent):
        gap = inference_gap(pair.model, guide, x)
        assert torch.allclose(gap.log_px, exact, rtol=0, atol=1e-5)
        assert torch.allclose(gap.elbo_full_rank, exact, rtol=0, atol=1e-4)
        assert (gap.elbo_full_rank > gap.elbo + 0.1).all()
        known = guide == pair.independent
        assert (gap.local is not None) == known
        for part in (gap.elbo_local, gap.approximation, gap.amortization):
            assert (part.isfinite() if known else part.isnan()).all()
        assert gap.total.isfinite().all()
        # The density of draws of it is the posterior's.
        args = (x[:2],)
        space = latent_space(pair.model, gap.full_rank, args, inspect_pair(pair.model, guide, args))
        torch.manual_seed(0)
        with torch.no_grad():
            points, log_q = space.draw(gap.full_rank, 3)
        distribution = pair.oracle.posterior(args[0])
        assert torch.allclose(log_q, distribution.log_prob(points), rtol=0, atol=1e-3)


def test_full_rank_is_the_normal_of_its_parameters():
    """Drawn site by site, it has the density of one normal of mean m and Cholesky factor L."""
    pair = TwoStage()
    x = pair.oracle.sample(4)
    args = (x,)
    structure = inspect_pair(pair.model, pair.dependent, args)
    space = latent_space(pair.model, pair.dependent, args, structure)
    torch.manual_seed(0)
    local = full_rank(space, pair.dependent, 2000)
    mean, log_diagonal, below = local.parameters
    factor = torch.diag_embed(log_diagonal.exp())
    factor[:, [1, 2, 2], [0, 0, 1]] = below
    distribution = dist.MultivariateNormal(mean, scale_tril=factor)
    points, log_q = space.draw(local, 7)
    assert torch.allclose(log_q, distribution.log_prob(points), rtol=0, atol=1e-10)
    assert torch.allclose(space.log_density(local, points), log_q, rtol=0, atol=1e-10)
    # The moments of what it was made from, within 5 standard errors (false alarm 2e-5).
    exact = torch.tensor([[0.64, 0, 0.128], [0, 0.64, 0.128], [0.128, 0.128, 0.8612]]).double()
    assert torch.allclose(
        distribution.covariance_matrix, exact.expand(4, 3, 3), atol=5 * 0.9 * (2 / 2000) ** 0.5
    )
    expected = torch.cat([0.3 * x[:, :2], 0.06 * x[:, :2].sum(-1, keepdim=True)], -1)
    assert torch.allclose(mean, expected, atol=5 * 0.93 / 2000**0.5)


@pytest.mark.parametrize(
    "guide",
    [
        FullRankNormal(mlp(4, out=9), 3),
        NormalizingFlow(
            mlp(4, out=10),
            3,
            inverse(zuko.flows.MAF(3, 4, transforms=1, hidden_features=(8,))),
            context=4,
        ),
    ],
    ids=lambda guide: type(guide).__name__,
)
def test_the_pair_itself_is_left_as_it_was(guide):
    oracle = LinearGaussian(3, 4)
    model, _ = oracle.pair()
    guide = guide.double()
    before = [(value, value.clone()) for part in (model, guide) for value in part.parameters()]
    state = torch.random.get_rng_state()
    x = oracle.sample(3)
    first = inference_gap(model, guide, x, num_steps=20, num_samples=50, seed=1)
    again = inference_gap(model, guide, x, num_steps=20, num_samples=50, seed=1)
    other = inference_gap(model, guide, x, num_steps=20, num_samples=50, seed=2)
    assert torch.equal(first.elbo_local, again.elbo_local)
    assert torch.equal(first.elbo_full_rank, again.elbo_full_rank)
    assert not torch.equal(first.elbo, other.elbo)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, copy) and value.grad is None for value, copy in before)
    assert not any(value.requires_grad for value in first.local.parameters)


def inner_plate(x):
    with pyro.plate("data", len(x)), pyro.plate("parts", 2, dim=-2):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2, 1), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)


def guide_of_inner_plate(x):
    with pyro.plate("data", len(x)), pyro.plate("parts", 2, dim=-2):
        pyro.sample("z", dist.Normal(x.T / 2, 0.8))


def test_what_cannot_be_refined_is_refused_in_one_line():
    x = torch.zeros(3, 2).double()
    for name, least in (("num_steps", 1), ("num_draws", 1), ("num_samples", 2)):
        with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {least - 1}$"):
            inference_gap(two_sites, guide_of_two_sites, x, **{name: least - 1})
    with pytest.raises(ValueError, match="plate of its own to the left of the data"):
        inference_gap(inner_plate, guide_of_inner_plate, x)
