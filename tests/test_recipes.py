"""Every recipe with every posterior, from its plan to a run folder and back."""

import json
import math
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
from latente.inference import POSTERIORS, RECIPES, evaluate, load_run
from latente.inference.recipes.axes import AXES
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.compatibility import check_composition
from latente.inference.recipes.plan import Plan, complete, compose, read_plan
from latente.inference.recipes.plan_data import load_plan_data
from latente.inference.recipes.registry import find_recipe
from latente.inference.recipes.train import train

ALL = [
    (name, recipe.posterior)
    for name, recipe in RECIPES.items()
    if recipe.likelihood != "columns"  # of tables: test_columns.py
    and not AXES["levels"].parse(recipe.levels).part.sequences  # test_sequence_recipes.py
]
OF_VECTORS = [name for name, part in POSTERIORS.items() if not part.priors]
"""The posteriors that are not over codes."""
ALL += [("vae", posterior) for posterior in OF_VECTORS if posterior != "diagonal"]
REFUSED = {
    ("vampprior", "point"): "without a density",
    ("iwae", "point"): "on one point",
    ("beta-vae", "point"): "has no KL to weigh",
    ("beta-tc-vae", "full-rank"): "no product over dimensions",
    ("beta-tc-vae", "point"): "on one point",
    ("autoencoder", "diagonal"): "train the recipe vae",
    ("vae", "vq"): "take --prior codes or learned-codes",
    ("fsq", "diagonal"): "is over codes: take --posterior fsq or vq",
    ("gumbel", "fsq"): "take --prior codes or learned-codes",
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
    kind = RECIPES[recipe].levels
    sizes: dict = {"hidden": (8,), "latent_dim": 3}
    if kind.startswith("draw"):
        sizes = {"levels": f"{kind}{',' if ':' in kind else ':'}steps=3,dim=2,hidden=6"}
    elif POSTERIORS.parse(posterior).part.priors:
        sizes = {"hidden": (8,)}
    elif kind != "one":
        sizes = {"levels": f"{kind}:dims=4-2,widths=8-6"}
    return Plan(recipe=recipe, posterior=posterior, data=data, epochs=10, batch_size=240, **sizes)


SLOW_RECIPES = (
    "vae-static", "vae-normal-predicted", "vae-logistic-mixture", "vae-negative-binomial",
    "vae-resnet", "vae-warmup", "vae-cyclical", "iwae", "iwae-stl", "miwae", "ciwae",
    "vae-normal", "vae-continuous-bernoulli",
    "piwae", "beta-vae", "vae-free-bits", "hvae",
)  # fmt: skip
"""Parts much like those of other recipes: what trains them is tried by hand."""


def recipes(slow=()):
    """All recipes and posteriors; slow are the recipes above, and the pairs that are given."""
    for pair in ALL:
        marks = [pytest.mark.slow] * (pair[0] in SLOW_RECIPES or pair in slow)
        yield pytest.param(*pair, marks=marks, id="-".join(pair))


@pytest.mark.parametrize(("recipe", "posterior"), list(recipes()))
@pytest.mark.usefixtures("few_digits")
def test_every_recipe_is_fitted_kept_and_loaded(recipe, posterior, files, tmp_path):
    plan = replace(plan_of(recipe, posterior, files), epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the schedule of beta")
        run = train(plan, tmp_path / "run", device="cpu", show_progress=False)
    loaded = load_run(tmp_path / "run")
    rows = tuple(part[:5] for part in load_plan_data(plan).rows("test"))
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


def pair_of(posterior, latent_dim):
    plan = Plan(posterior=posterior, latent_dim=latent_dim, hidden=(16,))
    return build_pair(compose(plan), planned_sizes(plan, (4, 4)))


@pytest.mark.parametrize("posterior", [name for name in OF_VECTORS if name != "point"])
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_a_richer_posterior_starts_as_the_diagonal_one(posterior, latent_dim):
    """KL(q ‖ its own diagonal part) before any training, by draws where it has no closed form."""
    torch.manual_seed(0)
    _, guide = pair_of(posterior, latent_dim)
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
    guides = {name: pair_of(name, 3)[1] for name in POSTERIORS}
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
        POSTERIORS.parse("fullrank")


def test_the_texts_of_recipes_are_choices_that_go_together():
    """Each is a composition, and no text is only another word for a default."""
    for recipe in RECIPES.values():
        data = "digits" if recipe.likelihood == "bernoulli" else __file__
        plan = Plan(recipe=recipe.name, data=data)
        composition = compose(plan)
        check_composition(composition)
        for axis in AXES:
            said, default = getattr(recipe, axis), getattr(RECIPES["vae"], axis)
            if said is not None and said != default:
                assert AXES[axis].parse(said) != (default and AXES[axis].parse(default))


OLD = {
    "vae": {"posterior": "iaf", "data": "digits"},
    "iwae-dreg": {"posterior": "diagonal", "data": "digits"},
    "vampprior": {"posterior": "full-rank", "data": "digits"},
    "cvae-quadrant": {"posterior": "diagonal", "data": "digits"},
    "vae-poisson": {"posterior": "diagonal", "data": "codes"},
}
"""Plans as latente 0.1 kept them, which named a recipe and a posterior alone."""


@pytest.mark.filterwarnings("ignore:the schedule of beta")
@pytest.mark.parametrize("recipe", OLD)
def test_a_run_of_latente_0_1_is_loaded_evaluated_and_resumed(recipe, files, tmp_path):
    """Its folder has the same names of weights; its plan lacks the axes that came later."""
    old = {**OLD[recipe], "recipe": recipe, "labels": None, "standardize": False, "latent_dim": 3,
           "hidden": [8], "epochs": 2, "batch_size": 240, "learning_rate": 0.001, "clip_norm": None,
           "patience": None, "seed": 4, "precision": "float32"}  # fmt: skip
    old["data"] = files.get(old["data"], old["data"])
    plan = Plan(**{**old, "hidden": (8,)})
    whole, part = tmp_path / "whole", tmp_path / "part"
    expected = train(replace(plan, epochs=3), whole, device="cpu", show_progress=False)
    train(plan, part, device="cpu", show_progress=False)
    path = part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "plan": old}))

    assert read_plan(part) == complete(plan)
    run = load_run(part)
    rows = tuple(value[:20] for value in load_plan_data(read_plan(part), part).rows("test"))
    assert math.isfinite(evaluate(run.model, run.guide, rows, num_samples=10)["log_evidence"])
    longer = replace(read_plan(part), epochs=3)
    resumed = train(longer, part, device="cpu", resume=True, show_progress=False)
    # The learning rate has not begun to fall after two epochs of two: the schedules are one.
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in expected.history]


