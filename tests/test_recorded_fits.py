"""Whole fits, and evidence, from recordings: the numbers of plain ones."""

import itertools
import time
from functools import partial

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR

from latente.guides import DiagonalNormal
from latente.inference import fit, log_evidence
from latente.inference.evidence.importance_sampling import PER_DATUM_FIELDS
from latente.inference.execution.recorded import FIRST_CHECK, Recorded
from latente.inference.objectives.beta import Beta_ELBO
from latente.inference.objectives.schedules import Warmup
from latente.inference.pairs import scoring
from latente.inference.training import preparation
from latente.inference.training.learning_rates import hold_then_fall
from latente.inference.training.step import Step
from latente.models import VAE

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension
from .test_contexts import labelled

quiet = partial(fit, show_progress=False)
TIMING = {"seconds", "rows_per_second"}


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def steps(monkeypatch):
    """Fits record at once, and their steps are kept."""
    made = []

    def make(*args, **options):
        made.append(Step(*args, **{**options, "record_after": 0.0}))
        return made[-1]

    monkeypatch.setattr(preparation, "Step", make)
    return made


def numbers(run):
    return [{k: v for k, v in row.items() if k not in TIMING} for row in run.history]


def weights(run):
    def tensors(program):
        if hasattr(program, "store"):
            return dict(program.store["params"])
        return program.state_dict()

    return [v.detach() for part in (run.model, run.guide) for v in tensors(part).values()]


def assert_same_run(ours, theirs):
    assert numbers(ours) == numbers(theirs)
    assert len(weights(ours)) == len(weights(theirs)) > 0
    assert all(torch.equal(a, b) for a, b in zip(weights(ours), weights(theirs), strict=True))


def bits(count=200):
    column = torch.rand(count, 1, 4, generator=torch.Generator().manual_seed(1)).round()
    return column.expand(count, 4, 4).contiguous()


VARIANTS = {
    "as it is": {},
    "last batches smaller": {"batch_size": 30, "epochs": 3},
    "warmup": {"objective": lambda: Beta_ELBO(Warmup(2))},
    "rate held, then falling": {"schedule": hold_then_fall(2)},
    "clipped": {"clip_norm": 0.01},
    "momentum": {"optimizer": partial(SGD, momentum=0.9), "learning_rate": 1e-5},
    "decayed": {"optimizer": partial(AdamW, weight_decay=0.1)},
    "early stopping": {"validation": bits(40), "patience": 1, "learning_rate": 0.1},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recorded_fit_is_the_plain_one(make_pair, steps, name):
    options = {"epochs": 2, "batch_size": 40, "learning_rate": 0.01, **VARIANTS[name]}
    objective = options.pop("objective", lambda: None)
    plain, recorded = (
        quiet(*make_pair(), bits(), compile=compile, objective=objective(), **options)
        for compile in ("plain", "recorded")
    )
    assert_same_run(recorded, plain)
    assert recorded.note == ""
    shapes = steps[1].loss_and_gradients._shapes.values()
    assert len(shapes) == 1 + ("smaller" in name)
    assert all(shape.span > FIRST_CHECK for shape in shapes)
    assert not any(
        shape.span > FIRST_CHECK for shape in steps[0].loss_and_gradients._shapes.values()
    )


def test_a_recorded_fit_of_stored_parameters_and_a_global_latent(steps):
    x = torch.randn(60, generator=torch.Generator().manual_seed(3))
    runs = [
        quiet(GlobalMean().model, GlobalMean().guide, x, compile=c, epochs=3, batch_size=20)
        for c in ("plain", "recorded")
    ]
    assert_same_run(*runs)
    assert steps[1].loss_and_gradients.stays


def test_a_recorded_fit_with_contexts(steps):
    def run(compile):
        torch.manual_seed(0)
        labels = torch.arange(200) % 3
        return quiet(*labelled(), (bits(), labels), compile=compile, epochs=2, batch_size=40)

    assert_same_run(run("recorded"), run("plain"))
    assert steps[0].loss_and_gradients.stays


def test_a_recorded_fit_resumed_is_the_plain_one_uninterrupted(
    make_pair, steps, tmp_path, monkeypatch
):
    """Stopped in an epoch of replays; the resumed one begins with plain steps again."""
    options = {"epochs": 3, "batch_size": 40, "schedule": partial(ExponentialLR, gamma=0.8)}
    plain = quiet(*make_pair(), bits(), compile="plain", **options)
    real, calls = Step.__call__, []

    def failing(step, batch):
        calls.append(step)
        if len(calls) == 8:
            raise Stop
        return real(step, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", failing)
        with pytest.raises(Stop):
            quiet(*make_pair(), bits(), compile="recorded", out=tmp_path / "run", **options)
    assert calls[-1].loss_and_gradients.stays
    resumed = quiet(
        *make_pair(seed=9), bits(), compile="recorded", out=tmp_path / "run", resume=True, **options
    )
    assert_same_run(resumed, plain)
    assert steps[-1].loss_and_gradients.stays


def test_a_fit_says_why_it_ran_plainly(make_pair, steps):
    class Choosy(DiagonalNormal):
        def forward(self, x):
            if self.encoder(x).sum() > 1e9:
                raise Stop
            return super().forward(x)

    def run(compile):
        vae, guide = make_pair()
        guide.__class__ = Choosy
        return quiet(vae, guide, bits(), compile=compile, epochs=1, batch_size=40)

    recorded = run("recorded")
    assert recorded.note == "what it does depends on values of tensors"
    assert run("plain").note == ""
    assert_same_run(recorded, run("plain"))


@pytest.mark.parametrize(("seconds", "records"), [(0.01, False), (0.4, True)])
def test_the_first_second_is_plain(make_pair, monkeypatch, seconds, records):
    """Five steps, by a clock of our own: a slow machine must not decide."""
    recorded, now = [], itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) * seconds)
    monkeypatch.setattr(Recorded, "_record", lambda *args: recorded.append(args))
    assert quiet(*make_pair(), bits(), epochs=1, batch_size=40).note == ""
    assert bool(recorded) == records


