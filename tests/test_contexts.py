"""Contexts: what conditional parts are told, from the loader to the evidence."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal, ExactPosterior, FullRankNormal
from latente.inference import (
    decode,
    evaluate,
    fit,
    load_data,
    log_evidence,
    plot_all,
    quadrants,
    sample_prior,
)
from latente.models import (
    VAE,
    Bernoulli,
    Conditional,
    ConditionalNormal,
    FlattenEvent,
    Normal,
    OneHot,
    StandardNormal,
    mlp,
)


def labelled(prior=None, classes=3):
    """A conditional pair on bits (4, 4), told a label."""
    readers = FlattenEvent((4, 4)), OneHot(classes)
    guide = DiagonalNormal(Conditional(mlp(16 + classes, 8, out=4), *readers), 2)
    decoder = Conditional(mlp(2 + classes, 8, out=16), FlattenEvent(2), OneHot(classes))
    return VAE(prior or StandardNormal(2), decoder, Bernoulli((4, 4))), guide


def linear_conditional(seed=0):
    """z|c ~ N(ac, s²), x|z,c ~ N(wz + vc, σ²) in D = 3 and K = 1, with q exact: p(x|c) is known."""
    torch.manual_seed(seed)
    a, s, sigma = 0.8, 0.6, 0.5
    w, v = torch.randn(3, 1).double(), torch.randn(3, 1).double()
    prior = ConditionalNormal(mlp(1, out=2), 1)
    decoder = Conditional(mlp(2, out=3), FlattenEvent(1), FlattenEvent(1))
    encoder = Conditional(mlp(4, out=2), FlattenEvent(3), FlattenEvent(1))
    model = VAE(prior, decoder, Normal((3,), sigma)).double()
    guide = DiagonalNormal(encoder, 1).double()
    precision = 1 / s**2 + (w * w).sum() / sigma**2
    with torch.no_grad():
        prior.network[1].weight.copy_(torch.tensor([[a], [0.0]]))
        prior.network[1].bias.copy_(torch.tensor([0.0, math.log(s)]))
        decoder.network[1].weight.copy_(torch.cat([w, v], 1))
        decoder.network[1].bias.zero_()
        slope = torch.cat([w.T / sigma**2, a / s**2 - (w * v).sum()[None, None] / sigma**2], 1)
        encoder.network[1].weight.copy_(torch.cat([slope / precision, torch.zeros(1, 4)]))
        encoder.network[1].bias.copy_(torch.stack([torch.zeros(()), -0.5 * precision.log()]))
    c = torch.randn(50, 1).double()
    x = torch.randn(50, 3).double() + c
    covariance = s**2 * w @ w.T + sigma**2 * torch.eye(3).double()
    exact = dist.MultivariateNormal(c @ (a * w + v).T, covariance).log_prob(x)
    return model, guide, x, c, exact


def test_evidence_of_a_conditional_model_is_its_closed_form():
    model, guide, x, c, exact = linear_conditional()
    evidence = log_evidence(model, guide, (x, c), num_samples=10)
    assert torch.allclose(evidence.log_px, exact, atol=1e-10)
    shuffled = log_evidence(model, guide, (x, c.flip(0)), num_samples=10)
    assert not torch.allclose(shuffled.log_px, exact, atol=1e-2)


def test_a_conditional_pair_learns_what_the_label_says():
    """Images that are their label: the label leaves log 3 less to say, and q(z|x, y) nothing."""
    torch.manual_seed(0)
    patterns = torch.tensor([[1.0] * 16, [0.0] * 16, [1.0, 0.0] * 8]).reshape(3, 4, 4)
    y = torch.arange(300) % 3
    model, guide = labelled()
    fit(model, guide, (patterns[y], y), epochs=60, learning_rate=0.02, show_progress=False)
    figures = evaluate(model, guide, (patterns[y], y), num_samples=50)
    assert -0.1 < figures["log_evidence"] < 0
    means, _ = sample_prior(model, guide, 6, (patterns[:3], torch.tensor([2, 0, 1])))
    assert torch.allclose(means, patterns[[2, 0, 1, 2, 0, 1]], atol=0.1)
    decoded = decode(model, guide, {"z": torch.zeros(3, 2)}, (patterns[y][:3], y[:3]))
    assert torch.allclose(decoded, patterns, atol=0.1)


@pytest.mark.parametrize("family", [DiagonalNormal, FullRankNormal])
def test_every_part_may_take_the_context(family, binary_images):
    c = binary_images.flatten(1)[:, :4]
    prior = ConditionalNormal(nn.Sequential(mlp(4, 5, out=4)), 2)
    encoder = Conditional(
        mlp(20, 8, out=family.num_features(2)), FlattenEvent((4, 4)), FlattenEvent(4)
    )
    decoder = Conditional(mlp(6, 8, out=16), FlattenEvent(2), FlattenEvent(4))
    model, guide = VAE(prior, decoder, Bernoulli((4, 4))), family(encoder, 2)
    run = fit(model, guide, (binary_images, c), epochs=3, show_progress=False)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"]
    figures = plot_all(model, guide, (binary_images, c), history=run.history)
    assert set(figures) >= {"samples", "reconstructions", "latent", "manifold", "interpolation"}


def test_two_contexts_are_read_in_order():
    network = Conditional(nn.Identity(), FlattenEvent(1), OneHot(2), FlattenEvent(2))
    z, y, c = torch.tensor([[5.0], [6.0]]), torch.tensor([1, 0]), torch.tensor([[7.0, 8], [9, 10]])
    assert network(z, y, c).tolist() == [[5, 0, 1, 7, 8], [6, 1, 0, 9, 10]]
    assert network(z.expand(3, 2, 1), y, c).shape == (3, 2, 5)


def test_labels_and_elements_that_are_given_by_the_loader():
    data = load_data("digits", binarize="dynamic", given="labels")
    assert torch.equal(data.rows("test")[1], data.test_labels)
    mask = quadrants((8, 8), 1)
    part = load_data("digits", binarize="dynamic", given=mask)
    grey = load_data("digits")
    for name in ("train", "validation", "test"):
        x, context = part.rows(name)
        assert torch.equal(context, getattr(grey, name)[:, mask])
        assert x.shape == (len(context), 48)
    assert torch.equal(part.train, grey.train[:, ~mask])  # probabilities, drawn from each epoch
    assert part.test.unique().tolist() == [0, 1]
    assert part.digest() != load_data("digits", given=quadrants((8, 8), 2)).digest()
    standard = load_data("digits", given=mask, standardize=True)
    assert standard.scale.shape == (48,)
    assert standard.train_context[0].mean().abs() < 1e-5


@pytest.mark.parametrize(("num", "share"), [(1, 16), (2, 32), (3, 48)])
def test_quadrants(num, share):
    mask = quadrants((8, 8), num)
    assert mask.sum() == share
    assert mask[7, 0]
    assert not mask[0, 7]
    assert mask[0, 0] == (num > 1)
    assert quadrants((3, 8, 8), num).sum() == 3 * share


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda x, y: x, "a Conditional of 2 inputs got 1: give the data as a tuple"),
        (lambda x, y: (x, y, y), "of 2 inputs got 3"),
        (lambda x, y: (x, y[:5]), "argument 0 has 200 rows .*, argument 1 has 5 rows"),
        (lambda x, y: (x, y + 3), "whole numbers from 0 to 2, got [345]"),
        (lambda x, y: (x, y - 1), "whole numbers from 0 to 2, got -1"),
        (lambda x, y: (x, y + 0.5), r"whole numbers from 0 to 2, got [012]\.5"),
        (lambda x, y: (x, torch.full((200,), torch.nan)), "context 1 of data holds NaN"),
    ],
)
def test_contexts_that_cannot_be_used(data, reason, binary_images):
    y = torch.arange(200) % 3
    with pytest.raises(ValueError, match=reason) as caught:
        fit(*labelled(), data(binary_images, y), epochs=1, show_progress=False)
    assert "\n" not in str(caught.value)


def test_a_context_that_no_part_takes_is_refused(make_pair, binary_images):
    data = binary_images, torch.zeros(200)
    with pytest.raises(ValueError, match="neither prior nor decoder takes one"):
        fit(*make_pair(), data, epochs=1, show_progress=False)


def test_what_the_parts_and_the_loader_refuse():
    with pytest.raises(ValueError, match="2 classes or more"):
        OneHot(1)
    network = Conditional(nn.Identity(), FlattenEvent(1), FlattenEvent(1))
    with pytest.raises(ValueError, match=r"shapes \(5, 1\), \(4, 1\) do not broadcast"):
        network(torch.zeros(5, 1), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="1, 2 or 3 quadrants"):
        quadrants((8, 8), 4)
    with pytest.raises(ValueError, match="'labels', columns of a table or flags"):
        load_data("digits", given="label")
    with pytest.raises(ValueError, match="no labels that could be given"):
        load_data(torch.rand(20, 4), given="labels")
    for wrong in (torch.zeros(64).bool(), torch.ones(8, 8).bool(), torch.eye(8)):
        with pytest.raises(ValueError, match=r"given must flag some elements of a datum"):
            load_data("digits", given=wrong)


def test_a_conditional_guide_has_no_exact_counterpart():
    with pytest.raises(ValueError, match="has no exact posterior"):
        ExactPosterior(labelled()[1])


def test_labels_in_columns_are_refused_rather_than_spread_over_the_data():
    """(N, 1) would meet each z with each label, and be summed as if that were meant."""
    x, y = torch.randn(20, 5), torch.arange(20)[:, None] % 3
    decoder = Conditional(mlp(5, out=5), FlattenEvent((2,)), OneHot(3))
    model = VAE(StandardNormal(2), decoder, Normal((5,)))
    guide = DiagonalNormal(mlp(5, out=4), 2)
    for use in (log_evidence, evaluate):
        with pytest.raises(ValueError, match=r"log densities .* not \(N, 1\)"):
            use(model, guide, (x, y))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bool, torch.int32, torch.float])
def test_labels_of_any_whole_dtype_are_read(dtype):
    assert OneHot(2)(torch.tensor([1, 0]).to(dtype)).tolist() == [[0, 1], [1, 0]]


def test_a_start_at_the_mean_is_in_the_last_bias_and_no_other():
    reader = mlp((8, 8), out=64)
    decoder = Conditional(mlp(2 + 64, out=64), FlattenEvent((2,)), reader)
    before = reader[-1].bias.clone()
    x = torch.full((5, 8, 8), 0.9)
    VAE(StandardNormal(2), decoder, Bernoulli((8, 8))).start_at_mean(x)
    assert torch.equal(reader[-1].bias, before)
    assert torch.allclose(decoder.network[-1].bias, torch.tensor(0.9).logit())
    blind = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64, bias=False))
    with pytest.raises(ValueError, match="not a bias with one number for each of the 64"):
        VAE(StandardNormal(2), blind, Bernoulli((8, 8))).start_at_mean(x)
    with pytest.raises(ValueError, match="at least one datum, and all of them finite"):
        VAE(StandardNormal(2), decoder, Bernoulli((8, 8))).start_at_mean(x[:0])


def test_labels_that_are_missing_are_refused():
    values = np.random.default_rng(0).random((20, 3))
    for labels in (np.array([1.0] * 19 + [math.nan]), np.array(["a"] * 19 + [None], dtype=object)):
        with pytest.raises(ValueError, match="labels are missing"):
            load_data(values, labels=labels)


def test_networks_that_overflow_are_refused_in_one_line():
    guide = DiagonalNormal(mlp(5, out=4), 2)
    model = VAE(StandardNormal(2), mlp(2, out=5), Normal((5,)))
    with torch.no_grad():
        guide.encoder[1].weight.fill_(1e30)
    with pytest.raises(ValueError, match="overflow on these data, so scale them") as caught:
        fit(model, guide, 1e20 + torch.rand(9, 5), epochs=1, show_progress=False)
    assert "\n" not in str(caught.value)


def test_a_prior_that_does_not_fit_is_named():
    guide = DiagonalNormal(mlp(5, out=4), 2)
    model = VAE(StandardNormal(3), mlp(2, out=5), Normal((5,)))
    with pytest.raises(ValueError, match=r"guide's 'z' has shape \(2,\) .* \(3,\)"):
        fit(model, guide, torch.randn(9, 5), epochs=1, show_progress=False)

    class Loose(nn.Module):
        def forward(self):
            return dist.Normal(torch.zeros(2), 1.0)

    model = VAE(Loose(), mlp(2, out=5), Normal((5,)))
    with pytest.raises(ValueError, match=r"end it with \.to_event\(1\)"):
        fit(model, guide, torch.randn(9, 5), epochs=1, show_progress=False)
