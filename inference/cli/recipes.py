"""The command ``latente recipes``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..recipes.axis import Axis


def recipes(
    parts: Annotated[
        bool, typer.Option("--parts", help="List the parts of each axis and their parameters.")
    ] = False,
) -> None:
    """List the recipes or, with --parts, the parts of each axis, each with its paper."""
    from ..recipes.axes import AXES
    from ..recipes.registry import RECIPES

    if parts:
        tables = [_tabulate_axis(f"--{name}", axis) for name, axis in AXES.items()]
    else:
        tables = [Table("recipe", "what it is", "paper")]
        for recipe in RECIPES.values():
            tables[0].add_row(recipe.name, escape(recipe.summary), escape(recipe.paper))
    for table in tables:
        table.columns[0].no_wrap = True
        Console().print(table)


def _tabulate_axis(option: str, axis: "Axis[Any]") -> Table:
    """The parts of an axis, each followed by its parameters."""
    from ..recipes.parameters import text_of

    table = Table(option, "what it is", "paper")
    for part in axis.values():
        parameters = part.parameters
        words = part.name, escape(part.summary), escape(part.paper)
        table.add_row(*words, end_section=not parameters)
        for parameter in parameters:
            setting = f"  {parameter.name}={text_of(parameter.default)}"
            table.add_row(setting, parameter.kind.allowed, end_section=parameter is parameters[-1])
    return table
