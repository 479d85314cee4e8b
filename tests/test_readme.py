"""The README's examples run as they stand, and give what they promise."""

import ast
import re
import warnings
from pathlib import Path

import pytest
import torch

from latente.inference import fit, log_evidence

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMPOSED, FAMILIES, OWN_FAMILY, PARTS, OBJECTIVES, CONTEXTS, EXACT, TRUST, OWN = re.findall(
    r"```python\n(.*?)```", README, re.DOTALL
)


def test_the_composed_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(COMPOSED, names)
    assert -26 < names["evidence"].elbo < names["evidence"].mean < -22
    assert (tmp_path / "latent.png").stat().st_size > 10_000


def test_each_family_of_the_readme_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(COMPOSED.replace("epochs=50", "epochs=1"), names)
    fitted = []
    names["fit"] = lambda *args, **options: fitted.append(args[1]) or names["log_evidence"]
    for statement in [*ast.parse(FAMILIES).body, *ast.parse(OWN_FAMILY).body]:
        source = ast.unparse(statement)
        exec(source, names)
        if source.startswith("guide = "):
            run = fit(names["vae"], names["guide"], names["data"], epochs=1, show_progress=False)
            assert run.epoch == 1
    assert len(fitted) == 1
    assert type(names["guide"]).__name__ == "Laplace"


def test_the_parts_objectives_and_contexts_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(COMPOSED.replace("epochs=50", "epochs=1"), names)
    exec(PARTS, names)
    assert type(names["vae"].prior).__name__ == "VampPrior"
    exec(OBJECTIVES, names)
    for objective in names["objectives"]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the schedule of beta gets to 1 at epoch 10")
            run = fit(names["vae"], names["guide"], names["data"], objective=objective, epochs=1,
                      show_progress=False)  # fmt: skip
        assert run.history[0]["elbo"] > -60
    capsys.readouterr()
    exec(CONTEXTS, names)
    assert names["means"].shape == (10, 8, 8)
    assert "N=180" in capsys.readouterr().out


def test_the_diagnosis_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(COMPOSED.replace("epochs=50", "epochs=5"), names)
    small = (
        "num_data=50, nuts_data=0, temperatures=50, simulations=100, replications=20, gap_steps=50"
    )
    exec(TRUST.replace("num_data=100, nuts_data=1", small), names)
    assert (tmp_path / "diagnosis" / "report.html").is_file()
    assert names["diagnosis"].verdict in capsys.readouterr().out
    assert "posterior_predictive" in names["tree"]


def test_the_exact_answers_of_the_readme(capsys):
    torch.manual_seed(0)
    names: dict = {"torch": torch, "log_evidence": log_evidence, "fit": fit}
    exec(EXACT, names)
    figures = re.findall(r"-\d+\.\d+", capsys.readouterr().out)
    estimated, exact, by_em, by_svi = map(float, figures)
    assert estimated == pytest.approx(exact, abs=1e-3)
    assert by_svi == pytest.approx(by_em, abs=0.02)


def test_the_users_own_pair_has_the_evidence_of_its_closed_form(capsys):
    """Gamma-Poisson: p(x) is negative binomial; per-datum z-scores, false alarm 1e-3 in all."""
    names: dict = {}
    exec(OWN, names)
    slope = names["run"].model.store["params"]["slope"].detach()
    exact = torch.distributions.NegativeBinomial(2.0, probs=slope / (1 + slope))
    evidence = names["log_evidence"](
        names["run"].model, names["run"].guide, names["x"], num_samples=5000, seed=3
    )
    error = evidence.log_px - exact.log_prob(names["x"])
    trusted = evidence.khat < 0.5
    assert trusted.sum() > 500
    assert (error / evidence.standard_error)[trusted].abs().max() < 5
    assert slope.item() == pytest.approx(3, rel=0.1)
