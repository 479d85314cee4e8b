"""Contract of guides."""

import math

import pyro
import pytest
import torch
from torch import nn

import latente.guides
from latente.guides import DiagonalNormal
from latente.models import mlp

GUIDES = {"DiagonalNormal": lambda k, d: DiagonalNormal(mlp(d, 6, out=2 * k), k)}


def test_every_exported_guide_is_under_contract():
    assert set(latente.guides.__all__) == {name.split()[0] for name in GUIDES}


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
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
    assert torch.allclose(trace.nodes["z"]["log_prob"], posterior.log_prob(z))

    (guide.posterior(x).rsample() ** 3).sum().backward()
    assert all((p.grad != 0).any() for p in guide.parameters())

    with pyro.plate("samples", 4, dim=-2):
        assert guide(x).shape == (4, 7, 2)

    again = make(2, 5).double()
    again.load_state_dict(guide.state_dict())
    assert torch.equal(again.posterior(x).log_prob(z), posterior.log_prob(z))
    assert "latent_dim=2" in repr(guide)
    with pytest.raises(ValueError, match="at least 1"):
        make(0, 5)


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_guide_density_integrates_to_one(make, latent_dim):
    guide = make(latent_dim, 3).double()
    posterior = guide.posterior(torch.randn(1, 3).double())
    grid = torch.linspace(-25, 25, 701).double()
    points = torch.cartesian_prod(*[grid] * latent_dim).reshape(-1, 1, latent_dim)
    density = posterior.log_prob(points).exp().reshape([701] * latent_dim)
    for _ in range(latent_dim):
        density = torch.trapezoid(density, grid)
    assert density.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_guide_sample_and_density_agree(make):
    """E_q[1 / q(z)] over a box of volume V that q fills is V; z-test, false alarm 6e-5."""
    guide = make(1, 3).double()
    with torch.no_grad():
        posterior = guide.posterior(torch.randn(1, 3).double())
        z = posterior.sample((200_000,))
        mean, sd = posterior.mean, posterior.stddev
        inside = ((z - mean).abs() < sd).squeeze(-1)
        weights = torch.where(inside, (-posterior.log_prob(z)).exp(), 0.0).flatten()
        error = weights.std() / math.sqrt(len(weights))
        assert abs(weights.mean() - 2 * sd.item()) < 4 * error


def test_diagonal_normal_is_mu_plus_sigma_epsilon():
    features = torch.tensor([[1.0, -2.0, math.log(0.5), math.log(3.0)]]).double()
    guide = DiagonalNormal(nn.Identity(), 2)
    posterior = guide.posterior(features)
    torch.manual_seed(3)
    z = posterior.rsample()
    torch.manual_seed(3)
    noise = torch.normal(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    assert torch.allclose(z, torch.tensor([[1.0, -2.0]]) + torch.tensor([[0.5, 3.0]]) * noise)


def test_an_encoder_of_another_width_is_refused():
    guide = DiagonalNormal(mlp(3, out=3), 2)
    with pytest.raises(ValueError, match=r"takes 4 encoder features .* give it out=4"):
        guide.posterior(torch.zeros(1, 3))


def test_an_encoder_that_keeps_a_dimension_of_the_data_is_refused():
    guide = DiagonalNormal(mlp(16, out=4), 2)
    with pytest.raises(ValueError, match=r"one row a datum; an mlp takes .* mlp\(\(1, 4, 4\), …\)"):
        guide.posterior(torch.zeros(7, 1, 4, 4))
    guide = DiagonalNormal(mlp((1, 4, 4), out=4), 2)
    assert guide.posterior(torch.zeros(7, 1, 4, 4)).batch_shape == (7,)
