"""Callbacks: what they see, how they stop a fit, and that they leave its numbers as they are."""

import contextlib
import csv
import dataclasses
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import Callback, EarlyStopping, Stop, fit, log_evidence
from latente.inference.execution.recorded import Recorded
from latente.inference.training import fit_callbacks, preparation
from latente.inference.training.checkpoints import load
from latente.inference.training.fit_callbacks import Isolated
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from .oracles import GlobalMean
from .test_fit import same, weights

quiet = partial(fit, show_progress=False, batch_size=40)
HOOKS = ("on_fit_start", "on_epoch_end", "on_fit_end")


def numbers(run):
    timing = {"seconds", "rows_per_second"}
    return [{k: v for k, v in row.items() if k not in timing} for row in run.history]


class Log(Callback):
    """Keeps the hooks that are called, with the epoch that each sees."""

    def __init__(self):
        self.calls, self.views, self.errors = [], [], []

    def on_fit_start(self, view):
        self._note("start", view)

    def on_step_end(self, view, step, loss):
        self._note(f"step {step}", view)

    def on_epoch_end(self, view):
        self._note("epoch", view)

    def on_fit_end(self, view):
        self._note("end", view)

    def on_exception(self, view, error):
        self._note("exception", view)
        self.errors.append(error)

    def _note(self, name, view):
        self.calls.append((name, view.epoch))
        self.views.append(view)


