"""The house's own rules: imports run one way, without circles; pieces stay short."""

import ast
import graphlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "setup.py").exists():
    pytest.skip("the sources are not here: run in a checkout", allow_module_level=True)
FOLDERS = ("models", "guides", "inference")
ROOMS = (
    "common",
    "execution",
    "pairs",
    "data",
    "objectives",
    "simulation",
    "evidence",
    "evaluation",
    "training",
    "diagnostics",
    "reporting",
    "recipes",
    "cli",
)
"""The rooms of ``inference/``: each imports from itself and from those before it."""
ASSEMBLING = ("recipes", "cli")
"""The only rooms that know models and guides."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the three folders, by its dotted name below ``latente``."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    named = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[str]:
    """The modules of ours that a module imports, wherever in it the import stands."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package) + 1:
                targets = []
            else:
                base = package[: len(package) - node.level + 1] if node.level else []
                stem = [*base, *(node.module or "").split(".")] if node.module else base
                targets = [".".join([*stem, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            parts = target.removeprefix("latente.").split(".")
            # The longest beginning that is a module: what follows is a name within it.
            found = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            module = next((part for part in found if part in known), None)
            if module is not None and module != name:
                yield module


def place(module: str) -> tuple[str, int]:
    """Folder and floor of a module: a higher floor may import from a lower one."""
    folder, *rest = module.split(".")
    if folder != "inference" or not rest:
        return folder, len(ROOMS)
    return folder, ROOMS.index(rest[0])


def violations(root: Path) -> list[str]:
    """Every import against the order, in words."""
    named, found = modules(root), []
    for name, path in named.items():
        folder, floor = place(name)
        allowed = {"models": {"models"}, "guides": {"models", "guides"}}.get(folder, {"inference"})
        if folder == "inference" and [*name.split("."), ""][1] in ASSEMBLING:
            allowed = set(FOLDERS)
        for target in imports_of(name, path, set(named)):
            other, level = place(target)
            if other not in allowed or (folder == other == "inference" and level > floor):
                found.append(f"{name} imports {target}")
    return found


def circle(root: Path) -> list[str] | None:
    """A circle of imports, if there is one; imports inside functions and for types count."""
    named = modules(root)
    graph = {name: set(imports_of(name, path, set(named))) for name, path in named.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_imports_run_one_way():
    assert violations(ROOT) == []


def test_no_imports_run_in_a_circle():
    assert circle(ROOT) is None


def test_every_room_has_a_place_and_a_first_line():
    rooms = {path.name for path in (ROOT / "inference").iterdir() if list(path.glob("*.py"))}
    assert rooms == set(ROOMS)
    for name, path in modules(ROOT).items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
        assert first[0].endswith("."), f"{name}: a first line says what lives there"


@pytest.mark.parametrize(
    ("place_of_it", "line", "told"),
    [
        ("models/vae.py", "from ..guides.normal import x", "models.vae imports guides.normal"),
        ("guides/a.py", "import latente.inference.pairs.kl", "guides.a imports inference.pairs.kl"),
        (
            "inference/pairs/kl.py",
            "def f():\n    from ..training.fit import fit",
            "inference.pairs.kl imports inference.training.fit",
        ),
        (
            "inference/pairs/kl.py",
            "from latente.inference.training import fit",
            "inference.pairs.kl imports inference.training.fit",
        ),
        (
            "inference/pairs/kl.py",
            "from .. import fit",
            "inference.pairs.kl imports inference",
        ),
        (
            "inference/training/fit.py",
            "from ...guides import normal",
            "inference.training.fit imports guides.normal",
        ),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, place_of_it, line, told):
    for name in ("models/vae.py", "guides/normal.py", "inference/pairs/kl.py",
                 "inference/training/fit.py", place_of_it):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in (path.parent, path.parent.parent):
            (package / "__init__.py").touch()
        path.touch()
    (tmp_path / place_of_it).write_text(line + "\n")
    assert violations(tmp_path) == [told]


def test_a_circle_is_found(tmp_path):
    folder = tmp_path / "inference" / "pairs"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("def f():\n    from .b import x\n")
    (folder / "b.py").write_text("from .c import x\n")
    (folder / "c.py").write_text("from . import a\n")
    found = circle(tmp_path)
    assert found is not None
    assert {name.split(".")[-1] for name in found} == {"a", "b", "c"}


SOURCES = modules(ROOT)


@pytest.mark.parametrize("name", SOURCES)
def test_functions_and_classes_stay_short(name):
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = [part for part in node.body if not _is_docstring(part)]
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 70, f"{node.name} has {length} lines"
        if isinstance(node, ast.ClassDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length < 150, f"{node.name} has {length} lines"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_the_wheel_holds_the_three_packages(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("latente-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in SOURCES.values():
        assert f"latente/{path.relative_to(ROOT)}" in names
    assert "latente/inference/__init__.pyi" in names
    for folder in FOLDERS:
        assert f"latente/{folder}/py.typed" in names
    assert not any(name.startswith(("tests", "models", "inference")) for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "latente = latente.inference.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()
