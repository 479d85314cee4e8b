"""Files written whole or not at all, JSON among them."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file to write, moved to ``path`` if all goes well and removed if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a temporary file and move it into place."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's JSON.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is truncated or not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no run: there is no {path.name} in it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a run's: it holds no facts by name")
    return content