class At(Callback):
    """Does something after one epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, view):
        return self.action(view) if view.epoch == self.epoch else None


def raising(error):
    def action(view):
        raise error

    return action


def test_hooks_are_called_in_order_with_the_epochs_done(make_pair, binary_images):
    first, second = Log(), Log()
    quiet(*make_pair(), binary_images, epochs=2, batch_size=100, callbacks=[first, second])
    steps = [("step 1", 0), ("step 2", 0), ("epoch", 1), ("step 1", 1), ("step 2", 1), ("epoch", 2)]
    assert first.calls == second.calls == [("start", 0), *steps, ("end", 2)]


def test_the_view_is_frozen_and_shows_the_fit(make_pair, binary_images, tmp_path):
    log, (vae, guide) = Log(), make_pair()
    run = quiet(
        vae, guide, binary_images, validation=binary_images[:50], epochs=3, patience=3,
        out=tmp_path / "run", callbacks=[log],
    )  # fmt: skip
    view = log.views[-1]
    assert (view.model, view.guide, view.folder) == (vae, guide, tmp_path / "run")
    assert (view.epoch, view.epochs, view.steps_per_epoch) == (3, 3, 5)
    assert view.best_epoch == run.best_epoch
    assert [dict(row) for row in view.history] == run.history
    assert dict(view.last) == run.history[-1]
    assert (log.views[0].last, log.views[0].best_epoch) == ({}, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.epoch = 7
    with pytest.raises(TypeError):
        view.history[0]["elbo"] = 0.0
    with pytest.raises(TypeError):
        view.history[0] = {}
    # A view that was kept shows what it showed then.
    assert [len(view.history) for view in log.views if view.epoch == 1][-1] == 1


def test_a_callback_stops_a_fit_and_says_why(make_pair, binary_images, tmp_path):
    pair, shorter = make_pair(), make_pair()
    log = Log()
    run = quiet(
        *pair, binary_images, epochs=9, out=tmp_path,
        callbacks=[At(2, lambda view: Stop("far enough")), log],
    )  # fmt: skip
    assert (run.epoch, run.stopped) == (2, "far enough")
    assert log.calls[-2:] == [("epoch", 2), ("end", 2)]
    quiet(*shorter, binary_images, epochs=2)
    assert same(weights(*pair), weights(*shorter))
    assert load(tmp_path / "checkpoint.safetensors")[1]["epoch"] == 2
    resumed = quiet(*make_pair(seed=3), binary_images, epochs=4, out=tmp_path, resume=True)
    whole = quiet(*make_pair(), binary_images, epochs=4)
    assert numbers(resumed) == numbers(whole)
    assert (resumed.stopped, whole.stopped) == ("", "")


def test_a_callback_stops_a_fit_before_its_first_epoch(make_pair, binary_images):
    class Never(Callback):
        def on_fit_start(self, view):
            return Stop("not today")

    pair = make_pair()
    before = weights(*pair)
    run = quiet(*pair, binary_images, epochs=2, callbacks=[Never()])
    assert (run.epoch, list(run.history), run.stopped) == (0, [], "not today")
    assert same(weights(*pair), before)


def test_every_callback_is_asked_though_one_stops_the_fit(make_pair, binary_images):
    log = Log()
    stops = [At(1, lambda view: Stop("first")), At(1, lambda view: Stop("second")), log]
    run = quiet(*make_pair(), binary_images, epochs=3, callbacks=stops)
    assert run.stopped == "first"
    assert ("epoch", 1) in log.calls


def test_an_answer_that_is_no_stop_is_refused(make_pair, binary_images):
    with pytest.raises(ValueError, match=r"^on_epoch_end of At returned True: return Stop"):
        quiet(*make_pair(), binary_images, epochs=2, callbacks=[At(1, lambda view: True)])


class Misspelt(Callback):
    def on_epoch(self, view):
        return Stop("never")


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (
            [Misspelt()],
            "has a hook 'on_epoch', which a fit never calls: did you mean 'on_epoch_end'",
        ),
        (EarlyStopping(3), r"callbacks must be a list: write callbacks=\[…\]"),
        ([EarlyStopping], r"has the class EarlyStopping: give an object, EarlyStopping\("),
        ([print], "has a builtin_function_or_method: a callback is an object of a class that"),
    ],
)
def test_what_is_no_callback_is_refused(make_pair, binary_images, tmp_path, callbacks, message):
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*make_pair(), binary_images, epochs=1, callbacks=callbacks, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


class Writer:
    """The part of ``torch.utils.tensorboard.SummaryWriter`` that a log needs."""

    def __init__(self):
        self.scalars, self.closed = {}, False

    def add_scalar(self, tag, value, step):
        self.scalars.setdefault(tag, []).append((step, value))

    def close(self):
        self.closed = True


class TensorBoard(Callback):
    def __init__(self, writer):
        self.writer = writer

    def on_step_end(self, view, step, loss):
        self.writer.add_scalar("step loss", loss.item(), view.epoch * view.steps_per_epoch + step)

    def on_epoch_end(self, view):
        for name, value in view.last.items():
            self.writer.add_scalar(name, value, view.epoch)

    def on_fit_end(self, view):
        self.writer.close()

    def on_exception(self, view, error):
        self.writer.close()


def test_figures_are_logged_to_a_writer(make_pair, binary_images):
    writer = Writer()
    run = quiet(*make_pair(), binary_images, epochs=3, callbacks=[TensorBoard(writer)])
    assert writer.scalars["elbo"] == [(row["epoch"], row["elbo"]) for row in run.history]
    steps, losses = zip(*writer.scalars["step loss"], strict=True)
    assert steps == tuple(range(1, 16))
    means = torch.tensor(losses).double().view(3, 5).mean(1) / len(binary_images)
    assert means.tolist() == pytest.approx([row["loss"] for row in run.history], rel=1e-6)
    assert writer.closed


class Evidence(Callback):
    """log p(x) every few epochs."""

    def __init__(self, x, every):
        self.x, self.every, self.found = x, every, {}

    def on_epoch_end(self, view):
        if view.epoch % self.every == 0:
            evidence = log_evidence(view.model, view.guide, self.x, num_samples=20, seed=1)
            self.found[view.epoch] = evidence.mean


def test_evidence_every_few_epochs_is_that_of_a_fit_of_so_many(make_pair, binary_images):
    pair, watched = make_pair(), Evidence(binary_images[:30], every=2)
    run = quiet(*pair, binary_images, epochs=5, callbacks=[watched])
    assert set(watched.found) == {2, 4}
    for epochs, found in watched.found.items():
        shorter = make_pair()
        quiet(*shorter, binary_images, epochs=epochs)
        assert found == log_evidence(*shorter, binary_images[:30], num_samples=20, seed=1).mean
    unwatched = make_pair()
    assert numbers(run) == numbers(quiet(*unwatched, binary_images, epochs=5))
    assert same(weights(*pair), weights(*unwatched))


def test_evidence_of_a_pair_whose_parameters_are_pyros():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, pyro.param("scale", torch.tensor(2.0))), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    x = torch.randn(60)
    watched = Evidence(x, every=1)
    quiet(model, guide, x, epochs=2, batch_size=30, callbacks=[watched])
    run = quiet(model, guide, x, epochs=2, batch_size=30)
    expected = log_evidence(run.model, run.guide, x, num_samples=20, seed=1).mean
    assert watched.found[2] == expected != watched.found[1]
    assert not pyro.get_param_store()


def dropout_pair():
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 4)
    )
    return VAE(StandardNormal(2), mlp(2, 8, out=16), Bernoulli((4, 4))), DiagonalNormal(encoder, 2)


class Meddler(Callback):
    """Draws, and changes all of the pair that it can reach."""

    def __init__(self, hook):
        self.did = 0
        setattr(self, hook, self._meddle)

    def _meddle(self, view, *rest):
        self.did += 1
        torch.manual_seed(99)
        torch.rand(7)
        pyro.clear_param_store()
        pyro.param("loc", torch.tensor(3.0))
        if isinstance(view.guide, nn.Module):
            view.model.eval()
            view.guide.train()
            view.guide(torch.ones(6, 4, 4))
            view.guide.answer = 42
            with torch.no_grad():
                for part in (view.model, view.guide):
                    for value in part.parameters():
                        value.add_(1.0)


class StepMeddler(Meddler):
    def on_step_end(self, view, step, loss):
        self._meddle(view)
        loss.zero_()


@pytest.mark.parametrize(
    ("compile", "hook"),
    [("plain", hook) for hook in (*HOOKS, "on_step_end")]
    + [("recorded", "on_step_end"), ("recorded", "on_epoch_end")],
)
def test_a_callback_leaves_the_numbers_of_the_fit(hook, compile, binary_images, monkeypatch):
    """With dropout, batch statistics, bits drawn anew, and a step that is recorded at once."""
    monkeypatch.setattr(preparation, "Step", partial(Step, record_after=0.0))
    options = {"epochs": 3, "patience": 3, "validation": binary_images[:40], "compile": compile}
    expected, pair = dropout_pair(), dropout_pair()
    run = quiet(*expected, binary_images, **options)
    meddler = StepMeddler("_unused") if hook == "on_step_end" else Meddler(hook)
    meddled = quiet(*pair, binary_images, callbacks=[meddler], **options)
    assert meddler.did == {"on_fit_start": 1, "on_epoch_end": 3, "on_fit_end": 1}.get(hook, 15)
    assert numbers(meddled) == numbers(run)
    assert same(weights(*pair), weights(*expected))
    assert not hasattr(pair[1], "answer")
    assert not any(part.training for program in pair for part in program.modules())


def test_a_callback_leaves_the_parameters_that_are_pyros():
    x = torch.randn(60)
    runs = [
        quiet(GlobalMean().model, GlobalMean().guide, x, epochs=3, batch_size=20, callbacks=extra)
        for extra in ([], [Meddler("on_epoch_end")])
    ]
    assert numbers(runs[0]) == numbers(runs[1])
    stores = [run.guide.store["params"] for run in runs]
    assert {k: v.item() for k, v in stores[0].items()} == {
        k: v.item() for k, v in stores[1].items()
    }


def test_a_pair_is_in_evaluation_mode_for_callbacks(make_pair, binary_images):
    modes = []

    class Mode(Callback):
        def on_epoch_end(self, view):
            modes.append(view.model.training or view.guide.training)

    quiet(*make_pair(), binary_images, epochs=2, callbacks=[Mode()])
    assert modes == [False, False]


def test_steps_cost_nothing_where_no_callback_follows_them(make_pair, binary_images, monkeypatch):
    calls = []
    monkeypatch.setattr(Isolated, "on_step_end", lambda *args: calls.append(args))
    quiet(*make_pair(), binary_images, epochs=1, callbacks=[EarlyStopping(1, metric="elbo")])
    assert calls == []
    quiet(*make_pair(), binary_images, epochs=1, callbacks=[Log()])
    assert len(calls) == 5


class Own(Exception):
    """A user's own."""


