"""The page on training: its code runs as it stands, and does what the page says."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

from latente.inference import fit

from .test_callbacks import Writer

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
START, EVIDENCE, TENSORBOARD, EARLY, AVERAGE, NAMED, GROUPED, RULE, *PYROS, STEPS, PLATEAU, LOAD = (
    re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
)


@pytest.fixture
def names():
    """What the page has named after its first block."""
    torch.manual_seed(0)
    found: dict = {}
    exec(START, found)
    found["fit"] = partial(fit, show_progress=False)
    return found


def test_the_callback_that_evaluates_stops_the_fit(names, capsys):
    exec(EVIDENCE, names)
    run, found = names["run"], names["evidence"].found
    assert run.stopped == "log p(x) is high enough"
    assert 2 <= run.epoch < 100
    assert list(found) == list(range(2, run.epoch + 1, 2))
    assert [epoch for epoch, value in found.items() if value > -26] == [run.epoch]
    assert capsys.readouterr().out.startswith(f"{run.epoch} {run.stopped}")


def test_the_callback_for_tensorboard_writes_the_history(names):
    exec("from latente.inference import Callback", names)
    exec(TENSORBOARD, names)
    writer = Writer()
    run = names["fit"](
        names["vae"], names["guide"], names["data"], epochs=2,
        callbacks=[names["TensorBoard"](writer)],
    )  # fmt: skip
    assert writer.scalars["validation_elbo"] == [
        (row["epoch"], row["validation_elbo"]) for row in run.history
    ]
    assert writer.closed


def test_early_stopping_goes_by_the_column_of_the_page(names, capsys):
    exec(EARLY, names)
    assert "validation_reconstruction has not risen for 5 epochs" in capsys.readouterr().out
    figures = [row["validation_reconstruction"] for row in names["run"].history]
    assert max(figures) == figures[-6]


def test_the_average_of_the_page_is_evaluated(names, capsys):
    exec(AVERAGE, names)
    assert float(capsys.readouterr().out) < 0
    assert "ema_validation_elbo" in names["run"].history[-1]


def test_the_optimizers_of_the_page_move_the_pair_at_their_rates(names):
    exec(NAMED, names)
    assert names["run"].history[0]["learning_rate"] == 1e-3
    exec(GROUPED, names)
    assert names["run"].history[0]["learning_rate"] == 3e-4
    exec(RULE, names)
    assert names["run"].history[0]["learning_rate"] == 1e-5
    assert names["run"].history[-1]["elbo"] > -60


def test_pyros_optimizers_of_the_page_have_their_rates(names):
    rates = []
    for block in PYROS:
        exec(f"import torch\n{block}", names)
        rates.append([row["learning_rate"] for row in names["run"].history])
    steps = -(-len(names["data"].train) // 128)
    assert rates[0][1] == pytest.approx(1e-3 * 0.999 ** (2 * steps))
    assert rates[1:] == [[3e-4, 3e-4], [1e-3, pytest.approx(9e-4)]]


def test_the_schedules_of_the_page_move_the_rate(names):
    exec(STEPS, names)
    rates = [row["learning_rate"] for row in names["run"].history]
    assert rates[0] > 1e-3 > 1e-5 > rates[2]
    exec(PLATEAU, names)
    assert len(names["run"].history) == 3


def test_the_run_of_the_page_is_loaded(names):
    exec(f"import torch\n{LOAD}", names)
    assert names["loaded"].epoch == 3
    assert names["loaded"].guide.locs.loc.shape == ()


def test_the_page_names_the_columns_of_a_history(names):
    row = names["run"].history[0]
    table = PAGE.split("| column |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert {name for name in row if not name.startswith("validation_")} <= named
    elsewhere = {"beta", "wake_theta_loss", "phi_loss", "ReweightedWakeSleep"}
    elsewhere |= {"skipped_steps", "SkipSteps", "kl_z1", "kl_z2", "ema_elbo", "ema_validation_elbo"}
    assert named - elsewhere <= set(row)
