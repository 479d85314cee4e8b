"""Every code block of README and docs runs, and gives what its page promises.

The Python blocks of a page run in order, in one namespace, in an empty folder. A block that takes
long is shortened by a mark above it, ``<!-- test: epochs=50 → epochs=1 -->``. What has to hold
after a block stands here, under the heading of the block. Commands are parsed, not run.
"""

import ast
import re
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import unquote

import pytest
import torch
from pyro.infer import TraceEnum_ELBO

from latente.inference import Budget, fit, log_evidence
from latente.inference.cli import main

from .pages import PAGES, ROOT, Block, Ran, blocks, run

CHECKS: dict[tuple[str, str], Callable[[Ran], None]] = {}
"""What has to hold after a block, by the block's page and heading."""
CODE_FOLDERS = ("models", "guides", "inference")
TESTED_ELSEWHERE = {
    "docs/data.md": "test_data_page.py",
    "docs/own_diagnostic.md": "test_own_diagnostic.py",
    "docs/own_parts.md": "test_own_parts.py",
    "docs/training.md": "test_training_page.py",
}
"""Pages whose Python blocks run in tests of their own."""
ON_FEW_DIGITS = "docs/diagnostics.md", "docs/guide.md", "docs/hierarchies.md"
"""Pages of which no block is held to the figures that it has on all digits."""


def after(page: str, heading: str):
    """Register what has to hold after the block under that heading has run."""

    def register(check: Callable[[Ran], None]) -> Callable[[Ran], None]:
        CHECKS[page, heading] = check
        return check

    return register


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if list(blocks(page, "python")) and page not in TESTED_ELSEWHERE],
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    if page in ON_FEW_DIGITS:
        request.getfixturevalue("few_digits")
    names: dict = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        run(block, names)
        ran = Ran(block.code, capsys.readouterr().out, names)
        check = CHECKS.get((page, block.heading))
        if check is not None:
            check(ran)


@pytest.mark.parametrize(("page", "test"), TESTED_ELSEWHERE.items())
def test_a_page_tested_elsewhere_is_read_there(page, test):
    assert page in PAGES
    assert Path(page).name in (ROOT / "tests" / test).read_text(encoding="utf-8")


def test_every_check_has_its_block():
    headings = Counter(
        (block.page, block.heading) for page in PAGES for block in blocks(page, "python")
    )
    assert all(headings[place] == 1 for place in CHECKS), set(CHECKS) - set(headings)


@after("README.md", "From Python")
def the_example_gives_a_bound_below_the_evidence_and_a_picture(ran):
    assert -26 < ran.names["evidence"].elbo < ran.names["evidence"].mean < -22
    assert Path("latent.png").stat().st_size > 10_000


@after("docs/tables.md", "Tables with columns of several kinds")
def the_kinds_are_those_shown(ran):
    shown = re.findall(r"^# (\w+: .*)", ran.code, re.MULTILINE)
    assert len(shown) == 3
    assert set(shown) <= set(ran.printed.splitlines())


@after("docs/tables.md", "Likelihood and encoder")
def the_draws_are_such_a_table(ran):
    drawn = ran.names["decode_columns"](ran.names["draws"], ran.names["columns"])
    assert (drawn.dtypes == ran.names["people"].dtypes).all()


@after("docs/guide.md", "Another posterior")
def each_family_fits(ran):
    assert fit_each_guide(ran) == 1


@after("docs/guide.md", "A posterior family of your own")
def a_family_of_ones_own_fits(ran):
    assert fit_each_guide(ran) == 0
    assert type(ran.names["guide"]).__name__ == "Laplace"


def fit_each_guide(ran: Ran) -> int:
    """Fit each guide that a block makes, for an epoch; how often the block itself calls ``fit``."""
    names, calls = {**ran.names}, []
    names["fit"] = lambda *args, **options: calls.append(args[1])
    for statement in ast.parse(ran.code).body:
        source = ast.unparse(statement)
        exec(source, names)
        if source.startswith("guide = "):
            again = fit(names["vae"], names["guide"], names["data"], epochs=1, batch_size=240,
                        show_progress=False)  # fmt: skip
            assert again.epoch == 1
    return len(calls)


@after("docs/guide.md", "Another prior, likelihood or network")
def the_last_prior_is_a_vamp_prior(ran):
    assert type(ran.names["vae"].prior).__name__ == "VampPrior"


@after("docs/guide.md", "Another objective")
def each_objective_fits(ran):
    names = ran.names
    for objective in names["objectives"]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the schedule of beta reaches 1 at epoch 10")
            again = fit(names["vae"], names["guide"], names["data"], objective=objective, epochs=1,
                        batch_size=240, show_progress=False)  # fmt: skip
        assert again.history[0]["elbo"] > -60


@after("docs/guide.md", "Given a label, or part of an image")
def the_conditional_models_sample_and_have_an_evidence(ran):
    assert ran.names["means"].shape == (10, 8, 8)
    assert "N=30" in ran.printed


@after("docs/guide.md", "An autoencoder")
def the_autoencoder_reconstructs(ran):
    assert -60 < float(ran.printed) < -10


@after("docs/guide.md", "Codes on a grid")
def the_bound_of_codes_is_below_the_evidence(ran):
    names = ran.names
    bound = names["evaluate"](names["codes"], names["fsq"], names["data"].test)["elbo"]
    exact = names["enumerated_evidence"](names["codes"], names["fsq"], names["data"].test)
    assert bound < exact.mean


