"""The pages of README and docs, read as code blocks that can be run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PAGES = {path.name if path.parent == ROOT else f"docs/{path.name}": path
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}  # fmt: skip
"""README and the pages of docs, by their path in the checkout."""
MARK = re.compile(r"<!-- test: (.*) → (.*) -->")
"""Stands above a block that takes long, once or more: what a test puts in place of what."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    heading: str
    language: str
    code: str
    marks: tuple[tuple[str, str], ...] = ()
    """What a test replaces, and by what."""

    @property
    def short(self) -> str:
        """The code as a test runs it."""
        code = self.code
        for old, new in self.marks:
            assert old in self.code, f"{self.page}, {self.heading}: {old!r} is not in the block"
            code = code.replace(old, new)
        return code


@dataclass
class Ran:
    """A block that has run: its code, what it printed, and the names that it left."""

    code: str
    printed: str
    names: dict[str, Any] = field(repr=False)


def blocks(page: str, language: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page, in order; those of one language, if it is given."""
    heading, fence = "", None
    marks: tuple[tuple[str, str], ...] = ()
    lines: list[str] = []
    for line in PAGES[page].read_text(encoding="utf-8").splitlines():
        if fence is not None and line.startswith("```"):
            if language in (None, fence):
                yield Block(page, heading, fence, "\n".join(lines) + "\n", marks)
            marks, fence = (), None
        elif fence is not None:
            lines.append(line)
        elif line.startswith("```"):
            fence, lines = line.removeprefix("```").strip(), []
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif found := MARK.fullmatch(line):
            marks += ((found[1], found[2]),)
    assert fence is None, f"{page}: a block is not closed"


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in a namespace, from a fixed random state."""
    torch.manual_seed(0)
    exec(compile(block.short, f"{block.page}, {block.heading!r}", "exec"), names)