@pytest.mark.parametrize("compile", ["record", "Plain", None])
def test_an_unknown_way_is_refused(make_pair, compile):
    message = r"^compile is 'recorded', 'inductor' or 'plain', got [^\n]*$"
    with pytest.raises(ValueError, match=message):
        quiet(*make_pair(), bits(), epochs=1, compile=compile)
    with pytest.raises(ValueError, match=message):
        log_evidence(*make_pair(), bits(), num_samples=10, compile=compile)


@pytest.fixture
def recorded(monkeypatch):
    """Evidence records at once, and what it records is kept."""
    made = []

    def make(*args, **options):
        made.append(Recorded(*args, **{**options, "record_after": 0.0}))
        return made[-1]

    monkeypatch.setattr(scoring, "Recorded", make)
    monkeypatch.setattr("latente.inference.evidence.importance_sampling.DRAWS_AT_ONCE", 400)
    monkeypatch.setattr(scoring, "DRAWS_AT_ONCE", 400)
    monkeypatch.setattr(scoring, "REPEATED_ROWS", 200)
    return made


def one_batch_dimension():
    vae, guide = LinearGaussian(2).pair(widen=1.3)
    return VAE(vae.prior, OneBatchDimension(vae.decoder, 2), vae.likelihood), guide


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("vectorized", [True, False])
def test_recorded_evidence_is_the_plain_one(recorded, chunk_size, vectorized):
    """Of 65 data by 40 draws, ten data at a time: the last block is of five."""
    oracle = LinearGaussian(2)
    pair = oracle.pair(widen=1.3) if vectorized else one_batch_dimension()
    x = oracle.sample(65)
    plain, ours = (
        log_evidence(*pair, x, num_samples=40, chunk_size=chunk_size, seed=3, compile=compile)
        for compile in ("plain", "recorded")
    )
    for name in PER_DATUM_FIELDS:
        a, b = getattr(ours, name), getattr(plain, name)
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10, equal_nan=True), name
    shapes = [shape for part in recorded for shape in part._shapes.values()]
    assert (
        sum(shape.span > FIRST_CHECK for shape in shapes) >= 2
    )  # the guide's draws, and their scores
    assert not any(part.note for part in recorded)


def test_recorded_evidence_of_a_fitted_bernoulli_pair_is_the_plain_one(make_pair, recorded):
    vae, guide = make_pair()
    quiet(vae, guide, bits(), epochs=2, objective=Trace_ELBO())
    plain, ours = (
        log_evidence(vae, guide, bits(60), num_samples=40, seed=3, compile=compile)
        for compile in ("plain", "recorded")
    )
    assert torch.equal(plain.log_px, ours.log_px)
    assert (
        sum(shape.span > FIRST_CHECK for part in recorded for shape in part._shapes.values()) >= 2
    )
