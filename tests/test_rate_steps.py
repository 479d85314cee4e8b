"""Schedules of the learning rate: by the step and by a figure, resumed, and refused."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from typer.testing import CliRunner

from latente.inference import fit
from latente.inference.cli.app import app
from latente.inference.recipes.plan import Plan, complete, read_plan
from latente.inference.recipes.train import train
from latente.inference.training import learning_rates
from latente.inference.training.learning_rates import named_schedule

from .test_fit import same, weights

STEPS, EPOCHS = 5, 6  # 200 data in batches of 40
quiet = partial(fit, show_progress=False, batch_size=40, learning_rate=1e-2, compile="plain")


def sequence(optimizer):
    parts = [LinearLR(optimizer, 0.1, total_iters=7), MultiStepLR(optimizer, [4, 9], gamma=0.3)]
    return SequentialLR(optimizer, parts, milestones=[8])


SCHEDULES = {
    "one cycle": (partial(OneCycleLR, max_lr=0.05, total_steps=STEPS * EPOCHS), "step"),
    "warm restarts": (partial(CosineAnnealingWarmRestarts, T_0=4, T_mult=2), "step"),
    "lambda": (partial(LambdaLR, lr_lambda=lambda step: 0.95**step), "step"),
    "sequence": (sequence, "step"),
    "milestones": (partial(MultiStepLR, milestones=[2, 4, 4], gamma=0.1), "epoch"),
    "plateau": (partial(ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.3), "epoch"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_is_the_uninterrupted_one_bit_for_bit(
    name, make_pair, binary_images, tmp_path
):
    schedule, per = SCHEDULES[name]
    options = {"schedule": schedule, "schedule_per": per}
    whole = make_pair()
    expected = quiet(*whole, binary_images, epochs=EPOCHS, **options)

    class Ended(Exception):
        """Stands for whatever ends a process."""

    def counted(optimizer):
        optimizer.register_step_post_hook(lambda *_: calls.append(1) or _end(calls, Ended))
        return schedule(optimizer)

    calls = []
    with pytest.raises(Ended):
        quiet(
            *make_pair(), binary_images, epochs=EPOCHS, out=tmp_path,
            **{**options, "schedule": counted},
        )  # fmt: skip
    resumed = make_pair(seed=4)
    run = quiet(*resumed, binary_images, epochs=EPOCHS, out=tmp_path, resume=True, **options)
    for column in ("learning_rate", "loss", "elbo"):
        assert [row[column] for row in run.history] == [row[column] for row in expected.history]
    assert same(weights(*resumed), weights(*whole))
    assert len({row["learning_rate"] for row in run.history}) > 1


def _end(calls, error):
    if len(calls) == 3 * STEPS + 2:
        raise error


@pytest.mark.parametrize("name", ["one cycle", "warm restarts", "lambda"])
def test_a_schedule_by_the_step_has_pytorchs_rates(name, make_pair, binary_images):
    """The rate that a loop of one's own gives to the last step of each epoch."""
    schedule, per = SCHEDULES[name]
    run = quiet(*make_pair(), binary_images, epochs=EPOCHS, schedule=schedule, schedule_per=per)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-2)
    scheduler, rates = schedule(optimizer), []
    for _ in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [row["learning_rate"] for row in run.history] == rates[STEPS - 1 :: STEPS]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_goes_by_the_validation_loss_or_by_the_loss(mode, make_pair, binary_images):
    def rates(losses):
        optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-2)
        scheduler = schedule(optimizer)
        found = []
        for loss in losses:
            found.append(optimizer.param_groups[0]["lr"])
            scheduler.step(loss if mode == "min" else -loss)
        return found

    schedule = partial(
        ReduceLROnPlateau, mode=mode, patience=0, threshold=0.3, threshold_mode="abs"
    )
    data = binary_images[:120]
    runs = [
        quiet(*make_pair(), data, validation=validation, epochs=8, schedule=schedule)
        for validation in (None, binary_images[120:].flip(0))
    ]
    histories = [run.history for run in runs]
    losses = [row["loss"] for row in histories[0]]
    validated = [-row["validation_elbo"] for row in histories[1]]
    assert [row["learning_rate"] for row in histories[0]] == rates(losses)
    assert [row["learning_rate"] for row in histories[1]] == rates(validated)
    assert rates(losses)[-1] < 1e-2
    assert rates(validated)[-1] < 1e-2
    assert rates(validated) != rates([row["loss"] for row in histories[1]])


