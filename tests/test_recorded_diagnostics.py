"""Annealing, local fits, NUTS and leaving one out: the same from a recording, bit for bit."""

import pytest
import torch

from latente.inference import annealed_evidence, inference_gap, nuts_posterior, psis_loo
from latente.inference.diagnostics import inference_gap as gap
from latente.inference.evaluation import predictive_density
from latente.inference.evidence import annealing_path
from latente.inference.execution import recorded_gradient
from latente.inference.execution.recorded import Recorded

from .test_coordinates_of_sites import Angle, Rate, data
from .test_global_latents import Regression
from .test_predictive_density import ExactMean, X

ANGLE, RATE = Angle(), Rate(shape=2.0)
CASES = {
    "circle": ((ANGLE.model, ANGLE.guide(1.3)), data(3.1, -3.0)),
    "positive": ((RATE.model, RATE.guide(1.3)), data(0.0, 5.0)),
}


class Watched(Recorded):
    """Knows whether it was ever run from its recording."""

    replayed = False

    def __call__(self, *args):
        result = super().__call__(*args)
        self.replayed = self.replayed or self.stays
        return result


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers(name, monkeypatch):
    pair, x = CASES[name]

    def run(compile):
        made = []

        def make(function):
            made.append(Watched(function, compile=compile, record_after=0.0))
            return made[-1]

        for module in (annealing_path, gap, recorded_gradient):
            monkeypatch.setattr(module, "Recorded", make)
        found = (
            annealed_evidence(*pair, x, num_temperatures=4, num_chains=4).log_weight,
            inference_gap(*pair, x, num_steps=8, num_samples=50).elbo_full_rank,
            nuts_posterior(*pair, x, num_samples=10, warmup_steps=10, num_temperatures=0).draws,
        )
        return found, made

    plain, _ = run("plain")
    recorded, made = run("recorded")
    assert len(made) >= 3  # annealing, local fits, NUTS
    assert all(one.note == "" and one.replayed for one in made)
    for ours, theirs in zip(recorded, plain, strict=True):
        assert torch.equal(ours, theirs)


REGRESSION, MEAN = Regression(widen=1.2), ExactMean(X, widen=1.2, local_widen=1.4)
PAIRS = {
    "global latents alone": ((REGRESSION.model, REGRESSION.amortized), REGRESSION.data),
    "local ones too": ((MEAN.model, MEAN.guide), X),
}


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # so few draws
@pytest.mark.parametrize("name", PAIRS)
def test_leaving_one_out_gives_the_same_numbers(name, monkeypatch):
    pair, rows = PAIRS[name]
    made = []

    def run(compile):
        def make(function, **options):
            made.append(Watched(function, **{**options, "compile": compile, "record_after": 0.0}))
            return made[-1]

        monkeypatch.setattr(predictive_density, "Recorded", make)
        loo = psis_loo(*pair, rows, num_samples=60, seed=3)
        return loo.elpd_i.values, loo.pareto_k.values

    plain, recorded = run("plain"), run("recorded")
    assert [one.replayed for one in made] == [False, True]
    for ours, theirs in zip(recorded, plain, strict=True):
        assert (ours == theirs).all()