@after("docs/guide.md", "Codes in a codebook")
def the_learned_prior_raises_the_bound_by_what_is_said(ran):
    uniform, learned = ran.names["uniform"], ran.names["learned"]
    gain = learned["elbo"] - uniform["elbo"]
    assert learned["prior_gain"] == pytest.approx(gain, abs=1e-3)
    assert gain > 0


@after("docs/guide.md", "Models with exact answers")
def the_exact_answers_agree(ran):
    estimated, exact, by_em, by_svi = map(float, re.findall(r"-\d+\.\d+", ran.printed))
    assert estimated == pytest.approx(exact, abs=1e-3)
    assert by_svi == pytest.approx(by_em, abs=0.02)


@after("docs/guide.md", "Discrete sites, summed out")
def the_chain_of_the_guide_has_its_evidence_exactly(ran):
    evidence, fitted, x = ran.names["evidence"], ran.names["run"], ran.names["x"]
    bound = TraceEnum_ELBO(max_plate_nesting=1).loss(fitted.model, fitted.guide, x)
    assert evidence.exact
    assert evidence.mean == pytest.approx(-bound / len(x), abs=1e-4)
    assert "k_4" in ran.names["tree"]["posterior"]


@after("docs/guide.md", "Your own Pyro pair")
def the_users_own_pair_has_the_evidence_of_its_closed_form(ran):
    """Gamma-Poisson: p(x) is negative binomial; per-datum z-scores, false alarm 1e-3 in all."""
    fitted, x = ran.names["run"], ran.names["x"]
    slope = fitted.model.store["params"]["slope"].detach()
    exact = torch.distributions.NegativeBinomial(2.0, probs=slope / (1 + slope))
    some = x[:250]
    evidence = log_evidence(fitted.model, fitted.guide, some, num_samples=5000, seed=3)
    error = evidence.log_px - exact.log_prob(some)
    trusted = evidence.khat < 0.5
    assert trusted.sum() > 125
    assert (error / evidence.standard_error)[trusted].abs().max() < 5
    assert slope.item() == pytest.approx(3, rel=0.1)


@after("docs/diagnostics.md", "`diagnose`: all questions in one call")
def the_diagnosis_is_told_kept_and_exported(ran):
    assert Path("diagnosis", "report.html").is_file()
    assert ran.names["diagnosis"].verdict in ran.printed
    assert "posterior_predictive" in ran.names["tree"]


def commands() -> Iterator[tuple[str, str]]:
    """Page and text of each command, continued lines joined."""
    for page in PAGES:
        for block in blocks(page):
            if block.language != "python":
                for line in block.code.replace("\\\n", " ").splitlines():
                    if line.split(" ")[0] in CHECK_OF:
                        yield page, line


def check_latente(words: list[str]) -> None:
    """With ``--help`` a command exits after its options were read, and before it does anything."""
    with mock.patch.object(sys, "argv", ["latente", words[0], "--help", *words[1:]]):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(words) <= set(targets)


def check_python(words: list[str]) -> None:
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in words[1:] if word.startswith("--"))


def check_pytest(words: list[str]) -> None:
    paths = [word for word in words if word.startswith("tests/")]
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


CHECK_OF = {
    "latente": check_latente,
    "make": check_make,
    "python": check_python,
    "pytest": check_pytest,
}


@pytest.mark.parametrize(("page", "line"), [*commands()])
def test_a_command_and_its_options_exist(page, line):
    name, *words = shlex.split(line, comments=True)
    CHECK_OF[name](words)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = unquote(target).partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        folder = place.resolve().relative_to(ROOT.resolve()).parts[:1]
        if folder and folder[0] in CODE_FOLDERS and not (ROOT / folder[0]).exists():
            continue  # the tests run beside an installed wheel, without the sources
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_page_lists_all_fields_of_a_budget_with_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGES["docs/diagnostics.md"].read_text(), re.M)
    assert {name: int(default) for name, default in rows} == vars(Budget())


def test_the_front_page_is_short():
    lines = PAGES["README.md"].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    (example,) = blocks("README.md", "python")
    assert sum(bool(line.strip()) for line in example.code.splitlines()) <= 15


def test_the_speeds_of_the_front_page_are_those_measured():
    (front, results) = (PAGES[page].read_text(encoding="utf-8") for page in
                        ("README.md", "docs/results.md"))  # fmt: skip
    rows = re.findall(r"^\| \d+, \d+ \|.*$", front, re.MULTILINE)
    assert rows
    assert all(f"\n{row} " in results for row in rows)


def test_a_block_ends_its_mark(tmp_path, monkeypatch):
    first = "# A\n<!-- test: 50 → 1 -->\n<!-- test: x → z -->\n```python\nx = 50\n```\n"
    text = first + "# B\n```python\ny = 50\n```\n"
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    monkeypatch.setitem(PAGES, "page.md", tmp_path / "page.md")
    marked, plain = blocks("page.md")
    assert (marked.short, plain.short) == ("z = 1\n", "y = 50\n")
    with pytest.raises(AssertionError, match="is not in the block"):
        _ = Block("page.md", "A", "python", "x = 2\n", (("50", "1"),)).short
