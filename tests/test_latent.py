"""Unconstrained coordinates of latent sites: densities by hand, by traces and by quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate
from torch.distributions import biject_to

from latente.guides import DiagonalNormal, PointPosterior
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.latent_space import latent_space
from latente.inference.pairs.log_terms import draw, score
from latente.models import VAE, FlowPrior, Normal, NormalMixture, StandardNormal, mlp
from latente.models._zuko import zuko

from .oracles import LinearGaussian, OneBatchDimension, empty

X = torch.tensor([[0.3, 1.1], [2.0, 0.4], [0.7, 0.9]], dtype=torch.float64)


def number(value):
    return X.new_tensor(value)


def pair_of(prior, posterior):
    """A model of one latent site, whose sum moves x; and a guide of it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            total = z.reshape(*z.shape[: z.dim() - prior(x).event_dim], -1).sum(-1)
            pyro.sample("x", dist.Normal(total[..., None], number([1.0, 2.0])).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    return model, guide


ONE, TWO = torch.ones(1).double(), torch.ones(2).double()
LAWS = {
    "real": (
        lambda x: dist.Laplace(number(0.5), number(1.5)),
        lambda x: dist.Normal(x[:, 0], number(0.6)),
    ),
    "real vector": (
        lambda x: dist.MultivariateNormal(TWO, torch.eye(2).double() + 0.3),
        lambda x: dist.Normal(x, 0.5 * TWO).to_event(1),
    ),
    "positive": (
        lambda x: dist.Gamma(number(2.0), number(1.5)),
        lambda x: dist.LogNormal(x[:, 1] - 1, number(0.5)),
    ),
    "interval": (
        lambda x: dist.Uniform(-1.0 * TWO, 3.0 * TWO).to_event(1),
        lambda x: dist.TransformedDistribution(
            dist.Normal(x, TWO), biject_to(dist.constraints.interval(-1.0, 3.0))
        ).to_event(1),
    ),
    "above": (
        lambda x: dist.Pareto(number(2.0), number(3.0)),
        lambda x: dist.TransformedDistribution(
            dist.Exponential(x[:, 0]), [dist.transforms.AffineTransform(2.0, 1.0)]
        ),
    ),
    "simplex": (
        lambda x: dist.Dirichlet(number([1.0, 2.0, 3.0])),
        lambda x: dist.Dirichlet(torch.cat([x, x[:, :1] + 1], -1) + 0.5),
    ),
    "matrix": (
        lambda x: dist.Normal(torch.zeros(2, 3).double(), number(1.0)).to_event(2),
        lambda x: dist.Normal(x[:, :, None].expand(-1, 2, 3), number(0.4)).to_event(2),
    ),
}


def space_of(model, guide, x=X):
    return latent_space(model, guide, (x,), inspect_pair(model, guide, (x,)))


def check_terms(model, guide, num_samples, x=X):
    """Draws of the guide, there and back, scored as coordinates and as traces: to 1e-10."""
    structure = inspect_pair(model, guide, (x,))
    space = latent_space(model, guide, (x,), structure)
    draws = draw(guide, (x,), num_samples, structure)
    terms = score(model, draws)
    points, log_q = space.read(draws)
    assert (
        points.shape == (num_samples, len(x), space.size) == (num_samples, len(x), len(space.names))
    )
    moved, log_det = space.at(points)
    for site in space.sites:
        again, value = moved.trace.nodes[site.name]["value"], draws.trace.nodes[site.name]["value"]
        assert again.shape == value.shape
        assert torch.allclose(again, value, rtol=0, atol=1e-10)
    log_likelihood, log_prior = space.log_joint(points)
    close = {"rtol": 0, "atol": 1e-10}
    assert torch.allclose(log_likelihood, terms.log_likelihood, **close)
    assert torch.allclose(log_prior - log_det, terms.log_prior, **close)
    assert torch.allclose(log_q - log_det, terms.log_posterior, **close)
    assert torch.allclose(space.log_density(guide, points), log_q, **close)
    return space, points, log_det


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("name", LAWS)
def test_densities_of_coordinates_are_those_of_the_traces(name, num_samples):
    model, guide = pair_of(*LAWS[name])
    space, _, log_det = check_terms(model, guide, num_samples)
    assert space.structure.vectorized
    if name.startswith("real") or name == "matrix":
        assert (log_det == 0).all()


@pytest.mark.parametrize("name", LAWS)
def test_the_jacobian_is_that_of_automatic_differentiation(name):
    """log |dz/du| of one datum, by the determinant of what autograd says; a simplex without its
    last part."""
    space = space_of(*pair_of(*LAWS[name]))
    torch.manual_seed(1)
    points = torch.randn(1, len(X), space.size).double()

    def first(u):
        return space.values(u[None, None])["z"].flatten()[: space.size]

    matrix = torch.autograd.functional.jacobian(first, points[0, 1])
    assert space.at(points)[1][0, 1].item() == pytest.approx(
        torch.linalg.slogdet(matrix).logabsdet.item(), abs=1e-10
    )


def test_coordinates_by_hand():
    """A positive site is its logarithm, a simplex of three two numbers, a site of one its name."""
    model, guide = pair_of(*LAWS["positive"])
    space = space_of(model, guide)
    assert space.names == ["z"]
    points = torch.tensor([[[0.1], [-2.0], [3.0]]]).double()
    assert torch.equal(space.values(points)["z"], points[..., 0].exp())
    _, log_prior = space.log_joint(points)
    by_hand = dist.Gamma(number(2.0), number(1.5)).log_prob(points.exp()) + points
    assert torch.allclose(log_prior, by_hand[..., 0], rtol=0, atol=1e-12)
    assert space_of(*pair_of(*LAWS["simplex"])).names == ["z[0]", "z[1]"]
    assert space_of(*pair_of(*LAWS["matrix"])).names == [f"z[{index}]" for index in range(6)]


def test_a_density_of_coordinates_integrates_to_the_same_as_that_of_the_site():
    """∫ exp(log p(u)) du = 1 and ∫ exp(log p(x, u)) du = p(x), of a Gamma site, by quadrature."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(number(3.0), number(2.0)))
            pyro.sample("count", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(3.0 + x, number(3.0)))

    x = number([4.0])
    space = space_of(model, guide, x)

    def density(u, joint, program=model):
        point = number(u).reshape(1, 1, 1)
        if program is guide:
            return space.log_density(guide, point).exp().item()
        log_likelihood, log_prior = space.log_joint(point)
        return (log_prior + joint * log_likelihood).exp().item()

    assert integrate.quad(density, -15, 5, (0.0,))[0] == pytest.approx(1, abs=1e-6)
    assert integrate.quad(density, -15, 5, (0.0, guide))[0] == pytest.approx(1, abs=1e-6)
    # The exact p(x): negative binomial of 3 and 1 / (1 + 2).
    exact = dist.NegativeBinomial(number(3.0), probs=number(1 / 3)).log_prob(x).exp().item()
    assert integrate.quad(density, -15, 5, (1.0,))[0] == pytest.approx(exact, abs=1e-6)
    points = torch.zeros(1, 1, 1).double().requires_grad_()
    sum(space.log_joint(points)).sum().backward()
    # d/du of −λ + 4 log λ + 3 log λ − 2 λ at u = log λ = 0.
    assert points.grad.item() == pytest.approx(-1 + 4 + 3 - 2, abs=1e-10)


def two_sites(x):
    """A scalar, and a simplex that depends on it."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(number(2.0), number(1.0)))
        parts = pyro.sample("parts", dist.Dirichlet(rate[..., None] * number([1.0, 2.0, 0.5])))
        mean = rate[..., None] * parts[..., :2]
        pyro.sample("x", dist.Normal(mean, number(0.5)).to_event(1), obs=x)


def guide_of_two_sites(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.LogNormal(x[:, 0].log(), number(0.3)))
        shape = torch.stack(torch.broadcast_tensors(rate, x[:, 0], x[:, 1]), -1)
        pyro.sample("parts", dist.Dirichlet(shape + 1))


@pytest.mark.parametrize("num_samples", [1, 4])
def test_two_sites(num_samples):
    space, points, _ = check_terms(two_sites, guide_of_two_sites, num_samples)
    assert space.names == ["rate", "parts[0]", "parts[1]"]
    values = space.values(points)
    assert values["rate"].shape == (num_samples, 3)
    assert values["parts"].shape == (num_samples, 3, 3)
    assert torch.allclose(values["parts"].sum(-1), torch.ones(num_samples, 3).double())


def inner_plate(x):
    """Two numbers of three in a plate of each datum, beside one of its own."""
    with pyro.plate("data", len(x)):
        scale = pyro.sample("scale", dist.Gamma(number(2.0), number(2.0)))
        with pyro.plate("parts", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(3).double(), number(1.0)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), scale), obs=x.T)


