"""The house's own rules: imports run one way, files stay short, the wheel holds what it must."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "guides", "inference")
ASSEMBLING = {f"inference/{name}.py" for name in ("assembly", "recipes", "plans", "cli")}


def imports_of(path: Path) -> set[str]:
    """Which of the three folders a file imports from, itself included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            found.add((node.module or "").split(".")[0])
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("latente.")}
    return found


SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    allowed = {"models": set(), "guides": {"models"}, "inference": {"inference"}}
    name = str(path.relative_to(ROOT))
    permitted = set(FOLDERS) if name in ASSEMBLING else allowed[name.split("/")[0]]
    assert imports_of(path) <= permitted


def test_the_rule_would_catch_an_import_against_it(tmp_path):
    (tmp_path / "a.py").write_text("from ..guides.normal import x\nimport latente.inference.fit\n")
    assert imports_of(tmp_path / "a.py") == {"guides", "inference"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = [part for part in node.body if not _is_docstring(part)]
            assert (node.end_lineno or 0) - body[0].lineno <= 70 if body else True, node.name


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_the_wheel_holds_the_three_packages(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("latente-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in SOURCES:
        assert f"latente/{path.relative_to(ROOT)}" in names
    for folder in FOLDERS:
        assert f"latente/{folder}/py.typed" in names
    assert not any(name.startswith(("tests", "models", "inference")) for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "latente = latente.inference.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()
