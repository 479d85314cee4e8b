"""M2 from parts and from the command line: half-known labels of the 8 × 8 digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from latente.guides import Classifying, DiagonalNormal
from latente.inference import (
    AuxiliaryLoss,
    Beta_ELBO,
    ImportanceWeighted_ELBO,
    SomeLabels,
    classify,
    evaluate,
    fit,
    load_data,
    load_run,
    sample_prior,
)
from latente.inference.cli.app import app
from latente.inference.common.files import read_json
from latente.inference.recipes.given_labels import with_given_labels
from latente.inference.training import preparation
from latente.inference.training.run import Run
from latente.inference.training.step import Step
from latente.models import (
    VAE,
    Bernoulli,
    Conditional,
    FlattenEvent,
    HalfLabelled,
    OneHot,
    StandardNormal,
    mlp,
)

DATA = load_data("digits", binarize="static", given=SomeLabels(100), seed=0)


def make_pair(hidden: int = 16, latent_dim: int = 4) -> tuple[HalfLabelled, Classifying]:
    torch.manual_seed(0)
    decoder = Conditional(
        mlp(latent_dim + 10, hidden, out=64), FlattenEvent(latent_dim), OneHot(10)
    )
    encoder = Conditional(
        mlp(64 + 10, hidden, out=2 * latent_dim), FlattenEvent((8, 8)), OneHot(10)
    )
    model = HalfLabelled(VAE(StandardNormal(latent_dim), decoder, Bernoulli((8, 8))), 10)
    classifier = mlp(64, hidden, out=10)
    return model, Classifying(DiagonalNormal(encoder, latent_dim), classifier)


def test_known_labels_are_drawn_evenly_by_the_seed() -> None:
    (labels,) = DATA.train_context
    known = labels[labels >= 0]
    assert known.bincount().tolist() == [10] * 10
    assert DATA.train_labels is not None
    assert torch.equal(DATA.train_labels[labels >= 0], known)
    assert bool((DATA.test_context[0] == -1).all())
    assert not torch.equal(SomeLabels(100).hide(DATA, seed=1).train_context[0], labels)
    (uneven,) = SomeLabels(23).hide(DATA, seed=0).train_context
    assert sorted(uneven[uneven >= 0].bincount().tolist()) == [2] * 7 + [3] * 3
    with pytest.raises(ValueError, match="of 3 known labels some would have none"):
        SomeLabels(3).hide(DATA, seed=0)
    with pytest.raises(ValueError, match="20000 known labels are 2000 of each class, and digits"):
        SomeLabels(20_000).hide(DATA, seed=0)
    without = replace(DATA, train_labels=None)
    with pytest.raises(ValueError, match="digits has no labels of which some could be known"):
        SomeLabels(100).hide(without, seed=0)


def test_labels_that_are_no_class_are_refused_with_their_row() -> None:
    model, guide = make_pair()
    labels = DATA.train_labels
    assert labels is not None
    wrong = labels.clone()
    wrong[700] = 12
    message = "labels are 0 to 9, or -1 or NaN where they are not known, but row 700, .* has 12"
    with pytest.raises(ValueError, match=message):
        fit(model, guide, (DATA.train, wrong), epochs=1, show_progress=False)
    with pytest.raises(ValueError, match=r"but row 1, counted from 0, has 0\.5"):
        model(DATA.train[:2], torch.tensor([torch.nan, 0.5]))
    codes = labels.numpy().copy()
    codes[4] = -2
    with pytest.raises(ValueError, match="but -2 is in row 4, counted from 0 of"):
        load_data(DATA.train, labels=codes, given=SomeLabels(), test=0.0, validation=0.0)


def test_all_labels_known_is_the_conditional_bound_and_the_prior_of_the_label() -> None:
    model, guide = make_pair()
    assert DATA.train_labels is not None
    x, y = DATA.train[:20], DATA.train_labels[:20]
    for objective, same in (
        (Beta_ELBO(num_particles=2), Beta_ELBO(num_particles=20)),
        (ImportanceWeighted_ELBO(1, 2), ImportanceWeighted_ELBO(1, 20)),
    ):
        objective.loss(model, guide, x, y)
        same.loss(model.model, guide.guide, x, y)
        torch.manual_seed(0)
        half = objective.loss(model, guide, x, y)
        torch.manual_seed(0)  # the draws of z at the ten values of y are 20 draws at the known one
        whole = same.loss(model.model, guide.guide, x, y)
        expected = whole + 20 * torch.tensor(10.0).log().item()
        assert half == pytest.approx(expected, rel=1e-5)


def test_nan_is_an_unknown_label_too() -> None:
    model, guide = make_pair()
    x, y = DATA.train[:20], DATA.train_context[0][:20]
    numbers = torch.where(torch.as_tensor(y == -1), torch.nan, y)
    losses = []
    for labels in (y, numbers):
        Beta_ELBO().loss(model, guide, x, labels)
        torch.manual_seed(0)
        losses.append(Beta_ELBO().loss(model, guide, x, labels))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("objective", [Beta_ELBO(), ImportanceWeighted_ELBO(2)], ids=repr)
def test_recorded_steps_are_the_plain_ones(
    objective: Beta_ELBO, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def step(*args: Any, **options: Any) -> Step:
        steps.append(Step(*args, **{**options, "record_after": 0.0}))
        return steps[-1]

    monkeypatch.setattr(preparation, "Step", step)

    def run(compile: str) -> list[float]:
        with_term = AuxiliaryLoss(objective, {"classifier_loss": 5.0})
        options = {"epochs": 2, "batch_size": 360, "compile": compile, "show_progress": False}
        rows = DATA.train[:720], DATA.train_context[0][:720]
        found = fit(*make_pair(), rows, objective=with_term, seed=0, **options)
        assert found.note == ""
        return [row["loss"] for row in found.history]

    assert run("recorded") == pytest.approx(run("plain"), rel=1e-5)
    assert steps[0].loss_and_gradients.stays


def test_the_classifiers_term_teaches_it_the_known_labels() -> None:
    model, guide = make_pair(hidden=32)
    (labels,) = DATA.train_context
    rows = torch.cat([(labels >= 0).nonzero()[:, 0], (labels < 0).nonzero()[:100, 0]])
    objective = AuxiliaryLoss(Beta_ELBO(), {"classifier_loss": 5.0})
    options = {"epochs": 40, "learning_rate": 1e-2, "batch_size": 100, "show_progress": False}
    before = evaluate(model, guide, DATA, num_samples=5)
    run = fit(model, guide, (DATA.train[rows], labels[rows]), objective=objective, **options)
    after = evaluate(model, guide, DATA, num_samples=5)
    assert before["accuracy"] < 0.4
    assert after["accuracy"] > 0.65
    assert after["num_labelled"] == 0
    assert after["latent_dim"] == 4  # the label is no latent unit
    assert "bits_per_dimension" not in after
    (probabilities,) = classify(run.model, run.guide, DATA).values()
    right = (probabilities.argmax(1) == DATA.test_labels).double().mean().item()
    assert after["accuracy"] == right
    labels = DATA.test_labels
    assert labels is not None
    half = torch.where(torch.arange(len(labels)) < 30, labels, -1)
    both = evaluate(model, guide, (DATA.test, half), labels=labels, num_samples=5)
    assert both["num_labelled"] == 30
    share = 30 / len(labels)
    mean = share * both["elbo_labelled"] + (1 - share) * both["elbo_unlabelled"]
    assert both["elbo"] == pytest.approx(mean, abs=1e-6)
    assert both["accuracy"] == right
    # Labels are unknown where they are −1, or NaN.
    known = torch.arange(len(labels)) % 3 > 0
    some = evaluate(model, guide, DATA, labels=labels.where(known, torch.nan), num_samples=5)
    of_known = (probabilities.argmax(1) == labels)[known].double().mean().item()
    assert some["accuracy"] == of_known != right


def test_samples_are_of_the_class_that_is_given() -> None:
    half, classifying = make_pair()
    run = with_given_labels(Run(half, classifying, []))
    model, guide = run.model, run.guide
    with torch.no_grad():  # a decoder of which the class alone decides: pixel y is 1
        network = [part for part in model.decoder.network if hasattr(part, "weight")]
        first, linear = network
        linear.weight.zero_()
        linear.bias.fill_(-20.0)
        first.weight.zero_()
        first.bias.zero_()
        first.weight[:10, 4:] = torch.eye(10)
        linear.weight[:10, :10] = 60.0 * torch.eye(10)
    classes = torch.arange(10)
    _, drawn = sample_prior(model, guide, 10, (DATA.test[:10], classes))
    assert drawn.flatten(1).argmax(1).tolist() == classes.tolist()
    assert drawn.sum().item() == 10


def run_command(*words: str) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("recipe", ["m2", "m1-m2"])
def test_command_line(recipe: str, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    given = ("--given", "some-labels:known=100,weight=0.2")
    small = ("--epochs", "1", "--hidden", "16", "--batch-size", "480")
    run_command("train", recipe, *given, *small, "--data", "digits", "--out", out)
    run = load_run(out)
    assert isinstance(run.model, HalfLabelled)
    weight = 0.2 * len(DATA.train) / 100
    assert f"'classifier_loss': {weight}" in str(run.config)
    table = run_command("evaluate", out, "--num-samples", "5")
    assert "log p(x, y) of 0 labelled rows, log p(x) of 180" in table
    assert read_json(Path(out) / "evaluation.json")["accuracy"] >= 0
    if recipe == "m2":
        run_command("sample", out, "--num", "4", "--label", "3,7")
        refused = CliRunner().invoke(app, ["sample", out, "--label", "11", "--overwrite"])
        assert refused.exit_code != 0


def test_compositions_that_draw_labels_are_refused() -> None:
    words = ["train", "m2", "--objective", "score-function", "--data", "digits"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code != 0
