"""The page on a diagnostic of one's own: it runs as it stands, in under 40 lines, and fires."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
import torch

from latente.inference import DIAGNOSTICS, Budget, Level, diagnose

PAGE = (Path(__file__).parents[1] / "docs" / "own_diagnostic.md").read_text(encoding="utf-8")
DIAGNOSTIC, USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHORT = "nuts_samples=150, nuts_warmup=60, nuts_temperatures=10, replications=50, simulations=200"
NUTS = next(one for one in DIAGNOSTICS if one.name == "nuts")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names of the page after it was run, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("page")
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(DIAGNOSTIC, names)
        assert "simulations=200" in USE
        exec(USE.replace("simulations=200", SHORT), names)
    return names, folder / "diagnosis"


def test_the_diagnostic_takes_under_forty_lines_of_code():
    assert sum(bool(line.strip()) for line in DIAGNOSTIC.splitlines()) < 40


def test_it_finds_what_the_others_do_not_say(page):
    """The posterior's correlations are known: those that are called missed are not near zero."""
    names, _ = page
    diagnosis = names["diagnosis"]
    levels = {finding.topic: finding.level for finding in diagnosis.findings}
    assert levels["correlations"] == Level.WARNING
    assert {levels["NUTS"], levels["evidence"], levels["calibration"]} == {Level.GOOD}
    covariance = names["exact"].posterior(names["x"][:2]).covariance_matrix.expand(2, 3, 3)
    sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    exact = (covariance / sd[:, :, None] / sd[:, None])[:, *torch.triu_indices(3, 3, 1)]
    missed = names["missed"]
    assert missed.any()
    assert (exact[missed].abs() > 0.2).all()
    assert (names["of_nuts"] - exact).abs().max() < 0.25
    assert names["of_guide"].abs().max() < 0.1


def test_it_is_part_of_verdict_json_and_report(page):
    names, folder = page
    diagnosis, sentence = names["diagnosis"], names["diagnosis"].findings[-1].sentence
    assert f"- correlations: {sentence}" in diagnosis.verdict
    written = json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))
    assert written["missed"] == int(names["missed"].sum()) > 0
    finding = {"topic": "correlations", "level": "warning", "sentence": sentence}
    assert finding in written["findings"]
    report = unescape((folder / "report.html").read_text(encoding="utf-8"))
    (diagnostic,) = [one for one in diagnosis.diagnostics if one.name == "correlations"]
    for text in (sentence, diagnostic.question, diagnostic.figures[0].caption):
        assert text in report
    assert f'correlations missed</th><td class="number">{written["missed"]}</td>' in report
    assert '<a href="#correlations">Correlations</a>' in report
    assert (folder / "figures" / "correlations.png").stat().st_size > 5_000


def test_an_exact_guide_and_a_pair_without_chains_do_not_warn(page):
    names, _ = page
    budget = Budget(
        num_data=2, nuts_samples=100, nuts_warmup=50, nuts_temperatures=10, tree_data=1,
        tree_samples=1,
    )  # fmt: skip
    pair, mine = (names["model"], names["exact"]), names["CORRELATIONS"]
    found = diagnose(*pair, names["x"], diagnostics=(NUTS, mine), budget=budget)
    assert [one.level for one in found.findings] == [Level.GOOD, Level.GOOD]
    found = diagnose(*pair, names["x"], diagnostics=(mine,), budget=budget)
    (finding,) = found.findings
    assert finding.sentence == (
        "Not looked at: this needs the result of 'nuts', and there is none before it."
    )
    assert found.verdict.startswith("Nothing could be said about this posterior.")