REFUSED = {
    "too short": (
        {"schedule": partial(OneCycleLR, max_lr=0.1, total_steps=9), "schedule_per": "step"},
        r"has total_steps=9, and the fit needs 10, one for each step: set total_steps to that",
    ),
    "class": ({"schedule": ExponentialLR}, r"schedule cannot be made from an optimizer \(.*gamma"),
    "made": (
        {"schedule": ExponentialLR(torch.optim.SGD([torch.zeros(1)], lr=1.0), 0.9)},
        "schedule is a ExponentialLR already, of another optimizer than that of the fit",
    ),
    "number": ({"schedule": 0.9}, "schedule is a float: give what makes a scheduler"),
    "other": ({"schedule": lambda optimizer: 0.9}, "schedule made a float: give what makes"),
    "plateau": (
        {"schedule": ReduceLROnPlateau, "schedule_per": "step"},
        "ReduceLROnPlateau goes by a figure of each epoch: leave schedule_per at 'epoch'",
    ),
    "none": ({"schedule_per": "step"}, "schedule_per is given without a schedule"),
    "per": ({"schedule": ReduceLROnPlateau, "schedule_per": "batch"}, "is 'epoch' or 'step', got"),
    "infinite": ({"learning_rate": math.inf}, "learning_rate must be finite, got inf"),
    "nan": ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_that_cannot_be_is_refused(options, message, make_pair, binary_images, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*make_pair(), binary_images, epochs=2, out=out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_run_is_resumed_with_its_own_schedule_alone(make_pair, binary_images, tmp_path):
    """Else the options of the interrupted run would be taken, and those given be ignored."""
    steps = partial(lr_scheduler.StepLR, step_size=3)
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path, schedule=steps)
    resume = partial(quiet, *make_pair(), binary_images, epochs=2, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="run with step_size=3 in its schedule, not 4"):
        resume(schedule=partial(lr_scheduler.StepLR, step_size=4))
    with pytest.raises(ValueError, match="was run with schedule=StepLR, not None"):
        resume()
    with pytest.raises(ValueError, match="was run with schedule_per=epoch, not step"):
        resume(schedule=steps, schedule_per="step")
    assert resume(schedule=steps).epoch == 2


def test_no_callbacks_may_be_none(make_pair, binary_images):
    assert quiet(*make_pair(), binary_images, epochs=1, callbacks=None).epoch == 1


def falling(losses, epochs, rate=0.03):
    """The rates of the schedule plateau by its definition: a tenth after so many bad epochs."""
    rates, best, bad = [], math.inf, 0
    for loss in losses:
        rates.append(rate)
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad == epochs:
            rate, bad = rate * 0.1, 0
    return pytest.approx(rates, rel=1e-12)


def test_the_named_plateau_takes_a_tenth_after_ten_epochs_without_a_new_best():
    """Negative losses too: there PyTorch's own threshold takes −99.995 for better than −100."""
    losses = [3.0, 2.0, -100.0, *[-99.995] * 9, -101.0, *[-100.995] * 21]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
    scheduler, rates = named_schedule("plateau", 50)(optimizer), []
    for loss in losses:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss)
    assert rates == falling(losses, 10)
    assert rates[:23] == [0.03] * 23
    assert rates[23:] == pytest.approx([0.003] * 10 + [0.0003], rel=1e-12)


@pytest.fixture
def noise(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.save(tmp_path / "noise.npy", rows)
    return str(tmp_path / "noise.npy")


def test_a_plan_has_its_schedule_and_is_resumed_with_it(noise, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_rates, "PLATEAU_EPOCHS", 2)

    def run(name, epochs, schedule, resume=False):
        plan = Plan(data=noise, schedule=schedule, epochs=epochs, learning_rate=0.3, hidden=(4,))
        return train(plan, tmp_path / name, resume=resume, device="cpu", show_progress=False)

    def column(run, name):
        return [row[name] for row in run.history]

    assert column(run("constant", 3, "constant"), "learning_rate") == [0.3] * 3
    assert column(run("default", 5, "hold-then-fall"), "learning_rate")[:4] == [0.3] * 4
    assert Plan().schedule == "hold-then-fall"
    whole = run("whole", 9, "plateau")
    rates = column(whole, "learning_rate")
    assert rates == falling([-elbo for elbo in column(whole, "validation_elbo")], 2, 0.3)
    assert len(set(rates)) > 2
    run("part", 5, "plateau")
    resumed = run("part", 9, "plateau", resume=True)
    for name in ("learning_rate", "loss", "validation_elbo"):
        assert column(resumed, name) == column(whole, name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "plato"}, "there is no schedule 'plato': did you mean 'plateau'?"),
        ({"schedule": "plateau", "patience": 10}, "with --patience 10 the fit stops before: take"),
    ],
)
def test_a_plan_whose_schedule_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        complete(Plan(**options))
    complete(Plan(schedule="plateau", patience=11))


def test_the_command_line_has_the_schedule_and_resumes_with_it(noise, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    first = [*out, "--data", noise, "--schedule", "constant", "--epochs", "2", "--hidden", "4"]
    for arguments, code, said in [
        (first, 0, "2 epochs"),
        ([*out, "--resume", "--schedule", "plateau"], 2, "with schedule 'constant', not 'plateau'"),
        ([*out, "--resume", "--epochs", "3"], 0, "3 epochs"),
    ]:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["train", *arguments])
        assert result.exit_code == code, result.output
        assert said in result.output
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("learning_rate")
    assert [float(row.split(",")[place]) for row in rows[1:]] == [1e-3] * 3


def test_a_run_older_than_the_option_has_its_schedule(noise, tmp_path):
    plan = Plan(data=noise, epochs=2, hidden=(4,))
    first = train(plan, tmp_path, device="cpu", show_progress=False)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["plan"].pop("schedule") == "hold-then-fall"
    path.write_text(json.dumps(config))
    again = train(read_plan(tmp_path), tmp_path, resume=True, device="cpu", show_progress=False)
    assert again.epoch == first.epoch == 2
    assert read_plan(tmp_path).schedule == "hold-then-fall"
