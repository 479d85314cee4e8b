"""The deterministic autoencoder: a point for a posterior, and no KL."""

import math

import pytest
import torch
from pyro.infer import Trace_ELBO

from latente.guides import DiagonalNormal, PointPosterior
from latente.inference import Beta_ELBO, ScoreFunction_ELBO, evaluate, fit, log_evidence, plot_all
from latente.inference.cli.evaluate import tabulate_evaluation
from latente.models import VAE, Normal, StandardNormal, mlp


def pair(seed=0, width=2):
    torch.manual_seed(seed)
    model = VAE(StandardNormal(width), mlp(width, out=5), Normal((5,), 0.5))
    return model, PointPosterior(mlp(5, out=width), width)


def data():
    return torch.randn(200, 2) @ torch.randn(2, 5) + 0.1 * torch.randn(200, 5)


def test_the_guide_keeps_to_the_contract():
    guide = PointPosterior(mlp(5, 6, out=2), 2)
    distribution = guide.posterior(torch.randn(7, 5))
    assert (distribution.batch_shape, distribution.event_shape) == ((7,), (2,))
    distribution.rsample().sum().backward()
    assert all((p.grad != 0).any() for p in guide.parameters())
    assert repr(guide).startswith("PointPosterior(")
    with pytest.raises(ValueError, match="give it out=2"):
        PointPosterior(mlp(5, out=4), 2)(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="at least 1"):
        PointPosterior(mlp(5, out=1), 0)


def test_a_linear_autoencoder_is_principal_component_analysis():
    """With a normal likelihood and linear networks the least squared error is PCA's."""
    x = data().double()
    x = x - x.mean(0)
    model, guide = (part.double() for part in pair())
    run = fit(model, guide, x, epochs=400, batch_size=200, learning_rate=0.04,
              show_progress=False)  # fmt: skip
    left = torch.linalg.svdvals(x)[2:].square().sum() / len(x)
    best = -0.5 * left.item() / 0.5**2 - 5 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    assert run.history[-1]["reconstruction"] == pytest.approx(best, abs=1e-3)


def test_autoencoder_and_vae_are_one_argument_apart():
    x = data()
    model, guide = pair()
    run = fit(model, guide, x, epochs=2, show_progress=False)
    assert set(run.history[0]) >= {"loss", "reconstruction"}
    assert "elbo" not in run.history[0]
    vae = fit(pair()[0], DiagonalNormal(mlp(5, out=4), 2), x, epochs=2, show_progress=False)
    assert "elbo" in vae.history[0]
    explicit, its_guide = pair()
    again = fit(explicit, its_guide, x, epochs=2, objective=Beta_ELBO(0.0), show_progress=False)
    assert again.history[-1]["loss"] == run.history[-1]["loss"]


def test_the_prior_counts_if_so_asked():
    x = 10 * data()
    free, bound = pair(), pair()
    fit(*free, x, epochs=40, learning_rate=0.02, show_progress=False)
    fit(*bound, x, epochs=40, learning_rate=0.02, objective=Trace_ELBO(), show_progress=False)
    spread = [guide.encoder(x).square().mean().item() for _, guide in (free, bound)]
    assert spread[1] < spread[0]


def test_it_stops_early_by_its_reconstruction():
    x = data()
    run = fit(*pair(), x, validation=x[:50] + 3, epochs=200, patience=2, learning_rate=0.05,
              show_progress=False)  # fmt: skip
    bounds = [row["validation_reconstruction"] for row in run.history]
    assert run.epoch < 200
    assert run.best_epoch == 1 + bounds.index(max(bounds))


def test_it_has_no_evidence_but_figures_and_pictures():
    x = data()
    model, guide = pair()
    run = fit(model, guide, x, epochs=2, show_progress=False)
    with pytest.raises(ValueError, match="on one point"):
        log_evidence(model, guide, x)
    figures = evaluate(model, guide, x)
    assert set(figures) == {"reconstruction", "active_units", "latent_dim", "num_data"}
    by_hand = model.likelihood(model.decoder(guide.encoder(x))).log_prob(x).mean().item()
    assert figures["reconstruction"] == pytest.approx(by_hand, rel=1e-5)
    assert tabulate_evaluation(figures, "title").row_count == 2
    assert set(plot_all(model, guide, x, history=run.history)) >= {"training", "latent"}


def test_a_point_has_no_score():
    with pytest.raises(ValueError, match="no density, and so no score function"):
        fit(*pair(), data(), objective=ScoreFunction_ELBO(), epochs=1, show_progress=False)
