"""Atomic writing of files, and JSON."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file to write; move it to ``path`` on success, delete it on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is truncated, not JSON, or not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no run: there is no {path.name} in it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a file of a run: it does not hold a JSON object")
    return content
