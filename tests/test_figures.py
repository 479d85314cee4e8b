"""Pictures: that they show what they say, and are refused where they cannot."""

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image

from latente.guides import DiagonalNormal
from latente.inference import (
    active_units,
    decode,
    fit,
    plot_all,
    plot_interpolation,
    plot_latent,
    plot_manifold,
    plot_training,
    posterior_means,
    reconstruct,
    sample_prior,
)
from latente.inference.common.plotting import save_figures
from latente.models import VAE, Normal, StandardNormal, mlp

from .oracles import LinearGaussian, TutorialVAE


@pytest.fixture
def fitted(make_pair, binary_images):
    return fit(*make_pair(), binary_images, epochs=3, show_progress=False)


def test_all_pictures_are_written_with_ink_on_them(fitted, binary_images, tmp_path):
    labels = torch.arange(200) % 3
    figures = plot_all(
        fitted.model, fitted.guide, binary_images, labels=labels, history=fitted.history
    )
    assert set(figures) == {
        "training", "reconstructions", "samples", "latent", "manifold", "interpolation"
    }  # fmt: skip
    for path in save_figures(figures, tmp_path / "figures"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] == 1300
        assert pixels.std() > 5, path
    assert plt.get_fignums() == []
    assert not pyro.get_param_store()


def test_the_training_curve_draws_the_history(fitted):
    figure = plot_training(fitted.history)
    for ax, name in zip(figure.axes, ("elbo", "reconstruction", "kl"), strict=True):
        drawn = ax.lines[0].get_ydata()
        assert list(drawn) == [row[name] for row in fitted.history]
    with pytest.raises(ValueError, match="no epoch to plot"):
        plot_training([])


def test_the_latent_scatter_draws_the_posterior_means(fitted, binary_images):
    labels = torch.arange(200) % 2
    (ax,) = plot_latent(fitted.model, fitted.guide, binary_images, labels).axes
    means = posterior_means(fitted.model, fitted.guide, binary_images)["z"]
    with torch.no_grad():
        assert torch.allclose(means, fitted.guide.posterior(binary_images).mean)
    for name, points in zip((0, 1), ax.collections, strict=True):
        assert np.allclose(points.get_offsets(), means[labels == name])
    with pytest.raises(ValueError, match="200 data but 3 labels"):
        plot_latent(fitted.model, fitted.guide, binary_images, [1, 2, 3])


def test_what_is_decoded_is_the_decoders_mean(fitted, binary_images):
    z = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    with torch.no_grad():
        expected = fitted.model.decoder(z).sigmoid().reshape(2, 4, 4)
    assert torch.allclose(decode(fitted.model, fitted.guide, {"z": z}, binary_images), expected)


def test_reconstructions_are_of_their_own_data():
    """With a nearly exact encoder of a nearly deterministic model, x̂ is close to x."""
    oracle = LinearGaussian(8, num_observed=8, scale=0.01)
    x = oracle.sample(50)
    found = reconstruct(*oracle.pair(), x)
    assert (found - x).abs().mean() < 0.2 * (x - x.roll(1, 0)).abs().mean()


def test_prior_samples_have_the_marginal_of_the_model():
    """Mean and covariance of 20,000 draws; each entry within 5 standard errors (6e-7 each)."""
    oracle = LinearGaussian(2, num_observed=3)
    _, drawn = sample_prior(*oracle.pair(), 20_000, torch.zeros(1, 3))
    covariance = oracle.marginal.covariance_matrix
    sd = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - oracle.bias).abs() < 5 * sd / 20_000**0.5).all()
    bound = 5 * (2 / 20_000) ** 0.5 * sd[:, None] * sd[None, :]
    assert ((drawn.T.cov() - covariance).abs() < bound).all()


def test_prior_samples_follow_their_seed_and_no_deterministic_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            mean = pyro.deterministic("mean", 2 * z, event_dim=0)
            pyro.sample("x", dist.Normal(mean, 10.0), obs=x)

    def draws(seed):
        return sample_prior(model, model, 5000, torch.zeros(1), seed=seed)

    means, drawn = draws(1)
    assert means.std().item() == pytest.approx(2, rel=0.1)
    assert drawn.std().item() == pytest.approx(104**0.5, rel=0.1)
    assert torch.equal(draws(1)[1], drawn)
    assert not torch.equal(draws(2)[1], drawn)


def test_means_of_layered_guides_and_flows_are_of_all_their_draws():
    """A guide equal to its prior says nothing of x: no unit is active."""

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            flow = dist.TransformedDistribution(
                dist.Normal(torch.zeros(len(x), 3), 1.0), [dist.transforms.TanhTransform()]
            )
            pyro.sample("c", flow.to_event(1))
            return b

    means = posterior_means(guide, guide, torch.zeros(400))
    assert means["c"].shape == (400, 3)
    assert sum(active_units(value) for value in means.values()) == 0
    spread = torch.stack([torch.arange(400.0), 0.09 * (-1.0) ** torch.arange(400)], dim=1)
    assert active_units(spread) == 1  # a variance of 0.0081 does not count
    assert active_units(spread, threshold=0.005) == 2


def test_interpolation_is_straight_in_z(fitted, binary_images, monkeypatch):
    from latente.inference.reporting import run_figures as figures

    seen = {}
    monkeypatch.setattr(
        figures,
        "decode",
        lambda m, g, values, like: seen.update(values) or decode(m, g, values, like),
    )
    plot_interpolation(fitted.model, fitted.guide, binary_images, pairs=3, steps=5)
    means = posterior_means(fitted.model, fitted.guide, binary_images[:6])["z"]
    path = seen["z"].unflatten(0, (3, 5))
    for pair in range(3):
        first, second = means[2 * pair], means[2 * pair + 1]
        for step, weight in enumerate((0, 0.25, 0.5, 0.75, 1)):
            expected = (1 - weight) * first + weight * second
            assert torch.allclose(path[pair, step], expected, atol=1e-6)
    with pytest.raises(ValueError, match="at least two data"):
        plot_interpolation(fitted.model, fitted.guide, binary_images[:1])


def test_the_plane_needs_two_dimensions(make_pair, binary_images):
    with pytest.raises(ValueError, match="one latent site of dimension 2"):
        plot_manifold(*make_pair(latent_dim=3), binary_images)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_tables_are_drawn_as_curves(latent_dim, tmp_path):
    vae = VAE(StandardNormal(latent_dim), mlp(latent_dim, out=6), Normal((6,)))
    guide = DiagonalNormal(mlp(6, out=2 * latent_dim), latent_dim)
    figures = plot_all(vae, guide, torch.randn(30, 6))
    assert {path.stem for path in save_figures(figures, tmp_path)} == {
        "reconstructions", "samples", "latent"
    }  # fmt: skip


def test_a_users_own_pair_is_drawn_too(tmp_path):
    vae = TutorialVAE()
    figures = plot_all(vae.model, vae.guide, torch.rand(30, 8, 8).round())
    assert "manifold" in figures
    assert not pyro.get_param_store()
