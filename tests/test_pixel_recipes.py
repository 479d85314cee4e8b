"""The recipes of decoders that see the pixels before: PixelVAE and the lossy VAE."""

import json
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latente.inference.cli.app import app
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.compatibility import check_composition
from latente.inference.recipes.plan import Plan, complete, compose
from latente.inference.recipes.train import train
from latente.models import AutoregressiveLikelihood, FlowPrior, PixelCNN, StandardNormal

pytestmark = pytest.mark.usefixtures("few_digits")


def pair_of(shape=(8, 8), **choices):
    plan = Plan(**{"hidden": (8,), "latent_dim": 2, **choices})
    composition = compose(plan)
    check_composition(composition)
    torch.manual_seed(0)
    return build_pair(composition, planned_sizes(plan, shape))


def latente(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*map(str, arguments)])


def test_the_recipes_are_those_of_their_papers():
    for recipe, reach, prior in (("pixelvae", 3, StandardNormal), ("vlae", 1, FlowPrior)):
        model, _ = pair_of(recipe=recipe)
        assert isinstance(model.prior, prior)
        assert isinstance(model.likelihood, AutoregressiveLikelihood)
        network = model.likelihood.network
        assert isinstance(network, PixelCNN)
        assert network.receptive_field == reach
        assert network.latent_shape == (8, 8, 8)  # maps of features of z, at each layer
        assert complete(Plan(recipe=recipe)).free_bits == 0.1


@pytest.mark.parametrize(
    ("shape", "choices"),
    [
        ((28, 28), {"recipe": "pixelvae"}),
        ((8, 8), {"recipe": "vlae", "likelihood": "logistic:components=5,levels=17"}),
        (
            (3, 6, 5),
            {"network": "pixelcnn:base=conv,features=2", "likelihood": "logistic:levels=17"},
        ),
        ((8, 8), {"recipe": "pixelvae", "likelihood": "normal", "posterior": "iaf"}),
        ((8, 8), {"recipe": "vlae", "likelihood": "continuous-bernoulli", "prior": "vamp:3"}),
    ],
    ids=["MNIST", "mixture of levels", "colours", "reals", "unit interval"],
)
def test_a_decoder_with_memory_goes_with_any_likelihood_of_images(shape, choices):
    """Each element's conditional changes with z; the model's parameters all have a gradient."""
    model, guide = pair_of(shape, **choices)
    x = torch.randint(2 if choices.get("likelihood") is None else 17, (3, *shape))
    x = x.float() / x.max()
    assert guide(x).shape == (3, 2)
    likelihood = model.likelihood
    z = torch.randn(3, 2, requires_grad=True)
    features = likelihood.network(x, model.decoder(z))
    log_px = likelihood.likelihood(features).log_prob(x)
    assert log_px.shape == (3,)
    (slopes,) = torch.autograd.grad(log_px.sum(), z, retain_graph=True)
    assert (slopes != 0).all()
    log_px.sum().backward()
    for name, value in (*model.decoder.named_parameters(), *likelihood.named_parameters()):
        assert value.grad is not None, name


@pytest.mark.parametrize(("recipe", "reach"), [("vlae", 1), ("pixelvae", 3)])
def test_given_z_a_conditional_sees_its_receptive_field_alone(recipe, reach):
    """Derivatives of each conditional, by each pixel, in float64, of some pairs at some x."""
    shape, pixels = (5, 6), torch.arange(30)
    seen = torch.zeros(30, 30, dtype=torch.bool)
    for seed in range(3):
        model, _ = pair_of(shape, recipe=recipe)
        torch.manual_seed(seed)
        for value in model.double().parameters():
            value.data += 0.3 * torch.randn_like(value)
        x = torch.rand(4, *shape).double().requires_grad_()
        features = model.likelihood.network(x, model.decoder(torch.randn(4, 2).double()))
        logits = model.likelihood.likelihood(features).base_dist.logits.flatten(1)
        for pixel in pixels:
            (slopes,) = torch.autograd.grad(logits[:, pixel].sum(), x, retain_graph=True)
            seen[pixel] |= (slopes.flatten(1) != 0).any(0)
    row, column = pixels // 6, pixels % 6
    near = (row[:, None] - row).abs() <= reach
    near &= (column[:, None] - column).abs() <= reach
    assert torch.equal(seen, near.tril(-1))