@pytest.mark.parametrize("error", [Own("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_step_end"])
def test_a_callback_that_raises_ends_the_fit_and_the_checkpoint_is_good(
    hook, error, make_pair, binary_images, tmp_path
):
    class Raises(Callback):
        def on_epoch_end(self, view):
            if hook == "on_epoch_end" and view.epoch == 2:
                raise error

        def on_step_end(self, view, step, loss):
            if hook == "on_step_end" and (view.epoch, step) == (2, 3):
                raise error

    log, options = Log(), {"out": tmp_path, "callbacks": []}
    with pytest.raises(type(error)) as caught:
        quiet(*make_pair(), binary_images, epochs=4, **{**options, "callbacks": [log, Raises()]})
    assert caught.value is error
    assert log.calls[-1] == ("exception", 2)
    assert log.errors == [error]
    assert load(tmp_path / "checkpoint.safetensors")[1]["epoch"] == 2
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    pair, whole = make_pair(seed=9), make_pair()
    run = quiet(*pair, binary_images, epochs=4, resume=True, **options)
    assert numbers(run) == numbers(quiet(*whole, binary_images, epochs=4))
    assert same(weights(*pair), weights(*whole))


def test_the_error_of_the_fit_reaches_callbacks_and_caller(make_pair, binary_images):
    class Late(Log):
        def on_exception(self, view, error):
            super().on_exception(view, error)
            raise Own("while told")

    first, second = Late(), Late()
    pair = make_pair()
    pair[0].decoder[1].weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1: lower the learning rate") as caught:
        quiet(*pair, binary_images, epochs=2, callbacks=[first, second])
    assert first.errors == second.errors == [caught.value]
    assert len(caught.value.__notes__) == 2
    assert "raised Own('while told')" in caught.value.__notes__[0]


def test_a_callback_that_did_not_start_is_not_told_of_the_error(make_pair, binary_images):
    class Raises(Callback):
        def on_fit_start(self, view):
            raise Own

    first, last = Log(), Log()
    with pytest.raises(Own):
        quiet(*make_pair(), binary_images, epochs=2, callbacks=[first, Raises(), last])
    assert first.calls == [("start", 0), ("exception", 0)]
    assert last.calls == []


def test_patience_is_early_stopping_that_keeps_the_best_weights(make_pair, binary_images):
    noise = torch.rand(40, 4, 4).round()
    options = {"validation": binary_images, "epochs": 200, "batch_size": 10, "learning_rate": 0.01}
    ours, theirs = make_pair(), make_pair()
    kept = quiet(*ours, noise, patience=5, **options)
    stopped = quiet(*theirs, noise, callbacks=[EarlyStopping(5)], **options)
    assert numbers(stopped) == numbers(kept)
    assert kept.stopped == stopped.stopped == "validation_elbo has not risen for 5 epochs"
    assert (stopped.best_epoch, kept.best_epoch) == (None, kept.epoch - 5)
    assert not same(weights(*ours), weights(*theirs))


def test_early_stopping_goes_by_any_figure_and_over_an_interruption(
    make_pair, binary_images, tmp_path
):
    options = {"epochs": 100, "learning_rate": 0.3, "out": tmp_path}
    stop = {"callbacks": [EarlyStopping(2, metric="kl")]}
    expected = quiet(*make_pair(), binary_images, **{**options, "out": None}, **stop)
    assert 2 < expected.epoch < 100
    with pytest.raises(Own):
        quiet(*make_pair(), binary_images, callbacks=[At(1, raising(Own()))], **options)
    run = quiet(*make_pair(seed=4), binary_images, resume=True, **options, **stop)
    assert numbers(run) == numbers(expected)
    again = quiet(*make_pair(seed=4), binary_images, resume=True, **options, **stop)
    assert (again.epoch, again.stopped) == (run.epoch, "kl has not risen for 2 epochs")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(0), "patience must be positive, got 0"),
        (lambda: EarlyStopping(2), "needs the figure 'validation_elbo' of each epoch: give valid"),
        (lambda: EarlyStopping(2, metric="elbows"), "needs the figure 'elbows' of each epoch"),
    ],
)
def test_early_stopping_without_its_figure_is_refused(make, message, make_pair, binary_images):
    with pytest.raises(ValueError, match=message):
        quiet(*make_pair(), binary_images, epochs=2, callbacks=[make()])


