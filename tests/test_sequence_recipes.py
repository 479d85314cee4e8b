"""Models of sequences from the command line: trained, kept, looked at; what is refused."""

import json
import wave

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latente.guides import SequencePosterior
from latente.inference import load_run
from latente.inference.cli.app import app
from latente.inference.recipes.build import build_planned, planned_sizes
from latente.inference.recipes.plan import Plan, complete, fill_axes, read_plan
from latente.inference.recipes.registry import RECIPES
from latente.inference.recipes.train import train
from latente.inference.training.checkpoints import load
from latente.inference.training.run_folder import CHECKPOINT
from latente.models import (
    VAE,
    AutoregressiveLikelihood,
    Bernoulli,
    Categorical,
    Normal,
    RecurrentLikelihood,
    StateSpaceModel,
)

SMALL = "chain:dim=2,width=4,state=5"
WHOLE = "sequence:dim=2,state=5"


def latente(*arguments):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Chorales, spoken digits, a text and padded sequences, a few short ones of each."""
    rng = np.random.default_rng(0)

    def chorale():
        return [
            sorted(map(int, rng.choice(np.arange(48, 72), 3))) for _ in range(rng.integers(2, 6))
        ]

    content = {part: [chorale() for _ in range(n)] for part, n in
               (("train", 20), ("valid", 4), ("test", 5))}  # fmt: skip
    (tmp_path / "jsb-chorales-quarter.json").write_text(json.dumps(content))
    lengths = rng.integers(200, 500, 12)
    np.savez(
        tmp_path / "spoken-digits.npz",
        samples=rng.integers(-3000, 3000, lengths.sum()).astype(np.int16),
        lengths=lengths, digit=np.arange(12) % 3, speaker=np.arange(12) % 2,
        take=np.arange(12),
    )  # fmt: skip
    (tmp_path / "lines.txt").write_text("to be\nor not to be\nthat is\nthe question\n" * 5)
    of_each = rng.integers(2, 7, 30)
    np.savez(tmp_path / "walks.npz", x=rng.standard_normal((30, 6, 3)), n=of_each)
    monkeypatch.setenv("LATENTE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = "train", "--beta", "1", "--batch-size", "6", "--compile", "plain", "--out", "run"
FIELD = f"{SMALL},guide=mean-field,transition=mlp"
NOTES = f"{SMALL},autoregressive=3,transition=linear"


@pytest.mark.parametrize(
    ("data", "options", "kind"),
    [
        ("jsb-chorales", ("--levels", SMALL), Bernoulli),
        ("spoken-digits", ("--standardize", "--levels", f"{SMALL},cell=lstm"), Normal),
        ("lines.txt", ("--tokens", "characters", "--levels", SMALL), Categorical),
        ("lines.txt", ("text-vae", "--tokens", "words", "--levels", WHOLE), RecurrentLikelihood),
        ("walks.npz", ("--lengths", "n", "--levels", WHOLE), RecurrentLikelihood),
        ("walks.npz", ("dmm-mean-field", "--lengths", "n", "--levels", FIELD), Normal),
        ("walks.npz", ("dmm-autoregressive", "--levels", NOTES), AutoregressiveLikelihood),
    ],
)
def test_a_run_is_trained_and_answers_every_command(folder, data, options, kind):
    latente(*TRAIN, *options, "--data", data, "--epochs", 1)
    run = load_run("run")
    assert isinstance(run.model, VAE if kind is RecurrentLikelihood else StateSpaceModel)
    assert isinstance(run.model.likelihood, kind)
    has_lengths = run.transform.has_lengths
    told = latente("evaluate", "run", "--num-samples", 20)
    assert ("Σ log p(x) / Σ T" in told) is has_lengths
    assert ("the mean over sequences" in told) is has_lengths
    latente("score", "run", "--num-samples", 20)
    latente("encode", "run", "--num-samples", 20)
    latente("plot", "run")
    latente("sample", "run", "--num", 6)
    latente("train", "--out", "run", "--resume", "--epochs", 2)
    resumed = load_run("run")
    assert resumed.epoch == 2
    assert load(folder / "run" / CHECKPOINT)[1]["like_lengths"] is has_lengths
    assert {"training.png", "samples.png", "reconstructions.png", "latent.png", "sampled.png"} <= {
        path.name for path in (folder / "run" / "figures").iterdir()
    }


def test_chorales_are_drawn_as_long_as_they_are_or_as_is_said(folder):
    latente(*TRAIN, "--data", "jsb-chorales", "--levels", SMALL, "--epochs", 1)
    latente("sample", "run", "--num", 6)
    with np.load("run/samples.npz") as drawn:
        lengths, x = drawn["lengths"], drawn["x"]
    known = [length for length, _ in load_run("run").transform.train_lengths]
    assert x.shape == (6, lengths.max(), 88)
    assert set(lengths.tolist()) <= set(known)
    assert set(np.unique(x)) <= {0, 1}
    with wave.open("run/samples.wav") as sound:  # half a second a step, and after each chorale
        assert sound.getnframes() == sound.getframerate() // 2 * (lengths[:4].sum() + 4)
    latente("sample", "run", "--num", 2, "--length", 9, "--overwrite")
    with np.load("run/samples.npz") as drawn:
        assert drawn["lengths"].tolist() == [9, 9]
    result = CliRunner().invoke(app, ["sample", "run", "--num", "2"])
    assert result.exit_code == 2
    assert "is there already" in result.output
    for option, reason in (("--label", "given labels"), ("--length", "at least 1 step, got")):
        words = ["sample", "run", "--overwrite", option, "0"]
        refused = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
        assert refused.exit_code == 2
        assert reason in refused.output


def test_a_text_keeps_its_vocabulary_and_is_drawn_as_text(folder):
    options = "--tokens", "words", "--levels", SMALL, "--epochs", 1
    latente(*TRAIN, "--data", "lines.txt", *options)
    latente("sample", "run", "--num", 7)
    assert len((folder / "run" / "samples.txt").read_text().splitlines()) == 7
    run = load_run("run")
    assert run.transform.vocabulary.tokens[:2] == ("<end>", "<unknown>")
    (folder / "new.txt").write_text("or that\nnever seen\n")
    assert "2 data" in latente("score", "run", "--data", "new.txt", "--num-samples", 5)


def test_a_chain_of_short_sequences_is_diagnosed(folder):
    latente(*TRAIN, "dmm", "--data", "walks.npz", "--lengths", "n", "--levels", SMALL,
            "--epochs", 1)  # fmt: skip
    latente("diagnose", "run", "--num-samples", 50, "--simulations", 20,
            "--without", "annealing,gap,nuts")  # fmt: skip
    report = json.loads((folder / "run" / "diagnosis" / "diagnosis.json").read_text())
    told = {finding["topic"]: finding["sentence"] for finding in report["findings"]}
    assert "Not looked at" not in "".join(told.values())


CHAINS = [name for name, one in RECIPES.items() if one.levels.startswith("chain")]


@pytest.mark.parametrize("recipe", CHAINS)
def test_every_recipe_of_chains_builds_its_pair(recipe):
    plan = Plan(recipe=recipe, data="jsb-chorales")
    assert fill_axes(plan).likelihood == "bernoulli"
    assert fill_axes(plan).binarize == "none"
    model, guide = build_planned(plan, planned_sizes(plan, (9, 88)))
    x, lengths = torch.zeros(2, 9, 88), torch.tensor([9, 4])
    assert model(x, lengths).shape == (2, 9, 88)
    assert guide(x, lengths).shape == (2, 9, 64)
    assert guide.posterior(x, lengths).memoryless is (recipe == "dmm-mean-field")
    assert isinstance(guide, SequencePosterior)


def test_the_recipe_of_texts_builds_its_pair():
    plan = Plan(recipe="text-vae", data="lines.txt", tokens="words")
    model, guide = build_planned(plan, planned_sizes(plan, (9,), num_classes=20))
    x, lengths = torch.tensor([[3, 5, 0, 0], [7, 2, 4, 0]]), torch.tensor([3, 4])
    assert model(x, lengths).shape == (2, 4)
    assert guide(x, lengths).shape == (2, 32)
    assert model.likelihood.end == guide.encoder.end == 0
    assert "word_dropout=0.25" in repr(model)
    plain = Plan(recipe="text-vae", data="jsb-chorales")
    assert build_planned(plain, planned_sizes(plain, (88,)))[0].likelihood.end is None


def test_the_likelihood_suits_the_data_and_filtering_is_an_objective(folder):
    of = {data: fill_axes(Plan(data=data)).likelihood
          for data in ("jsb-chorales", "spoken-digits", "lines.txt")}  # fmt: skip
    assert of == {
        "jsb-chorales": "bernoulli",
        "spoken-digits": "normal",
        "lines.txt": "categorical",
    }
    plan = Plan(data="jsb-chorales", levels=SMALL, objective="filtering:k=3", posterior="full-rank",
                epochs=1, batch_size=8)  # fmt: skip
    train(plan, folder / "run", device="cpu", compile="plain", show_progress=False)
    known = load(folder / "run" / CHECKPOINT)[1]
    assert known["objective"] == "Filtering_ELBO(num_particles=3, threshold=0.5)"
    assert read_plan(folder / "run") == complete(plan)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"data": "lines.txt"}, "give --tokens characters, or --tokens words"),
        ({"data": "jsb-chorales", "tokens": "words"}, "--tokens is for a text"),
        ({"data": "jsb-chorales", "recipe": "vae"}, "take --levels chain, or the recipe dmm"),
        ({"data": "digits", "recipe": "dmm"}, "is for sequences, and digits holds images"),
        ({"data": "a.csv", "recipe": "dmm"}, "holds a table"),
        ({"data": "lines.txt", "tokens": "words", "likelihood": "normal"}, "take --likelihood cat"),
        ({"data": "jsb-chorales", "prior": "vamp"}, "the prior of a chain is its transition"),
        ({"data": "jsb-chorales", "recipe": "text-vae", "prior": "flow"}, "has a standard normal"),
        (
            {"data": "jsb-chorales", "recipe": "text-vae", "objective": "filtering"},
            "goes along a chain of latent variables",
        ),
        ({"data": "jsb-chorales", "levels": "sequence:word_dropout=1"}, "would see no step"),
        ({"data": "jsb-chorales", "posterior": "point"}, "need a posterior with a density"),
        ({"data": "jsb-chorales", "objective": "info"}, "a chain has one at each step"),
        ({"data": "jsb-chorales", "network": "conv"}, "not for --levels chain"),
        ({"data": "jsb-chorales", "given": "labels"}, "take no context yet"),
        ({"data": "jsb-chorales", "latent_dim": 8}, "has dim and width of its own"),
        ({"objective": "filtering"}, "goes along a chain of latent variables"),
        ({"data": "jsb-chorales", "objective": "filtering:k=1"}, "of at least 2"),
        ({"data": "jsb-chorales", "levels": "chain:guide=lstm"}, "backward, forward, both or mean"),
    ],
)
def test_what_does_not_go_together_is_refused_before_data_are_read(plan, message, monkeypatch):
    monkeypatch.setattr("latente.inference.recipes.plan_data.load_data", pytest.fail)
    with pytest.raises(ValueError, match=message) as caught:
        complete(Plan(**plan), check_files=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "vae-normal", "lengths": "n"}, "is for data of one shape: take --levels chain"),
        ({"recipe": "dmm", "lengths": "of"}, "has no array 'of': it holds"),
        ({"recipe": "dmm", "lengths": "n", "likelihood": "categorical"}, "save them as integers"),
        ({"recipe": "dmm", "lengths": "n", "likelihood": "bernoulli"}, r"outside \[0, 1\]"),
    ],
)
def test_what_the_data_turn_out_to_be_is_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        train(Plan(data="walks.npz", **options), folder / "run", device="cpu", show_progress=False)
    assert not (folder / "run").exists()