def test_a_z_in_use_changes_the_draws():
    """With the same random numbers; and the same z gives the same draw."""
    model, _ = pair_of(recipe="pixelvae")
    z = torch.tensor([[3.0, -3.0], [3.0, -3.0], [-3.0, 3.0]])
    for value in model.decoder.parameters():
        value.data *= 3  # as if trained: z moves the features by more than the noise does
    draws = []
    for each in z:
        torch.manual_seed(0)
        draws.append(model.likelihood(model.decoder(each)).sample())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_commands_take_a_run(tmp_path):
    """Training, plots, draws and diagnosis of the lossy VAE, by a few numbers."""
    out = tmp_path / "run"
    small = ["--network", "pixelcnn:receptive_field=1,layers=1,channels=4,features=2"]
    few = ["--hidden", 8, "--epochs", 10, "--batch-size", 240]
    for command in (
        ["train", "vlae", *small, *few, "--out", out],
        ["plot", out],
        ["sample", out, "--num", 4],
        ["diagnose", out, "--num-data", 5, "--num-samples", 10, "--simulations", 0,
         "--without", "loo,annealing,gap,information,nuts,checks"],
    ):  # fmt: skip
        result = latente(*command)
        assert result.exit_code == 0, result.output
    refused = latente("diagnose", out, "--without", "gaps")
    assert refused.exit_code == 2
    assert "there is no diagnostic 'gaps': did you mean 'gap'?" in refused.stderr
    assert np.isin(np.load(out / "samples.npy"), [0, 16]).all()
    assert (out / "figures" / "samples.png").is_file()
    diagnosis = json.loads((out / "diagnosis" / "diagnosis.json").read_text())
    assert diagnosis["num_data"] == 5
    left_out = [f["topic"] for f in diagnosis["findings"] if f["sentence"].startswith("Left out")]
    assert left_out == ["loo", "annealing", "gap", "information", "nuts", "checks"]
    assert "Nothing can be said about: " in diagnosis["verdict"]
    assert not any("annealed" in key or "gap" in key for key in diagnosis)
    plan = json.loads((out / "config.json").read_text())["plan"]
    assert plan["network"] == small[1]
    assert plan["prior"] == "flow:transforms=3"


def arrays(folder):
    """Files of data that are no images."""
    rng = np.random.default_rng(0)
    np.save(folder / "rows.npy", rng.integers(0, 2, (60, 5)).astype(np.float32))
    np.save(folder / "volumes.npy", rng.integers(0, 2, (60, 1, 4, 4, 4)).astype(np.float32))
    (folder / "table.csv").write_text("a,b\n0,1\n1,0\n")


REFUSED = {
    "receptive field 0": (
        {"network": "pixelcnn:receptive_field=0"},
        "receptive_field of the network pixelcnn must be a whole number of at least 1, got '0'",
    ),
    "rows": ({"data": "rows.npy"}, "a datum has the shape (5,): take --network mlp"),
    "volumes": ({"data": "volumes.npy"}, "a datum has the shape (1, 4, 4, 4): take --network mlp"),
    "tables": ({"data": "table.csv"}, "the network pixelcnn is for images, and"),
    "columns": (
        {"data": "table.csv", "likelihood": "columns"},
        "the network pixelcnn is for images, and the likelihood columns for tables",
    ),
    "levels": ({"levels": "ladder:4-2,8-6"}, "the network pixelcnn is for one latent variable"),
    "quadrant": ({"given": "quadrant"}, "no image for the network pixelcnn: take --network mlp"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_pixels_before_is_refused_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays(tmp_path)
    choices, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        train(Plan(**{"recipe": "pixelvae", "epochs": 10, **choices}), tmp_path / "run",
              device="cpu", show_progress=False)  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
