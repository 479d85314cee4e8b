"""The fully observed autoregressive model, and the likelihood made of it."""

import math

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import (
    fit,
    log_evidence,
    plot_all,
    plot_interpolation,
    plot_latent,
    reconstruct,
    sample_prior,
)
from latente.models import (
    VAE,
    Autoregressive,
    AutoregressiveLikelihood,
    Bernoulli,
    Normal,
    StandardNormal,
    mlp,
)

from .oracles import empty

LIKELIHOODS = {
    "bits": (lambda: Bernoulli((2, 3)), lambda n: torch.rand(n, 2, 3).round()),
    "reals": (lambda: Normal((2, 3), scale=None), lambda n: torch.randn(n, 2, 3)),
}


@pytest.mark.parametrize(("likelihood", "data"), LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("hidden", [(), (2,), (3, 2), (32, 32)])
def test_each_element_sees_all_earlier_ones_and_no_other(likelihood, data, hidden):
    """However narrow the hidden layers are."""
    model = Autoregressive(likelihood(), hidden=hidden).double()
    x = data(1).double().requires_grad_()
    features = model.network(x).reshape(-1, 6)
    for index in range(6):
        (seen,) = torch.autograd.grad(features[:, index].sum(), x, retain_graph=True)
        assert (seen.flatten()[index:] == 0).all()
        assert (seen.flatten()[:index] != 0).all()


def test_with_a_unit_for_each_element_the_hidden_layer_sees_all_earlier_ones():
    hidden = Autoregressive(Bernoulli((6,)), hidden=(500, 5)).double().network[1].hidden
    for index in range(1, 6):
        x = torch.randn(200, 6).double().requires_grad_()  # a unit may be off at one x
        (seen,) = torch.autograd.grad(hidden(x)[:, index].sum(), x)
        assert ((seen != 0).any(0) == (torch.arange(6) < index)).all()


def test_hidden_units_are_spread_over_all_elements():
    """Of 784 elements the last is a function of far ones that is not linear, by 20 units."""
    model = Autoregressive(Bernoulli((28, 28)), hidden=(20,)).double()
    hidden = model.network[1].hidden
    x = torch.randn(1, 784).double().requires_grad_()
    (seen,) = torch.autograd.grad(hidden(x)[0, -1], x)
    assert (seen != 0).double().mean() > 0.9


def test_autoregressive_distribution_in_a_batch():
    distribution = Autoregressive(Bernoulli((2, 3))).distribution().expand((5,))
    assert distribution.sample((4,)).shape == (4, 5, 2, 3)
    assert distribution.log_prob(torch.zeros(2, 3)).shape == (5,)
    assert distribution.log_prob(torch.zeros(4, 5, 2, 3)).shape == (4, 5)


def test_an_autoregressive_density_of_bits_sums_to_one():
    model = Autoregressive(Bernoulli((2, 3)), hidden=(16,)).double()
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).reshape(-1, 2, 3).double()
    assert model.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_autoregressive_draws_follow_the_density():
    """χ² of 64 cells over 20,000 draws, by Wilson and Hilferty's quantile; false alarm 3e-5."""
    model = Autoregressive(Bernoulli((2, 3)), hidden=(16,)).double()
    draws = model.distribution().sample((20_000,)).flatten(1)
    cells = (draws @ (2.0 ** torch.arange(5, -1, -1)).double()).long().bincount(minlength=64)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).reshape(-1, 2, 3).double()
    expected = 20_000 * model.log_prob(x).exp()
    score = ((cells - expected).square() / expected).sum().item()
    assert score < 63 * (1 - 2 / (9 * 63) + 4.01 * math.sqrt(2 / (9 * 63))) ** 3


def test_a_fully_observed_model_is_fitted_by_maximum_likelihood(binary_images):
    model = Autoregressive(Bernoulli((4, 4)), hidden=(32,))
    run = fit(
        model, empty, binary_images, epochs=60, batch_size=50, learning_rate=0.01,
        show_progress=False,
    )  # fmt: skip
    # 4 free columns of bits: the truth is 4 log ½.
    assert model.log_prob(binary_images).mean().item() == pytest.approx(-2.77, abs=0.15)
    last = run.history[-1]
    assert last["elbo"] == pytest.approx(model.log_prob(binary_images).mean().item(), abs=1e-4)
    assert last["kl"] == 0
    _, draws = sample_prior(model, empty, 200, binary_images)
    agreeing = (draws == draws[:, :1]).all(1).double().mean().item()
    assert agreeing > 0.9
    assert draws.mean().item() == pytest.approx(0.5, abs=0.15)


