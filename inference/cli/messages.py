"""Messages of the command line, and errors as one line."""

import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import typer
from rich.console import Console


def fail(message: str, code: int = 2) -> NoReturn:
    """Print a message in red and exit."""
    say(message, "red")
    raise typer.Exit(code)


def say(message: str, style: str | None = None) -> None:
    """Print a message to the standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(message, markup=False, style=style)


ARGUMENTS = (
    "batch_size", "num_samples", "num_data", "clip_norm", "learning_rate", "latent_dim",
    "free_bits", "weight_decay",
)  # fmt: skip
"""Python names of arguments that are options."""


def _as_options(message: str) -> str:
    """Call by its option what an error calls by its Python name."""
    return re.sub(
        rf"(?<![\w-])({'|'.join(ARGUMENTS)})\b(?!=)",
        lambda match: "--" + match[0].replace("_", "-"),
        message,
    )


def one_line(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can mend into one line and exit code 2; all else stays a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"latente: {message}", "yellow")
            try:
                command(*args, **kwargs)
            except (ValueError, OSError, FloatingPointError) as error:
                fail(f"latente: {_as_options(' '.join(str(error).split()))}")

    return wrapped