def guide_of_inner_plate(x):
    with pyro.plate("data", len(x)):
        pyro.sample("scale", dist.Gamma(number(3.0), number(2.0) + x[:, 1]))
        with pyro.plate("parts", 2, dim=-2):
            mean = x[:, :1] * number([1.0, 0.1, -0.2])
            pyro.sample("z", dist.Normal(mean, number(0.7)).to_event(1))


@pytest.mark.parametrize("num_samples", [1, 4])
def test_an_inner_plate(num_samples):
    space, points, _ = check_terms(inner_plate, guide_of_inner_plate, num_samples)
    assert space.structure.nesting == 2
    assert space.names == ["scale", *[f"z[{index}]" for index in range(6)]]
    assert space.values(points)["z"].shape == (num_samples, 3, 2, 3)
    # Coordinate 3 of z is the first of the second part: it moves only the second number of x.
    moved = points.clone()
    moved[..., 1 + 3] += 1
    found = space.values(moved)["z"] - space.values(points)["z"]
    assert torch.allclose(found.sum((0, 1)), num_samples * 3 * number([[0, 0, 0], [1, 0, 0]]))


@pytest.mark.parametrize("num_samples", [1, 4])
def test_a_pair_that_cannot_be_vectorized(num_samples):
    oracle = LinearGaussian(2)
    vae, guide = oracle.pair()
    vae.decoder = OneBatchDimension(vae.decoder, 2)
    space, points, _ = check_terms(vae, guide, num_samples, oracle.sample(3))
    assert not space.structure.vectorized
    assert torch.allclose(sum(space.log_joint(points)), exact_joint(oracle, points, space.args[0]))


