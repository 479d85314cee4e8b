"""The page on the command line: its commands run, and it names every option and part."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from latente.inference.cli.app import app
from latente.inference.recipes.axes import AXES
from latente.inference.recipes.parameters import text_of
from latente.inference.recipes.plan import Plan, complete

PAGE = (Path(__file__).parents[1] / "docs" / "command_line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True)[1:] for block in BLOCKS for line in block.splitlines()]
REFUSED = re.findall(r"^\$ latente (.*)\n(latente: .*)$", PAGE, re.MULTILINE)
QUICK = {
    "train": ["--epochs", "1", "--hidden", "8"],
    "evaluate": ["--num-samples", "20"],
    "encode": ["--num-samples", "20"],
    "score": ["--num-samples", "20"],
}


def run(arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


def test_the_first_commands_run_in_order(tmp_path, monkeypatch):
    """All but the diagnosis, which takes a while, and has tests of its own."""
    monkeypatch.chdir(tmp_path)
    for arguments in COMMANDS[:7]:
        if arguments[0] != "diagnose":
            result = run([*arguments, *QUICK.get(arguments[0], [])])
            assert result.exit_code == 0, result.output
    for name in ("samples.npy", "codes.csv", "scores.csv"):
        assert (tmp_path / "runs" / "digits-vae-k2" / name).is_file()


def test_a_run_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in COMMANDS[-2:]:
        epochs = [word.replace("20", "1").replace("30", "2") for word in arguments]
        hidden = [] if "--resume" in arguments else ["--hidden", "8"]
        result = run([*epochs, *hidden])
        assert result.exit_code == 0, result.output
    assert len((tmp_path / "runs" / "longer" / "metrics.csv").read_text().splitlines()) == 3


TRAIN = [arguments for arguments in COMMANDS if arguments[0] == "train"]


@pytest.mark.parametrize("arguments", TRAIN, ids=" ".join)
def test_what_is_to_be_trained_is_a_composition(arguments, tmp_path, monkeypatch):
    """What trains is shown elsewhere (test_compositions): here each command comes to its fit."""
    plans = []
    monkeypatch.chdir(tmp_path)
    for file in (word for word in arguments if word.endswith((".csv", ".txt"))):
        Path(file).touch()

    def record(plan, folder, **options):
        plans.append(complete(plan))
        raise OSError("far enough")

    monkeypatch.setattr("latente.inference.recipes.train.train", record)
    monkeypatch.setattr("latente.inference.recipes.plan.read_plan", lambda out: complete(Plan()))
    result = run(arguments)
    assert "far enough" in result.stderr, result.output
    assert len(plans) == 1


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_refused_is_refused_in_these_words(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(shlex.split(arguments))
    assert result.exit_code == 2
    assert result.stderr == f"{message}\n"


def test_the_page_has_commands_of_all_kinds():
    assert {arguments[0] for arguments in COMMANDS} == set(get_command(app).commands)
    assert len(TRAIN) >= 15
    assert len(REFUSED) == 5


def test_the_page_names_every_option_of_train():
    (train,) = [c for name, c in get_command(app).commands.items() if name == "train"]
    for parameter in train.params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in PAGE, parameter.name


def rows_of_axes():
    """The table of the axes: for each, the cells of choices and of parameters."""
    rows, current = {}, ""
    for line in PAGE.splitlines():
        cells = line.split("|")
        if len(cells) == 5:
            current = cells[1].strip(" `-") or current
            rows.setdefault(current, []).append((cells[2], cells[3]))
    return rows


@pytest.mark.parametrize("axis", AXES)
def test_the_page_names_every_part_with_its_defaults(axis):
    rows = rows_of_axes()[axis]
    for part in AXES[axis].values():
        (parameters,) = [cells[1] for cells in rows if f"`{part.name}`" in cells[0]]
        for parameter in part.parameters:
            assert f"`{parameter.name}={text_of(parameter.default)}`" in parameters, part.name
