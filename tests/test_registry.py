"""Diagnostics as values: what diagnose makes of them, whatever they do."""

import json
from dataclasses import replace

import pytest
import torch
import xarray
from matplotlib.figure import Figure

from latente.inference import (
    DIAGNOSTICS,
    Budget,
    Diagnostic,
    DiagnosticFigure,
    Finding,
    Level,
    Number,
    diagnose,
    save_report,
)

from .oracles import GlobalMean, LinearGaussian

BUDGET = Budget(num_data=20, tree_data=2, tree_samples=2)


def largest(context):
    return context.rows[0].max().item()


def judge(value):
    return [Finding("extremes", Level.WARNING, f"The largest number is {value:.1f}.")]


EXTREMES = Diagnostic("extremes", "How large are the data?", ("extremes",), largest, judge)


def run(*diagnostics, **options):
    """A diagnosis of an exact pair by these diagnostics alone."""
    oracle = LinearGaussian(1)
    return diagnose(
        *oracle.pair(), oracle.sample(30), diagnostics=diagnostics, budget=BUDGET, **options
    )


def broken(*_):
    raise AttributeError("no such\ncolumn.")


def test_the_registry_names_each_once_with_all_its_words():
    names = [diagnostic.name for diagnostic in DIAGNOSTICS]
    topics = [topic for diagnostic in DIAGNOSTICS for topic in diagnostic.topics]
    assert len(set(names)) == len(names) == 8
    assert len(set(topics)) == len(topics)
    for diagnostic in DIAGNOSTICS:
        assert diagnostic.figures
        for figure in diagnostic.figures:
            assert set(figure.topics) <= set(diagnostic.topics)


def test_only_those_that_are_asked_for_run():
    found = run(EXTREMES)
    assert list(found.results) == ["extremes"]
    assert found["extremes"] == LinearGaussian(1).sample(30)[:20].max().item()
    assert [one.topic for one in found.findings] == ["extremes"]
    assert found.diagnostics == (EXTREMES,)
    assert found.num_data == 20
    nothing = run()
    assert nothing.findings == ()
    assert nothing.verdict == "Nothing could be said about this posterior."


@pytest.mark.parametrize("part", ["run", "judge", "numbers", "groups"])
def test_what_fails_is_noted_and_the_others_run(part):
    found = run(replace(EXTREMES, name="first", **{part: broken}), EXTREMES)
    note, warning = found.findings
    assert note == Finding("extremes", Level.NOTE, "Not looked at: AttributeError: no such column.")
    assert warning.level == Level.WARNING
    assert list(found.results) == ["extremes"]


def test_an_error_of_what_is_required_ends_the_diagnosis():
    with pytest.raises(AttributeError, match="no such"):
        run(replace(EXTREMES, run=broken, required=True))


def test_what_does_not_apply_says_nothing():
    only_local = replace(EXTREMES, applies=lambda context: context.all_local)
    assert len(run(only_local).findings) == 1
    pair = GlobalMean()
    found = diagnose(pair.model, pair.guide, torch.randn(30), diagnostics=(only_local,))
    assert found.findings == ()


def test_one_sees_the_results_of_those_before_it():
    twice = replace(EXTREMES, name="twice", run=lambda context: 2 * context.result("extremes"))
    found = run(EXTREMES, twice)
    assert found["twice"] == 2 * found["extremes"]
    reason = "this needs the result of 'extremes', and there is none before it"
    assert run(twice, EXTREMES).findings[0].sentence == f"Not looked at: {reason}."


def test_numbers_figures_and_groups_go_their_ways(tmp_path):
    def draw(value):
        return Figure((2, 2)) if value else None

    full = replace(
        EXTREMES,
        figures=(
            DiagnosticFigure("bars", "A bar. Good: none.", draw, title="Are there < 2 bars?"),
            DiagnosticFigure("none", "Nothing.", lambda _: None),
        ),
        numbers=lambda value: [
            Number("largest", value, "largest number", "metres", error=float("nan")),
            Number("hidden", 3),
        ],
        groups=lambda value: {"extremes": xarray.Dataset({"largest": value})},
    )
    found = run(full)
    assert list(found.figures) == ["bars"]
    assert found.tree["extremes"]["largest"].item() == found["extremes"]
    report, facts, _, picture = save_report(found, tmp_path)
    kept = json.loads(facts.read_text(encoding="utf-8"))
    assert kept["largest"] == found["extremes"]
    assert kept["largest_se"] is None
    assert kept["hidden"] == 3
    assert picture.name == "bars.png"
    text = report.read_text(encoding="utf-8")
    row = f'<td class="number">{found["extremes"]:.2f}</td><td class="unit">metres</td>'
    assert row in text
    assert "hidden" not in text
    assert "<h3>Are there &lt; 2 bars?</h3>" in text


def test_names_that_would_overwrite_one_another_are_refused():
    with pytest.raises(ValueError, match="2 diagnostics are named 'extremes'"):
        run(EXTREMES, EXTREMES)
    figure = DiagnosticFigure("bars", "A bar.", lambda _: Figure())
    one, other = (replace(EXTREMES, name=name, figures=(figure,)) for name in ("a", "b"))
    with pytest.raises(ValueError, match="2 figures are named 'bars'"):
        run(one, other)


@pytest.mark.parametrize("key", ["verdict", "largest", "largest_se"])
def test_numbers_of_one_key_are_noted(key):
    first = replace(EXTREMES, numbers=lambda _: [Number("largest", 1.0, error=0.1)])
    other = replace(EXTREMES, name="other", numbers=lambda _: [Number(key, 2.0)])
    found = run(first, other)
    assert found.numbers["largest"] == 1.0
    assert found.findings[-1].sentence == (
        f"Not looked at: its number {key!r} has the name of another one."
    )


def test_numbers_that_json_cannot_hold_are_noted_and_figures_that_fail_say_why(tmp_path):
    found = run(replace(EXTREMES, numbers=lambda value: [Number("largest", torch.ones(2))]))
    assert "Tensor is not JSON serializable" in found.findings[0].sentence
    found = run(replace(EXTREMES, judge=lambda value: None))
    assert "'NoneType' object is not iterable" in found.findings[0].sentence
    found = run(
        replace(EXTREMES, figures=(DiagnosticFigure("bars", "A bar. Good: none.", broken),))
    )
    (text,) = found.figures["bars"].axes[0].texts
    assert text.get_text().replace("\n", " ") == "bars could not be drawn: no such column."
    assert all(path.exists() for path in save_report(found, tmp_path))
