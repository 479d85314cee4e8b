"""Scales that cannot overflow, of priors and posteriors of a deep hierarchy."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal, PrecisionWeighted, Residual, TopDown
from latente.inference import fit
from latente.models import Bernoulli, ConditionalNormal, Hierarchy, StandardNormal, mlp

FEATURES = torch.tensor([[0.5, -0.5, 200.0, -200.0]])  # means 0.5, −0.5; log scales ± 200
PRIOR = dist.Normal(torch.zeros(1, 2), 2.0).to_event(1)

PARTS = {
    "prior": (ConditionalNormal, lambda part: part(FEATURES)),
    "DiagonalNormal": (DiagonalNormal, lambda part: part.posterior(FEATURES)),
    "PrecisionWeighted": (
        PrecisionWeighted,
        lambda part: part.posterior_of_level(FEATURES, (), PRIOR),
    ),
    "Residual": (Residual, lambda part: part.posterior_of_level(FEATURES, (), PRIOR)),
}
EXPECTED = {
    "prior": [math.exp(5), math.exp(-5)],
    "DiagonalNormal": [math.exp(5), math.exp(-5)],
    "PrecisionWeighted": [(1 / 4 + math.exp(-10)) ** -0.5, (1 / 4 + math.exp(10)) ** -0.5],
    "Residual": [2 * math.exp(5), 2 * math.exp(-5)],
}


@pytest.mark.parametrize("name", PARTS)
def test_a_scale_stays_within_its_bounds(name):
    make, read = PARTS[name]
    found = read(make(nn.Identity(), 2, max_log_scale=5.0))
    assert found.stddev[0].tolist() == pytest.approx(EXPECTED[name], rel=1e-5)
    with pytest.raises(ValueError, match="max_log_scale must be positive, got 0"):
        make(nn.Identity(), 2, max_log_scale=0.0)


def deep(max_log_scale):
    """Five levels, each of whose scale follows from the draw above it by a large factor."""
    bound = {"max_log_scale": max_log_scale}
    levels = {"z5": StandardNormal(2)}
    levels |= {f"z{n}": ConditionalNormal(mlp(2, out=4), 2, **bound) for n in (4, 3, 2, 1)}
    posteriors = {"z5": DiagonalNormal(mlp(16, out=4), 2, **bound)}
    posteriors |= {f"z{n}": Residual(mlp(16, out=4), 2, **bound) for n in (4, 3, 2, 1)}
    with torch.no_grad():
        for level in list(levels.values())[1:]:
            level.network[-1].weight *= 8
    model = Hierarchy(levels, mlp(2, out=16), Bernoulli((4, 4)))
    return model, TopDown(posteriors, levels)


def test_five_levels_start_where_a_bound_keeps_their_scales(binary_images):
    """Without a bound the first draws already have no scale; with it they are fitted."""
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="scale"):
        deep(max_log_scale=None)
    torch.manual_seed(0)
    pair = deep(max_log_scale=1.0)
    options = {"epochs": 2, "batch_size": 50, "show_progress": False}
    run = fit(*pair, binary_images, **options)
    assert all(math.isfinite(row["elbo"]) for row in run.history)
    assert run.history[1]["elbo"] > run.history[0]["elbo"]
