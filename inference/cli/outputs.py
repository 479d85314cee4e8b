"""Files that a command writes: rows never over others unasked, and all said in one line."""

import shlex
from collections.abc import Iterable
from pathlib import Path

import typer


def check_free(*paths: Path, overwrite: bool) -> None:
    """Refuse to write over files, before anything is computed.

    Raises:
        FileExistsError: if one of them is there, and ``overwrite`` is not set.
    """
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        them = "them" if more else "it"
        raise FileExistsError(
            f"{there[0]} is there already{more}: give --overwrite to replace {them}"
        )


def say_written(paths: Iterable[Path], folder: Path, *commands: str) -> None:
    """Print what was written, and the commands on the run's folder that come next, in one line."""
    where = shlex.quote(str(folder))
    following = "; ".join(f"latente {command} {where}" for command in commands)
    typer.echo(f"wrote {', '.join(map(str, paths))}; next: {following}")
