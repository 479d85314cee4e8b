"""The MNIST figures of docs/results.md, run by hand: ``pytest -m slow`` (some six minutes)."""

import pytest

from latente.inference import evaluate
from latente.inference.recipes.plan import Plan
from latente.inference.recipes.plan_data import load_plan_data
from latente.inference.recipes.train import train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latent_dim", "least_elbo", "least_evidence"),
    [(2, -139.5, -137.5), (20, -98.0, -94.0), (32, -98.3, -94.0)],
)
def test_twenty_epochs_reach_what_a_hand_written_loop_does(
    mnist, tmp_path, latent_dim, least_elbo, least_evidence
):
    plan = Plan(recipe="vae", data="mnist", latent_dim=latent_dim, epochs=20, batch_size=128)
    run = train(plan, tmp_path / "run", device="cpu")
    data = load_plan_data(plan)
    figures = evaluate(run.model, run.guide, data.test, num_samples=500)
    print({name: round(value, 3) for name, value in figures.items()})
    assert figures["num_data"] == 10_000
    assert figures["elbo"] >= least_elbo
    assert figures["log_evidence"] >= least_evidence
