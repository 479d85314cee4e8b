"""Progress of long work: a bar in a terminal, a line now and then elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""``advance(steps=1, note=None)``: so many steps more are done; the note says how it stands."""


@contextlib.contextmanager
def progress(title: str, total: int, *, show: bool = True, lines: int = 10) -> Iterator[Advance]:
    """Show how far a piece of work has come, on standard error.

    Args:
        title: what is being done.
        total: how many steps it has.
        show: whether to show anything.
        lines: how many notes to print where there is no terminal to draw a bar in.
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
    """Print a note each time another tenth (say) of the work is done."""
    done, printed = 0, 0

    def advance(steps: int = 1, note: str | None = None) -> None:
        nonlocal done, printed
        done += steps
        if note is not None and done * lines >= (printed + 1) * total:
            printed = done * lines // total
            console.print(f"{title}: {note}", soft_wrap=True, highlight=False, markup=False)

    return advance