def test_progress_is_shown_and_the_terminal_left_as_it_was(make_pair, binary_images, monkeypatch):
    events = []

    @contextlib.contextmanager
    def progress(title, total):
        events.append((title, total))
        try:
            yield lambda steps=1, note=None: events.append((steps, note))
        finally:
            events.append("closed")

    monkeypatch.setattr(fit_callbacks, "progress", progress)
    fit(*make_pair(), binary_images, epochs=1, batch_size=100)
    assert events[:4] == [("fit", 2), (0, None), (1, None), (1, None)]
    assert events[4][0] == 0
    assert events[4][1].startswith("epoch 1/1, ELBO -")
    assert events[5:] == ["closed"]
    events.clear()
    with pytest.raises(Own):
        fit(*make_pair(), binary_images, epochs=2, callbacks=[At(1, raising(Own()))])
    assert events.count("closed") == 1


def test_recorded_steps_are_recorded_beside_callbacks(make_pair, binary_images, monkeypatch):
    made = []

    def make(*args, **options):
        made.append(Step(*args, **{**options, "record_after": 0.0}))
        return made[-1]

    monkeypatch.setattr(preparation, "Step", make)
    quiet(*make_pair(), binary_images, epochs=3, callbacks=[Evidence(binary_images[:9], 1), Log()])
    assert made[0].note == ""
    assert isinstance(made[0].loss_and_gradients, Recorded)
    assert made[0].loss_and_gradients.stays