def test_the_pictures_of_a_fully_observed_model_are_its_samples(binary_images):
    model = Autoregressive(Bernoulli((4, 4)), hidden=(8,))
    assert list(plot_all(model, empty, binary_images)) == ["samples"]
    with pytest.raises(ValueError, match="no latent site"):
        plot_latent(model, empty, binary_images)
    with pytest.raises(ValueError, match="nothing to interpolate"):
        plot_interpolation(model, empty, binary_images)
    drawn = reconstruct(model, empty, binary_images)  # it has no mean: draws of x
    assert drawn.unique().tolist() == [0, 1]


def test_a_fully_observed_model_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="two elements"):
        Autoregressive(Bernoulli((1,)))
    with pytest.raises(ValueError, match="every width"):
        Autoregressive(Bernoulli((4,)), hidden=(0,))
    model = Autoregressive(Bernoulli((2, 2)))
    with pytest.raises(ValueError, match=r"shape \(N, 2, 2\)"):
        model(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"outside the support of Bernoulli .* such as 0.5"):
        fit(model, empty, torch.full((8, 2, 2), 0.5), batch_size=8, show_progress=False)


def test_a_strong_decoder_sees_z_and_the_elements_before():
    likelihood = AutoregressiveLikelihood(Bernoulli((2, 3)), hidden=(16,)).double()
    features = torch.randn(5, 6).double()
    distribution = likelihood(features)
    assert (distribution.batch_shape, distribution.event_shape) == ((5,), (2, 3))
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6).reshape(64, 1, 2, 3)
    assert torch.allclose(
        distribution.log_prob(every).logsumexp(0), torch.zeros(5).double(), atol=1e-12
    )
    x = every[37]
    logits = likelihood.network(x) + features
    by_hand = torch.distributions.Bernoulli(logits=logits.reshape(5, 2, 3)).log_prob(x).sum((1, 2))
    assert torch.allclose(distribution.log_prob(x), by_hand)
    moved = likelihood(features + torch.eye(6).double()[3]).log_prob(x)
    assert (moved != by_hand).all()
    assert distribution.expand((4, 5)).sample((3,)).shape == (3, 4, 5, 2, 3)
    with pytest.raises(ValueError, match="give it out=6"):
        likelihood(torch.zeros(2, 5))


def test_draws_of_a_strong_decoder_have_its_density():
    """Frequencies of all 16 images in 20,000 draws; χ² of 15 degrees, false alarm 1e-4."""
    torch.manual_seed(1)
    likelihood = AutoregressiveLikelihood(Bernoulli((2, 2)), hidden=(8,)).double()
    distribution = likelihood(torch.randn(4).double())
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    expected = 20_000 * distribution.log_prob(every.reshape(16, 2, 2)).exp()
    codes = (
        distribution.sample((20_000,)).flatten(1) @ torch.tensor([8.0, 4, 2, 1]).double()
    ).long()
    observed = codes.bincount(minlength=16)
    assert ((observed - expected).square() / expected).sum() < 44.3


def test_a_vae_with_a_strong_decoder_is_a_pair_as_any(binary_images):
    torch.manual_seed(0)
    likelihood = AutoregressiveLikelihood(Bernoulli((4, 4)), hidden=(16,))
    model = VAE(StandardNormal(2), mlp(2, 8, out=16), likelihood)
    model.start_at_mean(binary_images)
    guide = DiagonalNormal(mlp((4, 4), 8, out=4), 2)
    run = fit(model, guide, binary_images, epochs=30, learning_rate=0.01, show_progress=False)
    assert run.history[-1]["elbo"] > -6 > run.history[0]["elbo"]
    evidence = log_evidence(model, guide, binary_images[:20], num_samples=50)
    assert evidence.log_px.isfinite().all()
    assert set(plot_all(model, guide, binary_images)) >= {"reconstructions", "manifold"}
