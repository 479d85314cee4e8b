"""Steps whose gradient is too large or not finite are skipped, counted, and not for ever."""

import copy
import math
from functools import partial

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import SkipSteps, fit, load_run
from latente.inference.training.skipping import Skipping, _update_or_undo
from latente.inference.training.step import _fused_update
from latente.models import PPCA, mlp

from .test_fit import same, weights

quiet = partial(fit, show_progress=False, batch_size=20, seed=0)


def pair():
    torch.manual_seed(0)
    return PPCA(3, 1), DiagonalNormal(torch.nn.Sequential(torch.nn.Tanh(), mlp(3, out=2)), 1)


def data(outlier=None):
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    if outlier is not None:
        x[7] = outlier
    return x


def test_one_batch_an_epoch_is_skipped_and_the_fit_goes_on():
    """One datum far away: its batch alone is skipped. Without that the fit ends nowhere."""
    x = data(outlier=1e4)
    run = quiet(*pair(), x, epochs=3, callbacks=[SkipSteps(above=1e3)])
    assert [row["skipped_steps"] for row in run.history] == [1, 1, 1]
    assert all(row["loss"] < 10 for row in run.history)
    assert quiet(*pair(), x, epochs=1).history[0]["loss"] > 1e4


def test_without_a_skipped_step_the_numbers_stay():
    with_it, without = pair(), pair()
    ours = quiet(*with_it, data(), epochs=3, clip_norm=0.5, callbacks=[SkipSteps(above=1e9)])
    theirs = quiet(*without, data(), epochs=3, clip_norm=0.5)
    assert same(weights(*with_it), weights(*without))
    assert [row["loss"] for row in ours.history] == [row["loss"] for row in theirs.history]
    assert "skipped_steps" not in theirs.history[0]


def test_a_step_that_is_not_finite_ends_a_fit_unless_it_is_skipped():
    """The square of this datum is beyond float32, and its loss is not a number."""
    x = data(outlier=1e25)
    with pytest.raises(FloatingPointError, match="loss became nan"):
        quiet(*pair(), x, epochs=1)
    run = quiet(*pair(), x, epochs=2, callbacks=[SkipSteps()])
    assert [row["skipped_steps"] for row in run.history] == [1, 1]
    assert all(row["loss"] < 10 for row in run.history)


@pytest.mark.parametrize("make", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9)])
@pytest.mark.parametrize("undo", [False, True])
def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(make, undo, monkeypatch):
    """Also where the update is made and put back, as on an accelerator."""
    if undo:
        from latente.inference.training import skipping

        def on_an_accelerator(good, parameters, optimizer, move):
            entries = [v for state in optimizer.state.values() for v in state.values()]
            _update_or_undo(good, [*parameters, *entries], move)

        monkeypatch.setattr(skipping, "_update_if", on_an_accelerator)
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([parameter], lr=0.1)
    parameter.grad = torch.tensor([0.5, 0.5])
    optimizer.step()
    before = copy.deepcopy((parameter.data, optimizer.state_dict()["state"]))
    one = Skipping(SkipSteps(above=2.0), num_data=10)
    move = partial(_fused_update, optimizer)
    for bad, loss in ((math.nan, 0.0), (math.inf, 0.0), (30.0, 0.0), (0.1, math.nan)):
        parameter.grad = torch.full((2,), bad)
        one.update(torch.tensor(loss), [parameter], optimizer, move)
    after = parameter.data, optimizer.state_dict()["state"]
    assert torch.equal(before[0], after[0])
    for name, value in before[1][0].items():
        assert torch.equal(value, after[1][0][name])
    parameter.grad = torch.full((2,), 10.0)  # of norm 14, below 2 · 10
    one.update(torch.tensor(0.0), [parameter], optimizer, move)
    assert not torch.equal(before[0], parameter.data)
    assert one.finish_epoch().tolist() == [True, True, True, True, False]
    assert (int(one.in_a_row), int(one.most_in_a_row)) == (0, 4)


def test_a_fit_that_skips_for_ever_is_given_up(tmp_path):
    """Five steps an epoch: seven in a row end it after the second, which leaves no checkpoint."""
    rule, folder = SkipSteps(above=1e-6, at_most=7), tmp_path / "run"
    message = r"10 steps in a row were skipped, .* or above 1e-06 per datum"
    with pytest.raises(FloatingPointError, match=message):
        quiet(*pair(), data(), epochs=3, callbacks=[rule], out=folder)
    row = load_run(folder, **dict(zip(("model", "guide"), pair(), strict=True))).history[-1]
    assert (row["epoch"], row["skipped_steps"]) == (1, 5)
    assert math.isnan(row["loss"])
    # A resumed run knows how many steps came before, and can have another rule.
    with pytest.raises(FloatingPointError, match=message):
        quiet(*pair(), data(), epochs=3, callbacks=[rule], out=folder, resume=True)
    run = quiet(*pair(), data(), epochs=3, callbacks=[SkipSteps()], out=folder, resume=True)
    assert [row["skipped_steps"] for row in run.history] == [5, 0, 0]


def test_arguments_that_are_refused():
    with pytest.raises(ValueError, match="above must be positive, got 0"):
        SkipSteps(above=0)
    with pytest.raises(ValueError, match="at_most must be at least 1, got 0"):
        SkipSteps(at_most=0)
    with pytest.raises(ValueError, match="two of SkipSteps"):
        quiet(*pair(), data(), epochs=1, callbacks=[SkipSteps(), SkipSteps(3.0)])