def replace_the_decoder(view):
    view.model.decoder = mlp(2, 4, out=16)


def freeze(view):
    for parameter in view.guide.parameters():
        parameter.requires_grad_(False)
    torch.set_grad_enabled(False)


def hook(view):
    view.model.decoder.register_forward_hook(lambda module, given, value: value + 1)


def swap_storage(view):
    for parameter in view.model.parameters():
        parameter.data = parameter.data + 1


@pytest.mark.parametrize("meddle", [replace_the_decoder, freeze, hook, swap_storage])
def test_what_a_callback_replaces_is_put_back(meddle, make_pair, binary_images):
    plain = quiet(*make_pair(), binary_images, epochs=3)
    model, guide = make_pair()
    decoder, places = model.decoder, [value.data_ptr() for value in model.parameters()]
    run = quiet(model, guide, binary_images, epochs=3, callbacks=[At(1, meddle), At(2, meddle)])
    assert numbers(run) == numbers(plain)
    assert same(weights(run.model, run.guide), weights(plain.model, plain.guide))
    assert model.decoder is decoder
    assert [value.data_ptr() for value in model.parameters()] == places
    assert all(value.requires_grad for value in guide.parameters())
    assert torch.is_grad_enabled()


def test_callbacks_may_come_from_a_generator(make_pair, binary_images):
    stoppers = (At(1, lambda view: Stop("enough")) for _ in range(1))
    assert quiet(*make_pair(), binary_images, epochs=3, callbacks=stoppers).epoch == 1
