"""Every recipe with every posterior, from its plan to a run folder and back."""

import json
from dataclasses import replace

import pytest
import torch
import zuko
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, FullRankNormal
from latente.guides.flow import Planar
from latente.inference import POSTERIORS, RECIPES, load_run, log_evidence
from latente.inference.plans import Plan, complete, load_plan_data, read_plan, train
from latente.inference.recipes import find_posterior, find_recipe

EVERY = [(recipe, posterior) for recipe in RECIPES for posterior in POSTERIORS]


@pytest.mark.parametrize(("recipe", "posterior"), EVERY, ids=["-".join(pair) for pair in EVERY])
def test_every_recipe_takes_every_posterior(recipe, posterior, tmp_path):
    plan = Plan(recipe=recipe, posterior=posterior, epochs=1, hidden=(8,), latent_dim=3)
    run = train(plan, tmp_path / "run", device="cpu", show_progress=False)
    loaded = load_run(tmp_path / "run")
    rows = load_plan_data(plan).test[:20]
    first, again = (
        log_evidence(pair.model, pair.guide, rows, num_samples=30) for pair in (run, loaded)
    )
    assert torch.equal(first.log_px, again.log_px)
    assert read_plan(tmp_path / "run") == complete(plan)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_a_richer_posterior_starts_as_the_diagonal_one(posterior, latent_dim):
    """KL(q ‖ its own diagonal part) before any training, by draws where it has no closed form."""
    torch.manual_seed(0)
    _, guide = RECIPES["vae"].build((4, 4), latent_dim, (16,), posterior)
    x = torch.rand(50, 4, 4).round()
    features = guide.encoder(x)[..., : 2 * latent_dim]
    diagonal = DiagonalNormal(torch.nn.Identity(), latent_dim).family(features)
    q = guide.posterior(x)
    with torch.no_grad():
        if isinstance(guide, DiagonalNormal | FullRankNormal):
            difference = kl_divergence(q, diagonal).mean()
        else:
            z = q.sample((200,))
            difference = (q.log_prob(z) - diagonal.log_prob(z)).mean()
    assert abs(difference.item()) < 0.02
    assert features.std(0).min() > 0.02  # μ and log σ themselves are not made small


def test_the_families_are_what_they_are_called():
    guides = {name: RECIPES["vae"].build((4, 4), 3, (8,), name)[1] for name in POSTERIORS}
    assert type(guides["diagonal"]) is DiagonalNormal
    assert type(guides["full-rank"]) is FullRankNormal
    context = torch.zeros(64)
    planes = guides["planar"].flow.transform.transforms
    assert len(planes) == 8
    assert all(isinstance(layer(context).inv, Planar) for layer in planes)
    for name, kind in (("iaf", "MonotonicAffineTransform"), ("spline", "MonotonicRQSTransform")):
        layers = guides[name].flow.transform.transforms
        assert len(layers) == 2
        for layer in layers:
            forward = layer(context).inv  # what drawing takes: one pass
            assert isinstance(forward, zuko.transforms.AutoregressiveTransform)
            assert type(forward.meta(torch.zeros(3)).base).__name__ == kind


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="no recipe 'vaee': did you mean 'vae'"):
        find_recipe("vaee")
    with pytest.raises(ValueError, match="no posterior 'fullrank': did you mean 'full-rank'"):
        find_posterior("fullrank")


def test_a_plan_of_before_the_posterior_was_an_option_is_read(tmp_path):
    plan = Plan(epochs=1, hidden=(8,))
    train(plan, tmp_path / "run", device="cpu", show_progress=False)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["plan"]["posterior"]
    path.write_text(json.dumps(config))
    assert read_plan(tmp_path / "run") == replace(complete(plan), posterior="diagonal")
    assert load_run(tmp_path / "run").epoch == 1
