"""The report of a diagnosis: one page that needs nothing beside itself, and files that read back.

Nothing here is statistical: results are made by hand, or by one small diagnosis of a fixed seed.
"""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import xarray

from latente.guides import ExactPosterior
from latente.inference import Budget, Diagnosis, diagnose, save_report
from latente.inference.diagnostics.finding import Finding, Level, worst_level
from latente.inference.diagnostics.latent_information import LatentInformation
from latente.inference.diagnostics.predictive_checks import PredictiveCheck, PredictiveChecks
from latente.inference.diagnostics.registry import DIAGNOSTICS
from latente.inference.evidence.importance_sampling import Evidence
from latente.models import PPCA

FIGURES = {figure.name: figure for one in DIAGNOSTICS for figure in one.figures}


def made(findings=(), **results):
    """A diagnosis with these results only."""
    dataset = xarray.Dataset({"z": (("draw",), np.zeros(5))})
    tree = xarray.DataTree.from_dict({"posterior": dataset})
    ran = tuple(diagnostic for diagnostic in DIAGNOSTICS if diagnostic.name in results)
    numbers = [number for one in ran for number in one.numbers(results[one.name])]
    return Diagnosis(tuple(findings), results, tuple(numbers), tree, ran, num_data=2)


def evidence(log_px=(-80.0, -82.0), khat=0.9):
    log_px = torch.tensor(log_px, dtype=torch.float64)
    one = torch.ones_like(log_px)
    return Evidence(log_px, 0.1 * one, one, khat * one, log_px, log_px, 0 * one, 1000)


class Page(HTMLParser):
    """What a page holds, and that its tags are closed in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text, self.levels, self._open = [], [], "", [], []
        self.first_image = None
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "img":
            self.images.append(found)
            self.first_image = self.first_image or len(self.text)
        if "badge" in (found.get("class") or ""):
            self.levels.append(found["class"].split()[1])
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data


def read(diagnosis, folder):
    report, *_ = save_report(diagnosis, folder)
    text = report.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small diagnosis of a pair with the exact posterior, and where its report was written."""
    torch.manual_seed(0)
    model = PPCA(4, 1)
    budget = Budget(
        num_samples=50, annealed_data=2, temperatures=5, chains=2, gap_data=3, gap_steps=20,
        simulations=20, nuts_data=1, nuts_samples=10, nuts_warmup=20, nuts_temperatures=20,
        replications=5, tree_data=5, tree_samples=10,
    )  # fmt: skip
    found = diagnose(model, ExactPosterior(model), torch.randn(10, 4), budget=budget)
    folder = tmp_path_factory.mktemp("report") / "of" / "all"
    return found, folder, save_report(found, folder)


def test_all_files_are_written_and_named_the_report_first(whole):
    found, folder, paths = whole
    assert paths[:3] == [folder / f for f in ("report.html", "diagnosis.json", "diagnosis.nc")]
    assert [path.stem for path in paths[3:]] == list(found.figures)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(paths)
    assert all(path.stat().st_size > 500 for path in paths)


def test_the_page_needs_nothing_beside_itself(whole):
    _, _, (report, *_) = whole
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert len(text) < 3_000_000
    assert text.startswith("<!doctype html>")
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert ("viewport" in {found.get("name") for tag, found in page.tags if tag == "meta"}) is True
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,")


def test_each_figure_is_shown_once_with_words(whole):
    found, _, (report, *_) = whole
    page = Page(report.read_text(encoding="utf-8"))
    assert len(page.images) == len(found.figures) == 8
    assert all(len(image["alt"]) > 30 for image in page.images)
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs]
    assert sections == list(found.figures)
    for name in found.figures:
        assert FIGURES[name].caption in page.text
    anchors = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert anchors <= {f"#{name}" for name in sections}


def test_every_figure_has_a_title_and_a_caption():
    for diagnostic in DIAGNOSTICS:
        assert diagnostic.question.endswith("?")
        assert all(len(figure.caption) > 100 for figure in diagnostic.figures)


def test_every_topic_of_a_finding_leads_to_a_figure(whole):
    found, _, (report, *_) = whole
    topics = {topic for one in DIAGNOSTICS if one.figures for topic in one.topics}
    assert {finding.topic for finding in found.findings} <= topics
    assert report.read_text(encoding="utf-8").count('<a href="#') == len(found.findings)


