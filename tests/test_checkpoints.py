"""Runs on disk: resumed runs, interrupted ones, and files that are not what they should be."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.optim.lr_scheduler import ExponentialLR

from latente.inference import fit, load_run
from latente.inference.recipes.plan import Plan, read_plan
from latente.inference.recipes.plan_data import load_plan_data
from latente.inference.recipes.train import train
from latente.inference.training import history as runs
from latente.inference.training.checkpoints import load, save
from latente.inference.training.step import Step

from .oracles import GlobalMean
from .test_fit import same, weights

quiet = partial(fit, show_progress=False, batch_size=20, schedule=partial(ExponentialLR, gamma=0.8))


class Stop(Exception):
    """Stands for whatever ends a process."""


def interrupted(monkeypatch, pair, data, out, *, at, error=KeyboardInterrupt, **options):
    """Fit, but fail in the middle of an epoch."""
    real, calls = Step.__call__, []

    def failing(*args):
        calls.append(1)
        if len(calls) == at:
            raise error
        return real(*args)

    monkeypatch.setattr(Step, "__call__", failing)
    with pytest.raises(error):
        quiet(*pair, data, out=out, **options)
    monkeypatch.setattr(Step, "__call__", real)


@pytest.mark.parametrize("optimizer", [None, partial(torch.optim.SGD, momentum=0.9)])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    make_pair, binary_images, tmp_path, monkeypatch, optimizer
):
    options = {"epochs": 6, "optimizer": optimizer, "learning_rate": 1e-4}
    whole = make_pair()
    expected = quiet(*whole, binary_images, out=tmp_path / "whole", **options)

    pair = make_pair()
    interrupted(monkeypatch, pair, binary_images, tmp_path / "run", at=37, **options)
    resumed = make_pair(seed=9)  # its own weights do not matter
    run = quiet(*resumed, binary_images, out=tmp_path / "run", resume=True, **options)

    assert same(weights(*resumed), weights(*whole))
    timing = {"seconds", "rows_per_second"}
    for row, other in zip(run.history, expected.history, strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {
            k: v for k, v in other.items() if k not in timing
        }
    read = runs.read_history(tmp_path / "run" / "metrics.csv", 6)
    assert read == [dict(row) for row in run.history]


def test_an_interrupted_run_leaves_a_checkpoint_from_before_the_first_epoch_on(
    make_pair, binary_images, tmp_path, monkeypatch
):
    interrupted(monkeypatch, make_pair(), binary_images, tmp_path / "run", at=3, epochs=2)
    _, facts = load(tmp_path / "run" / "checkpoint.safetensors")
    assert facts["epoch"] == 0
    run = quiet(*make_pair(), binary_images, out=tmp_path / "run", resume=True, epochs=2)
    assert run.epoch == 2


def test_half_a_row_of_metrics_does_no_harm(make_pair, binary_images, tmp_path):
    quiet(*make_pair(), binary_images, epochs=3, out=tmp_path)
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(metrics.read_text() + "4,0.51")
    run = quiet(*make_pair(), binary_images, epochs=4, out=tmp_path, resume=True)
    assert [row["epoch"] for row in runs.read_history(metrics, 4)] == [1, 2, 3, 4]
    assert run.epoch == 4
    metrics.write_text("epoch,loss\n1,\n")
    with pytest.raises(ValueError, match=r"metrics.csv is not the history of this run"):
        quiet(*make_pair(), binary_images, epochs=5, out=tmp_path, resume=True)


def test_early_stopping_survives_an_interruption(make_pair, binary_images, tmp_path, monkeypatch):
    noise = torch.rand(40, 4, 4).round()
    options = {"validation": binary_images, "patience": 5, "learning_rate": 0.02}
    whole = make_pair()
    expected = quiet(*whole, noise, epochs=100, **options)
    assert expected.epoch < 100
    at = 2 * expected.best_epoch + 5
    interrupted(monkeypatch, make_pair(), noise, tmp_path / "r", at=at, epochs=100, **options)
    resumed = make_pair()
    run = quiet(*resumed, noise, out=tmp_path / "r", resume=True, epochs=100, **options)
    assert (run.epoch, run.best_epoch) == (expected.epoch, expected.best_epoch)
    assert same(weights(*resumed), weights(*whole))
    loaded = make_pair(seed=5)
    load_run(tmp_path / "r", model=loaded[0], guide=loaded[1])
    assert same(weights(*loaded), weights(*whole))


def test_more_epochs_can_be_added(make_pair, binary_images, tmp_path):
    quiet(*make_pair(), binary_images, epochs=2, out=tmp_path / "run")
    run = quiet(*make_pair(), binary_images, epochs=4, out=tmp_path / "run", resume=True)
    whole = quiet(*make_pair(), binary_images, epochs=4)
    assert [r["loss"] for r in run.history] == [r["loss"] for r in whole.history]


def test_plain_callables_resume_too(tmp_path):
    x = torch.randn(60)
    pair = GlobalMean()
    options = {"objective": Trace_ELBO(), "learning_rate": 0.01}
    quiet(pair.model, pair.guide, x, epochs=2, out=tmp_path / "run", **options)
    run = quiet(pair.model, pair.guide, x, epochs=4, out=tmp_path / "run", resume=True, **options)
    whole = quiet(pair.model, pair.guide, x, epochs=4, **options)
    assert [r["loss"] for r in run.history] == [r["loss"] for r in whole.history]
    stored = run.guide.store["params"]
    assert {k: v.item() for k, v in stored.items()} == {
        k: v.item() for k, v in whole.guide.store["params"].items()
    }


def test_a_folder_that_holds_a_run_is_not_written_over(make_pair, binary_images, tmp_path):
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run: continue it"):
        quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        quiet(*make_pair(), binary_images, epochs=1, out=tmp_path / "other", resume=True)
    assert not (tmp_path / "other").exists()


def test_refused_input_leaves_no_folder(make_pair, binary_images, tmp_path):
    with pytest.raises(ValueError, match="support of Bernoulli"):
        quiet(*make_pair(), binary_images / 2, epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "was run with seed=0, not 1"),
        ({"batch_size": 10}, "batch_size=20, not 10"),
        ({"learning_rate": 0.5}, "learning_rate=0.001, not 0.5"),
        ({"optimizer": torch.optim.SGD}, "optimizer=Adam, not SGD"),
        ({"objective": Trace_ELBO()}, "objective=TraceMeanField_ELBO, not Trace_ELBO"),
    ],
)
def test_a_run_is_not_resumed_under_other_settings(
    make_pair, binary_images, tmp_path, options, message
):
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    with pytest.raises(ValueError, match=message):
        quiet(*make_pair(), binary_images, epochs=2, out=tmp_path, resume=True, **options)
    with pytest.raises(ValueError, match="was run with num_data=200, not 100"):
        quiet(*make_pair(), binary_images[:100], epochs=2, out=tmp_path, resume=True)


def test_a_checkpoint_of_another_model_is_refused(make_pair, binary_images, tmp_path):
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    other = make_pair(latent_dim=3)
    before = weights(*other)
    with pytest.raises(ValueError, match=r"of another model: \S+ has shape .* in the file"):
        load_run(tmp_path, model=other[0], guide=other[1])
    assert same(weights(*other), before)
    vae, guide = make_pair()
    with pytest.raises(ValueError, match=r"of another model: guide\.1.bias is missing in the file"):
        load_run(tmp_path, model=vae, guide=guide.encoder)
    with pytest.raises(ValueError, match="give both model and guide"):
        load_run(tmp_path, model=vae)
    with pytest.raises(ValueError, match="holds no plan of a recipe"):
        load_run(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_or_foreign_checkpoint_is_refused(make_pair, binary_images, tmp_path, kept):
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    vae, guide = make_pair()
    with pytest.raises(ValueError, match="is truncated, or not a checkpoint of latente"):
        load_run(tmp_path, model=vae, guide=guide)
    path.write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match="is truncated, or not a checkpoint of latente"):
        load_run(tmp_path, model=vae, guide=guide)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    save(path, {"a": torch.ones(3)}, {"epoch": 1})
    before = path.read_bytes()

    def dying(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise Stop

    monkeypatch.setattr("latente.inference.training.checkpoints.save_file", dying)
    with pytest.raises(Stop):
        save(path, {"a": torch.zeros(3)}, {"epoch": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_weights_that_became_nan_are_never_kept(make_pair, binary_images, tmp_path):
    """The gradient of the last step is NaN: its loss is finite, its weights are not."""
    vae, guide = make_pair()
    calls = []

    def poison(grad):
        calls.append(1)
        return grad * float("nan") if len(calls) == 20 else grad

    vae.decoder[1].weight.register_hook(poison)
    with pytest.raises(FloatingPointError, match="the weights became NaN or infinite in epoch 2"):
        quiet(vae, guide, binary_images, epochs=2, out=tmp_path)
    tensors, facts = load(tmp_path / "checkpoint.safetensors")
    assert facts["epoch"] == 1
    assert all(bool(v.isfinite().all()) for v in tensors.values() if v.is_floating_point())


def test_a_stretched_schedule_goes_on_at_its_new_rate(tmp_path):
    out = tmp_path / "run"
    plan = Plan(epochs=4, hidden=(8,))
    train(plan, out, device="cpu", show_progress=False)
    longer = train(replace(plan, epochs=8), out, device="cpu", resume=True, show_progress=False)
    rates = [row["learning_rate"] for row in longer.history]
    # Eight epochs hold the rate for 4.8 and let it fall along half a cosine over 3.2.
    fall = [0.5 * (1 + math.cos(math.pi * (epoch - 4.8) / 3.2)) for epoch in (5, 6, 7)]
    assert rates[4:] == pytest.approx([1e-3, *(1e-3 * factor for factor in fall)], rel=1e-6)


def test_recipes_start_at_the_training_mean_from_weights_of_their_seed(tmp_path):
    def fitted(seed, name):
        plan = Plan(recipe="vae", hidden=(8,), epochs=1, learning_rate=1e-12, seed=seed)
        return train(plan, tmp_path / name, device="cpu", show_progress=False), plan

    (run, plan), (again, _), (other, _) = fitted(0, "a"), fitted(0, "b"), fitted(1, "c")
    assert same(weights(run.model, run.guide), weights(again.model, again.guide))
    slopes = [r.guide.encoder[-1].weight for r in (run, other)]
    assert (slopes[0] - slopes[1]).abs().max() > 1e-2
    expected = load_plan_data(plan).train.mean(0).clamp(0.01, 0.99).flatten()
    assert torch.allclose(run.model.decoder[-1].bias.sigmoid(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "does not hold a JSON object"),
        ('{"plan": {}}', "holds no plan of a recipe"),
        ("{}", "holds no plan of a recipe"),
    ],
)
def test_foreign_settings_are_named(tmp_path, content, message):
    train(Plan(epochs=1, hidden=(4,)), tmp_path / "r", device="cpu", show_progress=False)
    (tmp_path / "r" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path / "r")


def test_a_plan_of_another_kind_is_named(tmp_path):
    train(Plan(epochs=1, hidden=(4,)), tmp_path / "r", device="cpu", show_progress=False)
    path = tmp_path / "r" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "plan": {**config["plan"], "latent_dim": "2"}}))
    with pytest.raises(ValueError, match="its latent_dim is '2'"):
        load_run(tmp_path / "r")
    path.write_text(json.dumps({**config, "event_shape": None}))
    with pytest.raises(ValueError, match="gives no event_shape"):
        load_run(tmp_path / "r")


def test_a_fact_that_json_cannot_hold_leaves_no_run(make_pair, binary_images, tmp_path):
    with pytest.raises(TypeError):
        quiet(*make_pair(), binary_images, epochs=1, out=tmp_path / "r", config={"a": {1, 2}})
    assert not (tmp_path / "r").exists()


def test_a_plan_rebuilds_its_run(tmp_path):
    plan = Plan(epochs=2, hidden=(7, 5), latent_dim=3, seed=4)
    run = train(plan, tmp_path / "run", device="cpu", show_progress=False)
    loaded = load_run(tmp_path / "run")
    assert same(weights(loaded.model, loaded.guide), weights(run.model, run.guide))
    assert loaded.epoch == 2
    assert [dict(row) for row in loaded.history] == [dict(row) for row in run.history]
    assert read_plan(tmp_path / "run").hidden == (7, 5)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["plan"]["recipe"] == "vae"
    assert config["fit"]["epochs"] == 2
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load_run(tmp_path)
    (tmp_path / "run" / "config.json").write_text('{"plan": ')
    with pytest.raises(ValueError, match=r"config.json is truncated or not JSON"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
def test_files_of_somebody_else_are_not_overwritten(name, make_pair, binary_images, tmp_path):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=f"has a {name} that is not of a run: choose another"):
        fit(*make_pair(), binary_images, epochs=1, out=tmp_path, show_progress=False)
    assert (tmp_path / name).read_text() == '{"mine": 1}'