def test_a_plan_of_before_the_posterior_was_an_option_is_read(tmp_path):
    plan = Plan(epochs=1, hidden=(8,))
    train(plan, tmp_path / "run", device="cpu", show_progress=False)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["plan"]["posterior"]
    path.write_text(json.dumps(config))
    assert read_plan(tmp_path / "run") == replace(complete(plan), posterior="diagonal")
    assert load_run(tmp_path / "run").epoch == 1


@pytest.mark.parametrize(("name", "value"), [("prior", 3), ("beta", 4.0), ("recipe", ["vae"])])
def test_a_plan_with_a_choice_that_is_no_text_is_named(name, value, tmp_path):
    train(Plan(epochs=1, hidden=(8,)), tmp_path / "run", device="cpu", show_progress=False)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "plan": {**config["plan"], name: value}}))
    with pytest.raises(ValueError, match=f"is not a run's: its {name} is"):
        load_run(tmp_path / "run")


def test_levels_have_sizes_of_their_own():
    for given in ({"latent_dim": 3}, {"hidden": (8,)}):
        with pytest.raises(ValueError, match="--latent-dim and --hidden are for one latent"):
            complete(Plan(recipe="ladder", **given))
    with pytest.raises(ValueError, match="has 2 dims and 5 widths: give both, one number"):
        complete(Plan(recipe="ladder", levels="ladder:4-2"))
    guide = build_pair(compose(Plan(recipe="hvae")), planned_sizes(Plan(), (4, 4)))[1]
    assert [*guide.posteriors] == ["z2", "z1"]