def test_the_verdict_comes_first_and_levels_are_words(tmp_path):
    findings = [
        Finding("information", Level.GOOD, "All is in use."),
        Finding("NUTS", Level.NOTE, "Not looked at."),
        Finding("gap", Level.WARNING, "It is loose by -1.5 nats."),
        Finding("evidence", Level.BAD, "k̂ is high."),
    ]
    found = made(findings, evidence=evidence())
    _, page = read(found, tmp_path)
    words = ["Do not trust this posterior.", "k̂ is high", "It is loose by −1.5 nats"]
    words += ["Not looked at", "All is in use"]
    places = [page.text.rindex(word) for word in words]  # the title of the page apart
    assert places == sorted(places)
    assert places[0] < page.first_image
    assert page.levels == ["bad", "bad", "warning", "note", "good"]
    for level in ("bad", "warning", "note", "good"):
        assert page.text.count(level) >= 1
    assert "2 data" in page.text


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], "NOTE"),
        ([Level.NOTE], "NOTE"),
        ([Level.NOTE, Level.GOOD], "GOOD"),
        ([Level.GOOD, Level.WARNING, Level.NOTE], "WARNING"),
    ],
)
def test_the_badge_is_that_of_the_verdict(levels, expected):
    assert worst_level([Finding("gap", level, "It is so.") for level in levels]).name == expected


def test_what_users_name_is_escaped(tmp_path):
    name = '<script>alert("x")</script> & co'
    check = PredictiveCheck(0.5, torch.rand(10).double())
    finding = Finding("posterior predictive", Level.WARNING, f"{name} is odd.")
    checks = PredictiveChecks({"a < b": check}, None)
    text, page = read(made([finding], checks=checks), tmp_path)
    assert "<script" not in text
    assert f"{name} is odd." in page.text
    assert name in page.images[0]["alt"]


def test_nothing_found_is_a_page_too(tmp_path):
    _, page = read(made(), tmp_path)
    assert "Nothing could be said" in page.text
    assert page.images == []
    assert "table" not in {tag for tag, _ in page.tags}
    assert "Figures" not in page.text


def test_the_table_has_the_numbers_with_their_units(tmp_path):
    kl = torch.tensor([[2.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    spread = {"z": torch.tensor([1.0, 0.0])}
    some = LatentInformation(("z[0]", "z[1]"), kl, spread, 0.5, 0.1, math.nan, math.nan)
    _, page = read(made(evidence=evidence(), information=some), tmp_path)
    cells = page.text[page.text.index("Numbers") :]
    for cell in ("−81.00 ± 0.07", "nats per datum", "100.0%", "2.50", "1 of 2"):
        assert cell in cells
    assert "aggregated posterior" not in cells[: cells.index("Figures")]  # it is not known


def test_the_numbers_are_strict_json(whole, tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found, _, (_, facts, *_) = whole
    kept = json.loads(facts.read_text(encoding="utf-8"), parse_constant=refuse)
    assert kept == found.numbers
    assert kept["verdict"] == found.verdict
    assert [one["level"] for one in kept["findings"]] == [
        one.level.name.lower() for one in found.findings
    ]

    infinite = made(evidence=evidence((-math.inf, -80.0)))
    _, facts, *_ = save_report(infinite, tmp_path)
    kept = json.loads(facts.read_text(encoding="utf-8"), parse_constant=refuse)
    assert kept["log_evidence"] is None


def test_the_tree_reads_back(whole):
    found, _, (_, _, tree, *_) = whole
    kept = xarray.load_datatree(tree, engine="h5netcdf")
    assert {group.path for group in kept.subtree} == {group.path for group in found.tree.subtree}
    for group in found.tree.subtree:
        xarray.testing.assert_identical(
            kept[group.path].to_dataset(), found.tree[group.path].to_dataset()
        )


def test_what_stops_the_writing_leaves_the_former_files(whole, tmp_path, monkeypatch):
    found = made(evidence=evidence())
    before = [path.read_bytes() for path in save_report(found, tmp_path)[:3]]

    def stop(*args, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(xarray.DataTree, "to_netcdf", stop)
    with pytest.raises(OSError, match="the disk is full"):
        save_report(made(), tmp_path)
    names = ("report.html", "diagnosis.json", "diagnosis.nc")
    after = [(tmp_path / name).read_bytes() for name in names]
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_report_is_the_same_each_time(whole, tmp_path):
    found, _, (report, facts, *_) = whole
    again, same, *_ = save_report(replace(found), tmp_path)
    assert again.read_bytes() == report.read_bytes()
    assert same.read_bytes() == facts.read_bytes()
