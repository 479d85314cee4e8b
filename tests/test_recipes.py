"""Every recipe with every posterior, from its plan to a run folder and back."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import zuko
from sklearn.datasets import load_digits
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, FullRankNormal, PointPosterior
from latente.guides.flow import Planar
from latente.inference import POSTERIOR_FAMILIES, RECIPES, evaluate, load_run
from latente.inference.recipes.plan import Plan, complete, load_plan_data, read_plan, train
from latente.inference.recipes.posteriors import find_posterior
from latente.inference.recipes.registry import find_recipe

ALL = [(name, recipe.posterior) for name, recipe in RECIPES.items()]
ALL += [("vae", posterior) for posterior in POSTERIOR_FAMILIES if posterior != "diagonal"]
REFUSED = {
    ("vampprior", "point"): "without a density",
    ("iwae", "point"): "on one point",
    ("beta-vae", "point"): "has no KL to weigh",
    ("beta-tc-vae", "full-rank"): "no product over dimensions",
    ("beta-tc-vae", "point"): "on one point",
    ("autoencoder", "diagonal"): "train the recipe vae",
}
DATA = {
    "vae-logistic": "bytes",
    "vae-logistic-mixture": "bytes",
    "vae-categorical": "codes",
    "vae-poisson": "codes",
    "vae-negative-binomial": "codes",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The digits as levels out of 256, and as codes 0 to 16 or counts, 300 of each."""
    folder, digits = tmp_path_factory.mktemp("data"), load_digits().images[:300]
    np.save(folder / "bytes.npy", (15 * digits).astype(np.uint8))
    np.save(folder / "codes.npy", digits.astype(np.int64))
    return {name: str(folder / f"{name}.npy") for name in ("bytes", "codes")}


def plan_of(recipe, posterior, files):
    data = files[DATA[recipe]] if recipe in DATA else "digits"
    return Plan(recipe=recipe, posterior=posterior, data=data, epochs=10, batch_size=200,
                hidden=(8,), latent_dim=3)  # fmt: skip


@pytest.mark.parametrize(("recipe", "posterior"), ALL, ids=["-".join(pair) for pair in ALL])
def test_every_recipe_is_fitted_kept_and_loaded(recipe, posterior, files, tmp_path):
    plan = replace(plan_of(recipe, posterior, files), epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the schedule of beta")
        run = train(plan, tmp_path / "run", device="cpu", show_progress=False)
    loaded = load_run(tmp_path / "run")
    rows = tuple(part[:20] for part in load_plan_data(plan).rows("test"))
    first, again = (
        evaluate(pair.model, pair.guide, rows, num_samples=30) for pair in (run, loaded)
    )
    assert first == again
    assert read_plan(tmp_path / "run") == complete(plan)


@pytest.mark.parametrize(("recipe", "posterior"), REFUSED, ids=["-".join(pair) for pair in REFUSED])
def test_a_recipe_says_which_posterior_it_cannot_have(recipe, posterior, files, tmp_path):
    with pytest.raises(ValueError, match=REFUSED[recipe, posterior]):
        train(plan_of(recipe, posterior, files), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("posterior", [name for name in POSTERIOR_FAMILIES if name != "point"])
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
    guides = {name: RECIPES["vae"].build((4, 4), 3, (8,), name)[1] for name in POSTERIOR_FAMILIES}
    assert type(guides["diagonal"]) is DiagonalNormal
    assert type(guides["full-rank"]) is FullRankNormal
    assert type(guides["point"]) is PointPosterior
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
