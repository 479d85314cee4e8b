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
"""Arguments whose names stand for themselves in an error, and are no words of English."""

VALUED = (
    "delimiter", "decimal", "labels", "scale", "layout", "test", "validation", "split", "groups",
    "order", "temperature", "key", "given", "drop",
)  # fmt: skip
"""Arguments with a value that are options of the same name, and are words of English too."""

AS_OPTIONS = {
    rf"({'|'.join(ARGUMENTS)})\b(?!=)": r"--\1",
    r"(header|keep_degenerate|standardize)=True": r"--\1",
    r"header=False": "--no-header",
    rf"({'|'.join(VALUED)}|header)=(?=$|[\s,:;])": r"--\1",
    rf"({'|'.join(VALUED)})=(?=['\"\d])": r"--\1 ",
    rf"({'|'.join(VALUED)}|header)(?= must be)": r"--\1",
}
"""Patterns of an argument as errors name it in Python, and the option that it is."""


def as_options(message: str) -> str:
    """Rewrite the arguments that an error names as options of the command line.

    >>> as_options("give header=True, or delimiter=';'; num_samples must be positive")
    "give --header, or --delimiter ';'; --num-samples must be positive"
    >>> as_options("leave it out by drop=; or set it aside, by labels=")
    'leave it out by --drop; or set it aside, by --labels'
    """
    for argument, option in AS_OPTIONS.items():
        message = re.sub(
            rf"(?<![\w-]){argument}",
            lambda match, option=option: match.expand(option).replace("_", "-"),
            message,
        )
    return message


def one_line(command: Callable[..., None]) -> Callable[..., None]:
    """Print an error that a user can mend in one line, with exit code 2; others stay tracebacks."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"latente: {message}", "yellow")
            try:
                command(*args, **kwargs)
            except (ValueError, OSError, FloatingPointError) as error:
                fail(f"latente: {as_options(' '.join(str(error).split()))}")

    return wrapped
