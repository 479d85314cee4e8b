"""What diagnose refuses, each in one line that names the site."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.guides import PointPosterior
from latente.inference import Budget, diagnose
from latente.models import mlp

from .oracles import LinearGaussian


def bad_pairs():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, name="z"):
        with pyro.plate("data", len(x)):
            pyro.sample(name, dist.Normal(x / 2, 1.0))

    def half(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.HalfNormal(torch.ones(len(x))))

    def unplated(x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def misnamed(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    def unobserved(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))

    def infinite(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("wall", torch.full_like(z, -math.inf))

    def undefined(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            distribution = dist.Normal(z, 1.0, validate_args=False)
            pyro.sample("reading", distribution, obs=x * math.nan)

    return {
        "guide samples 'y', which the model does not|samples 'z', which the guide does not": (
            model, lambda x: guide(x, "y"),
        ),
        "'z', HalfNormal, has no mass where the prior has": (model, half),
        "'z' is inside the plate 'data' in the model, and not in the guide": (model, misnamed),
        "'z' has 5 log densities at dimension -1, where there is no plate": (unplated, guide),
        "observes nothing: with these arguments all its sites are latent \\('z'\\)": (
            unobserved, guide,
        ),
        "all zero: the log density of 'wall' in the model": (infinite, guide),
        "all zero: the log density of 'reading' in the model, Normal, is nan": (undefined, guide),
    }  # fmt: skip


@pytest.mark.parametrize("message", bad_pairs())
def test_bad_pairs_are_refused_in_one_line_that_names_the_site(message):
    with pytest.raises(ValueError, match=message) as caught:
        diagnose(*bad_pairs()[message], torch.linspace(-1, 1, 5))
    assert "\n" not in str(caught.value)


def test_points_one_sample_and_bad_data_are_refused():
    oracle = LinearGaussian(2, orthogonal=True)
    model, guide = oracle.pair()
    point = PointPosterior(mlp(8, out=2), 2).double()
    with pytest.raises(ValueError, match="'z' on one point: there is no posterior to be judged"):
        diagnose(model, point, oracle.sample(10))
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        Budget(num_samples=1)
    with pytest.raises(ValueError, match="nuts_data must be at least 0, got -1"):
        Budget(nuts_data=-1)
    x = oracle.sample(10)
    x[3, 0] = math.nan
    with pytest.raises(ValueError, match="data holds NaN or infinity in row 3"):
        diagnose(model, guide, x)
    with pytest.raises(ValueError, match="data holds no rows"):
        diagnose(model, guide, x[:0])
