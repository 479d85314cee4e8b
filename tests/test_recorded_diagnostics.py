"""Annealing, local fits and NUTS give the same numbers from a recording, bit for bit."""

import pytest
import torch

from latente.inference import annealed_evidence, inference_gap, nuts_posterior
from latente.inference.diagnostics import inference_gap as gap
from latente.inference.evidence import annealing_path
from latente.inference.execution import recorded_gradient
from latente.inference.execution.recorded import Recorded

from .test_coordinates_of_sites import Angle, Rate, data

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
