"""Evidence and ELBO of sequences, per sequence and per step."""

import io
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from rich.console import Console

from latente.inference import evaluate, fit, load_data
from latente.inference.cli.evaluate import tabulate_evaluation

from .sequence_pair import WrongGuide, exact_guide, exact_log_px, model, there

LENGTHS = torch.tensor([1, 5, 3, 2, 7])


def rows():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x * there(x, LENGTHS), LENGTHS


def sequences():
    return [row[:length] for row, length in zip(*rows(), strict=True)]


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "data"])
def test_sums_over_sequences_are_divided_by_the_sum_of_their_lengths(form):
    given = {
        "tuple": rows,
        "list": sequences,
        "dict": lambda: dict(zip(("x", "lengths"), rows(), strict=True)),
        "data": lambda: load_data(sequences() * 2, split=["train"] * 5 + ["test"] * 5),
    }[form]()
    figures = evaluate(model, exact_guide, given, num_samples=30)
    exact = exact_log_px(*rows())
    assert figures["log_evidence"] == pytest.approx(exact.mean().item(), rel=1e-9)
    assert figures["log_evidence_per_step"] == pytest.approx(exact.sum().item() / 18, rel=1e-9)
    assert figures["elbo_per_step"] == pytest.approx(exact.sum().item() / 18, rel=1e-9)
    assert figures["log_evidence_per_step_se"] == pytest.approx(0, abs=1e-9)
    of_each = (exact / LENGTHS).mean().item()
    assert figures["mean_log_evidence_per_step"] == pytest.approx(of_each, rel=1e-9)
    assert figures["mean_elbo_per_step"] == pytest.approx(of_each, rel=1e-9)
    assert abs(of_each - exact.sum().item() / 18) > 0.01  # they are two numbers
    assert figures["num_steps"] == 18
    assert figures["num_data"] == 5


def test_a_bad_guide_loses_per_step_what_it_loses_per_sequence():
    guide = WrongGuide().double()
    figures = evaluate(model, guide, rows(), num_samples=500)
    assert figures["elbo_per_step"] == pytest.approx(figures["elbo"] * 5 / 18)
    assert figures["elbo"] < figures["log_evidence"] - 0.3
    se = figures["log_evidence_se"] * 5 / 18
    assert figures["log_evidence_per_step_se"] == pytest.approx(se)


def test_a_run_knows_that_its_data_have_lengths_also_by_another_name():
    def other(x, of_each):
        model(x, of_each)

    class Guide(WrongGuide):
        def forward(self, x, of_each):
            super().forward(x, of_each)

    data = load_data(sequences() * 5, test=0.2)
    run = fit(other, Guide(), data, epochs=1, show_progress=False, device="cpu")
    x, lengths = data.rows("test")
    figures = evaluate(run.model, run.guide, (x, lengths), num_samples=10)
    assert figures["num_steps"] == int(lengths.sum())
    assert run.evaluate(sequences(), num_samples=10)["num_steps"] == 18


def test_other_data_have_no_figures_per_step():
    def plain(x, labels):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand(x.shape), 1.0).to_event(1), obs=x)

    def guide(x, labels):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    figures = evaluate(plain, guide, (torch.zeros(4, 3), torch.tensor([1, 2, 3, 1])), num_samples=9)
    assert not any("step" in name for name in figures)


def test_bits_per_dimension_are_of_the_steps_that_are_there():
    def bits(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            fair = dist.Bernoulli(torch.full_like(x, 0.5)).mask(there(x, lengths))
            pyro.sample("x", fair.to_event(1), obs=x)

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x = (rows()[0] > 0).float()
    figures = evaluate(bits, guide, (x, LENGTHS), num_samples=5)
    assert figures["bits_per_dimension"] == pytest.approx(1.0)
    assert figures["log_evidence_per_step"] == pytest.approx(-math.log(2))


def test_the_table_says_which_figure_is_which():
    figures = evaluate(model, exact_guide, rows(), num_samples=30)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(tabulate_evaluation(figures, "title"))
    text = console.export_text()
    assert "nats per sequence; log p(x), 30 importance samples" in text
    assert "nats per step: Σ log p(x) / Σ T, of 5 sequences, 18 steps" in text
    assert "nats per step: Σ ELBO / Σ T" in text
    assert text.count("nats per step: the mean over sequences") == 2
    assert "per datum" not in text
