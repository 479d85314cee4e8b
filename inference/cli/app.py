"""The command ``latente``: its commands, each in a file of its own."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from .diagnose import diagnose
from .encode import encode
from .evaluate import evaluate
from .messages import one_line
from .plot import plot
from .recipes import recipes
from .sample import sample
from .score import score
from .train import train

app = typer.Typer(
    name="latente",
    help="Fit deep latent-variable models, and judge whether their posteriors can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"latente {metadata.version('latente')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    pass


for command in (train, evaluate, diagnose, plot, sample, encode, score, recipes):
    app.command()(one_line(command))


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