def exact_joint(oracle, points, x):
    mean = points @ oracle.weight.T + oracle.bias
    log_likelihood = dist.Normal(mean, oracle.scale).log_prob(x).sum(-1)
    return log_likelihood + dist.Normal(0.0, 1.0).log_prob(points).sum(-1)


def test_locate_reads_the_values_of_a_run():
    for model, guide in ((two_sites, guide_of_two_sites), (inner_plate, guide_of_inner_plate)):
        space = space_of(model, guide)
        trace = poutine.trace(model).get_trace(X)
        values = {site.name: trace.nodes[site.name]["value"] for site in space.sites}
        points = space.locate(values)
        assert points.shape == (1, 3, space.size)
        draws, _ = space.at(points)
        for name, value in values.items():
            assert torch.allclose(draws.trace.nodes[name]["value"], value, rtol=0, atol=1e-10)


def test_draws_of_the_prior_have_its_density():
    space = space_of(two_sites, guide_of_two_sites)
    points, log_density = space.draw(two_sites, 5)
    assert torch.allclose(space.log_joint(points)[1], log_density, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "prior",
    [
        StandardNormal(2),
        NormalMixture(2, 3),
        FlowPrior(zuko.flows.NSF(2, transforms=1, hidden_features=(8,))),
    ],
    ids=lambda p: type(p).__name__,
)
def test_our_priors_have_coordinates(prior):
    model = VAE(prior, mlp(2, 8, out=2), Normal((2,), 0.5)).double()
    guide = DiagonalNormal(mlp(2, 8, out=4), 2).double()
    with torch.no_grad():
        space = space_of(model, guide)
        points, _ = space.draw(guide, 4)
        terms = score(model, space.at(points)[0])
    assert torch.allclose(space.log_joint(points)[1], terms.log_prior, rtol=0, atol=1e-10)


def discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(number(0.5)))
        pyro.sample("x", dist.Normal(number([0.0, 0.0]), 1.0).to_event(1), obs=x)


def guide_of_discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Bernoulli(number(0.5)))


def nothing_latent(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(number([0.0, 0.0]), 1.0).to_event(1), obs=x)


def between(low, high):
    return pair_of(lambda x: dist.Uniform(low(x), high(x)), lambda x: dist.Uniform(low(x), high(x)))


def depends_on_another(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Gamma(number(2.0), number(1.0)))
        z = pyro.sample("z", dist.Uniform(torch.zeros_like(top), top))
        pyro.sample("x", dist.Normal(z[..., None], TWO).to_event(1), obs=x)


def depends_on_another_guide(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Gamma(number(2.0), number(1.0)))
        pyro.sample("z", dist.Uniform(torch.zeros_like(top), top))


REFUSED = {
    "'kind' is discrete": (discrete, guide_of_discrete),
    "puts 'z' on one point": (
        VAE(StandardNormal(2), mlp(2, out=2), Normal((2,), 1.0)).double(),
        PointPosterior(mlp(2, out=2), 2).double(),
    ),
    "nothing is latent in the plate 'data'": (nothing_latent, empty),
    "support of 'z' is not the same for all data and dimensions": between(
        lambda x: 0 * x[:, 0], lambda x: x[:, 0]
    ),
    "draws 'z' where its prior has no mass": pair_of(
        lambda x: dist.Gamma(number(1.0), number(1.0)), lambda x: dist.Normal(0 * x[:, 0] - 9, ONE)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_coordinates_is_refused_in_one_line(message):
    with pytest.raises(ValueError, match=message) as caught, torch.no_grad():
        space_of(*REFUSED[message])
    assert "\n" not in str(caught.value)


class Even(dist.Normal):
    """A distribution of real numbers that says it lies elsewhere."""

    support = dist.constraints.Constraint()
    support.check = lambda value: value == value


def test_a_support_without_a_bijection_is_refused():
    model, guide = pair_of(lambda x: Even(0 * ONE, ONE), lambda x: dist.Normal(x[:, 0], ONE))
    with pytest.raises(ValueError, match=r"no bijection .* to the support of 'z', .*"):
        space_of(model, guide)


def test_a_support_that_differs_from_run_to_run_is_refused():
    """Of one datum, only a second run shows it."""
    with pytest.raises(ValueError, match="support of 'z' is not the same at two draws"):
        space_of(depends_on_another, depends_on_another_guide, X[:1])


def test_equal_bounds_spread_over_data_are_one_support():
    space = space_of(*between(lambda x: 0 * x[:, 0] - 1, lambda x: 0 * x[:, 0] + 2))
    values = space.values(torch.tensor([-50.0, 0.0, 50.0]).double().reshape(3, 1, 1))["z"]
    assert np.allclose(values.flatten(), [-1, 0.5, 2])
    assert math.isclose(space.at(torch.zeros(1, 3, 1).double())[1][0, 0], math.log(3 / 4))
