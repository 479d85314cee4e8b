"""The README's examples run as they stand, and give what they promise."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMPOSED, OWN = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_composed_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(COMPOSED, names)
    assert -26 < names["evidence"].elbo < names["evidence"].mean < -22
    assert (tmp_path / "latent.png").stat().st_size > 10_000


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
