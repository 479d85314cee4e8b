"""Batch normalization of dense networks: moments of the batch in training, running ones after."""

import itertools
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, fit, log_evidence
from latente.inference.recipes.build import build_planned, planned_sizes
from latente.inference.recipes.plan import Plan
from latente.inference.training import preparation
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, NormalMixture, StandardNormal, mlp
from latente.models.networks.batch_norm import BatchNorm

quiet = partial(fit, show_progress=False)


def test_the_hidden_layers_are_normalized_and_the_last_one_is_not():
    kinds = [type(layer) for layer in mlp(3, 4, 5, out=2, batch_norm=True)][1:]
    hidden = [nn.Linear, BatchNorm, type(mlp(1, 1, out=1)[2])]
    assert kinds == [*hidden, *hidden, nn.Linear]
    assert [layer.num_features for layer in mlp(3, 4, 5, out=2, batch_norm=True)[2::3]] == [4, 5]


def test_rows_share_moments_in_training_alone():
    torch.manual_seed(0)
    network, x = mlp(3, 8, out=2, batch_norm=True), torch.randn(2, 6, 3)
    moved = x.clone()
    moved[1, 5] += 3.0
    before, after = network(x), network(moved)
    assert not torch.allclose(before[0], after[0])
    network.eval()
    torch.testing.assert_close(network(x)[0], network(moved)[0], rtol=0, atol=0)
    # (x − running mean) / √(running variance + ε), from the layer's own buffers.
    linear, norm = network[1], network[2]
    by_hand = (linear(x) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(norm(linear(x)), by_hand * norm.weight + norm.bias)


def test_one_row_is_normalized_by_the_running_moments():
    torch.manual_seed(0)
    norm, row = BatchNorm(3), torch.randn(1, 3)
    norm(torch.randn(100, 3) + 2.0)
    kept = norm.running_mean.clone()
    found = norm(row)
    torch.testing.assert_close(norm.running_mean, kept, rtol=0, atol=0)
    torch.testing.assert_close(found, norm.eval()(row))


def test_a_recorded_fit_with_a_last_batch_of_one_row_is_the_plain_one(binary_images, monkeypatch):
    def run(compile):
        torch.manual_seed(0)
        normed = partial(mlp, batch_norm=True)
        model = VAE(StandardNormal(2), normed(2, 8, out=16), Bernoulli((4, 4)))
        guide = DiagonalNormal(normed(16, 8, out=4), 2)
        quiet(model, guide, binary_images[:33], epochs=4, batch_size=8, compile=compile)
        return model, guide

    pairs = []
    for compile in ("plain", "recorded"):
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "Step", partial(Step, record_after=0.0))
            pairs.append([part.state_dict() for part in run(compile)])
    for plain, recorded in zip(*pairs, strict=True):
        assert "decoder.2.running_mean" in plain or "encoder.2.running_mean" in plain
        for name, value in plain.items():
            assert torch.equal(value, recorded[name]), name


@pytest.mark.parametrize("levels", ["ladder:4-3-2,8-8-8", "residual:4-3-2,8-8-8"])
def test_no_draw_of_the_levels_above_overflows_a_scale(binary_images, levels):
    """The weights of networks between levels are 100 times what they were."""
    torch.manual_seed(0)
    plan = Plan(recipe="ladder", levels=levels)
    model, guide = build_planned(plan, planned_sizes(plan, (4, 4)))
    with torch.no_grad():
        for level in itertools.islice(model.levels.values(), 1, None):
            level.prior.network[-1].weight.mul_(100.0)
    assert log_evidence(model, guide, binary_images[:20], num_samples=200).log_px.isfinite().all()
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    assert bool(norms) == levels.startswith("ladder")


def pair_of(place):
    """A pair of functions whose networks lie at a place: in a list, or by names of their own."""
    torch.manual_seed(0)
    decoder, encoder = mlp(2, 8, out=16, batch_norm=True), mlp(16, 8, out=4, batch_norm=True)
    listed = [decoder, encoder]

    def run_model(x, network):
        pyro.module("decoder", network)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = network(z).unflatten(-1, (4, 4))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(2), obs=x)

    def run_guide(x, network):
        pyro.module("encoder", network)
        with pyro.plate("data", len(x), dim=-1):
            mean, log_scale = network(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))

    if place == "list":
        return lambda x: run_model(x, listed[0]), lambda x: run_guide(x, listed[1])
    return lambda x: run_model(x, decoder), lambda x: run_guide(x, encoder)


def test_layers_that_cannot_be_put_into_evaluation_mode_are_warned_of(binary_images, recwarn):
    """Those of a list would use the moments of a batch in log p(x), and are in no checkpoint."""
    model, guide = pair_of("list")
    with pytest.warns(UserWarning, match="runs BatchNorm in a module that cannot be found"):
        log_evidence(model, guide, binary_images[:5], num_samples=2)
    with pytest.warns(UserWarning, match=r"nn\.ModuleList or nn\.ModuleDict in place of a list"):
        quiet(model, guide, binary_images[:16], epochs=1, batch_size=8)
    recwarn.clear()
    model, guide = pair_of("names")
    quiet(model, guide, binary_images[:16], epochs=1, batch_size=8)
    assert not [found for found in recwarn if "training mode" in str(found.message)]


def test_an_objective_looks_at_a_pair_again_that_was_changed_between_two_fits(binary_images):
    """Its closed form of the KL would be that of the prior of the first fit."""
    torch.manual_seed(0)
    model = VAE(StandardNormal(2), mlp(2, 8, out=16), Bernoulli((4, 4)))
    guide, objective = DiagonalNormal(mlp(16, 8, out=4), 2), Beta_ELBO()
    quiet(model, guide, binary_images[:16], epochs=1, objective=objective)
    model.prior = NormalMixture(2, 3)
    row = quiet(model, guide, binary_images[:16], epochs=1, objective=objective).history[-1]
    assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"])
