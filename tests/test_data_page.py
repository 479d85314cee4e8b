"""The page on data: its examples run, and print what they say."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_examples_run_and_print_what_they_say(capsys):
    exec("\n".join(BLOCKS), {})
    printed = capsys.readouterr().out.splitlines()
    told = re.findall(r"print\(.*\)  # (.*)", "\n".join(BLOCKS))
    assert len(printed) == len(told) > 5
    for found, expected in zip(printed, told, strict=True):
        assert found.startswith(expected.removesuffix("…").rstrip())
        assert expected.endswith("…") or found == expected


def test_every_kind_of_file_is_on_the_page():
    from latente.inference.data.files import SUFFIXES

    assert all(f"`{suffix}`" in PAGE for suffix in SUFFIXES)
