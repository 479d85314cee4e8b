"""Contracts of likelihoods, priors, networks and models."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import constraints
from torch import nn

import latente.models
from latente.models import (
    VAE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    FlattenEvent,
    Likelihood,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    Poisson,
    StandardNormal,
    StudentT,
    mlp,
)

from .test_priors import PRIORS


def learned(value, shape=()):
    return nn.Parameter(torch.full(shape, value))


LIKELIHOODS = {
    "Bernoulli": lambda shape: Bernoulli(shape),
    "Normal fixed": lambda shape: Normal(shape, scale=0.5),
    "Normal learned": lambda shape: Normal(shape, scale=nn.Parameter(torch.tensor(0.5))),
    "Normal learned each": lambda shape: Normal(shape, scale=nn.Parameter(torch.ones(shape))),
    "Normal predicted": lambda shape: Normal(shape, scale=None),
    "DiscretizedLogistic": lambda shape: DiscretizedLogistic(shape),
    "DiscretizedLogistic mixture": lambda shape: DiscretizedLogistic(shape, 3, levels=16),
    "DiscretizedLogistic bits": lambda shape: DiscretizedLogistic(shape, 2, levels=2),
    "Categorical": lambda shape: Categorical(shape, num_classes=4),
    "Ordinal": lambda shape: Ordinal(shape, num_classes=4),
    "Ordinal bits": lambda shape: Ordinal(shape, num_classes=2),
    "LogNormal fixed": lambda shape: LogNormal(shape, scale=0.5),
    "LogNormal learned each": lambda shape: LogNormal(shape, scale=learned(0.5, shape)),
    "LogNormal predicted": lambda shape: LogNormal(shape, scale=None),
    "ContinuousBernoulli": lambda shape: ContinuousBernoulli(shape),
    "Poisson": lambda shape: Poisson(shape),
    "NegativeBinomial fixed": lambda shape: NegativeBinomial(shape, total_count=2.5),
    "NegativeBinomial learned": lambda shape: NegativeBinomial(shape, learned(2.5)),
    "NegativeBinomial learned each": lambda shape: NegativeBinomial(shape, learned(2.5, shape)),
    "NegativeBinomial predicted": lambda shape: NegativeBinomial(shape, total_count=None),
    "StudentT fixed": lambda shape: StudentT(shape, df=3.0, scale=0.5),
    "StudentT learned": lambda shape: StudentT(shape, df=learned(3.0), scale=learned(0.5)),
    "StudentT learned each": lambda shape: StudentT(
        shape, learned(3.0, shape), learned(1.0, shape)
    ),
    "StudentT predicted": lambda shape: StudentT(shape, scale=None),
}


def test_every_exported_part_is_under_contract():
    exported = {
        name
        for name in latente.models.__all__
        if isinstance(getattr(latente.models, name), type)
        and issubclass(getattr(latente.models, name), nn.Module)
    }
    under_contract = {name.split()[0] for name in (*LIKELIHOODS, *PRIORS)}
    models = {"VAE", "PPCA", "FactorAnalysis", "GaussianMixture", "Autoregressive"}
    models |= {"Hierarchy", "Level", "Concatenation", "Stages"}  # test_hierarchies.py
    models |= {"Addition", "Maps", "ResidualBlock"}  # test_map_levels.py
    models |= {"StateSpaceModel", "GatedTransition", "LinearTransition"}  # test_state_space.py
    models |= {"UniformCodes", "CodeGrid"}  # a mass, no density: test_codes.py
    models |= {"AutoregressiveCodes", "Codebook", "Codes", "UniformConcrete"}  # test_codebooks.py
    networks = {"FeatureBias", "FlattenEvent", "Conditional", "OneHot", "ColumnFeatures"}
    networks |= {"AutoregressiveLikelihood"}  # no product over elements: test_autoregressive.py
    networks |= {"AutoregressiveNetwork", "MaskedMLP", "PixelCNN"}  # test_pixel_cnn.py
    networks |= {"StraightThrough"}  # test_codebooks.py
    networks |= {"ColumnLikelihood"}  # of one shape: test_columns.py
    networks |= {"RecurrentReader", "Combiner"}  # of sequences: test_state_space.py
    networks |= {"RecurrentLikelihood", "SequenceEncoder"}  # of sequences: test_text.py
    networks |= {"HalfLabelled"}  # test_half_known_labels.py
    networks |= {"DrawDecoder", "GaussianAttention"}  # test_draw.py
    assert exported == under_contract | models | networks | {"Likelihood"}


@pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), ()])
def test_likelihood_contract(make, shape):
    likelihood = make(shape).double()
    for batch in [(), (5,), (4, 5)]:
        features = torch.randn(*batch, likelihood.num_features).double()
        distribution = likelihood(features)
        assert distribution.batch_shape == batch
        assert distribution.event_shape == shape
        assert distribution.sample().shape == (*batch, *shape)
    features = torch.randn(7, likelihood.num_features).double().requires_grad_()
    distribution = likelihood(features)
    distribution.log_prob(distribution.sample()).sum().backward()
    assert (features.grad != 0).all()
    assert all((p.grad != 0).all() for p in likelihood.parameters())
    again = make(shape).double()
    again.load_state_dict(likelihood.state_dict())
    value = distribution.sample()
    assert torch.equal(again(features).log_prob(value), distribution.log_prob(value))
    assert str(shape) in repr(likelihood)
    with pytest.raises(ValueError, match=f"give it out={likelihood.num_features}"):
        likelihood(torch.zeros(2, likelihood.num_features + 1))


def quadrature(support):
    """Points and weights, in float64, that integrate over a support, or sum over it."""
    if support.is_discrete:
        levels = getattr(support, "levels", None)
        values = torch.arange(levels or 5_000).double() / ((levels or 2) - 1)
        values = values[support.check(values)]
        return values, torch.ones_like(values)
    if support is constraints.unit_interval:
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(60))
        return (1 + nodes) / 2, weights / 2
    if support is constraints.positive:
        steps = torch.linspace(-40, 40, 20_001, dtype=torch.float64)
        return steps.exp(), steps.exp() * (steps[1] - steps[0])
    steps = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    return steps.sinh(), steps.cosh() * (steps[1] - steps[0])  # far enough for Student's tails


@pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_likelihood_density_integrates_to_one(make):
    likelihood = make((1,)).double()
    distribution = likelihood(torch.randn(likelihood.num_features).double())
    points, weights = quadrature(distribution.support.base_constraint)
    total = distribution.log_prob(points[:, None]).exp() @ weights
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_bernoulli_by_hand():
    features = torch.tensor([0.3, -1.2, 2.0]).double()
    x = torch.tensor([1.0, 0.0, 1.0]).double()
    p = [1 / (1 + math.exp(-f)) for f in features.tolist()]
    by_hand = math.log(p[0]) + math.log(1 - p[1]) + math.log(p[2])
    assert Bernoulli((3,))(features).log_prob(x).item() == pytest.approx(by_hand, abs=1e-12)


def test_predicted_scale_is_a_standard_deviation():
    # Features (μ, log σ) = (1, log 3): the errata's diag(σ) against diag(σ²), for x.
    distribution = Normal((1,), scale=None)(torch.tensor([1.0, math.log(3.0)]).double())
    by_hand = -0.5 * math.log(2 * math.pi) - math.log(3) - 0.5 * ((2.5 - 1) / 3) ** 2
    assert distribution.log_prob(torch.tensor([2.5]).double()).item() == pytest.approx(
        by_hand, abs=1e-7
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, nn.Parameter(torch.tensor([1.0, -1.0]))])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match="must be positive"):
        Normal((2,), scale=scale)


def test_a_scale_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="does not fit data of shape"):
        Normal((2,), scale=nn.Parameter(torch.ones(3)))


def test_mlp_flattens_what_it_must_and_no_more():
    net = mlp(12, 5, out=2)
    assert net(torch.zeros(7, 3, 4)).shape == (7, 2)
    assert net(torch.zeros(6, 7, 3, 4)).shape == (6, 7, 2)
    assert net(torch.zeros(12)).shape == (2,)
    with pytest.raises(ValueError, match=r"network of 12 inputs got a tensor of shape \(7, 5\)"):
        net(torch.zeros(7, 5))
    with pytest.raises(ValueError, match="at least 1"):
        mlp(3, 0, out=1)
    assert repr(FlattenEvent(12)) == "FlattenEvent(12)"
    shaped = mlp((1, 3, 4), 5, out=2)
    assert shaped(torch.zeros(6, 7, 1, 3, 4)).shape == (6, 7, 2)
    with pytest.raises(ValueError, match=r"inputs \(1, 3, 4\) got a tensor of shape \(7, 3, 4\)"):
        shaped(torch.zeros(7, 3, 4))


def test_vae_keeps_to_the_contract(make_pair):
    vae, _ = make_pair()
    trace = pyro.poutine.trace(vae).get_trace(torch.zeros(5, 4, 4))
    for name in ("z", "x"):
        (frame,) = trace.nodes[name]["cond_indep_stack"]
        assert (frame.name, frame.dim, frame.size) == ("data", -1, 5)
    assert trace.nodes["x"]["is_observed"]
    assert not trace.nodes["z"]["is_observed"]


@pytest.mark.parametrize("shape", [(5, 16), (4, 4), (5, 2, 8), (5, 4, 4, 1)])
def test_vae_refuses_data_of_another_shape(make_pair, shape):
    vae, _ = make_pair()
    with pytest.raises(ValueError, match=r"takes data of shape \(N, 4, 4\), got"):
        vae(torch.zeros(shape))


def test_a_likelihood_of_ones_own():
    class Poisson(Likelihood):
        def distribution(self, *blocks):
            return pyro.distributions.Poisson(blocks[0].exp())

    vae = VAE(StandardNormal(1), mlp(1, out=3), Poisson((3,)))
    trace = pyro.poutine.trace(vae).get_trace(torch.tensor([[0.0, 3.0, 1.0]]))
    assert trace.nodes["x"]["fn"].event_shape == (3,)
