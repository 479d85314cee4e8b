"""Progress of long computations: a bar in a terminal, occasional lines elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""``advance(steps=1, note=None)`` reports ``steps`` more steps, and a note on the current state."""


@contextlib.contextmanager
def progress(title: str, total: int, *, show: bool = True, lines: int = 10) -> Iterator[Advance]:
    """Show the progress of a computation on standard error.

    Args:
        title: name of the computation.
        total: number of steps.
        show: whether to show anything.
        lines: number of notes to print if there is no terminal for a bar.
    """
    console = Console(stderr=True)
    if not show:
        yield lambda steps=1, note=None: None
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(title, total=total, note="")

            def advance(steps: int = 1, note: str | None = None) -> None:
                fields: dict[str, Any] = {} if note is None else {"note": note}
                bar.update(task, advance=steps, **fields)

            yield advance
    else:
        yield _line_printer(console, title, total, lines)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=6),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _line_printer(console: Console, title: str, total: int, lines: int) -> Advance:
    """Print a note each time another 1 / ``lines`` of the steps is done."""
    done, printed = 0, 0

    def advance(steps: int = 1, note: str | None = None) -> None:
        nonlocal done, printed
        done += steps
        if note is not None and done * lines >= (printed + 1) * total:
            printed = done * lines // total
            console.print(f"{title}: {note}", soft_wrap=True, highlight=False, markup=False)

    return advance
