"""How fast latente is beside PyTorch by hand, Pyro's SVI, NumPyro and Pythae.

    python benchmarks/speed.py [--only step epoch evidence scaling startup] [--device cpu]
                               [--threads 1] [--quick] [--among latente NumPyro] [--out runs/speed]

step      one step of a VAE on MNIST: three sizes, two posteriors, three objectives, all contestants
epoch     one epoch, shuffling, dynamic binarization and validation included
evidence  ``log_evidence``, and its rate of products against that of bare ones
scaling   cost against batch, width, rows and samples
startup   imports and ``latente --help``, each in a process of its own

Contestants (``peers.py`` says what each is) run in one process, in turns, from the same weights on
the same data: medians over the rounds, and the median over rounds of the ratios within a round.
Peers that are not installed are left out. PyTorch and JAX both get ``--threads`` threads, on as
many cores, by default all; JAX computes only while NumPyro's turn lasts. PyTorch's threads go on
waiting for a moment after their work, which the untimed block that begins each turn sits out. What
other processes took of the machine meanwhile is said of each section: with two threads and more, a
little of that takes a lot of time from PyTorch, whose threads wait for each other.

Tables are appended to speed.md in the folder, figures kept in speed.json, the plot is speed.png.
All of it takes some 40 minutes on one core, the steps 17 of them.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some of the GPU
import numpy as np
import psutil
import torch
from peers import BUILDERS, missing
from rich.console import Console
from rich.table import Table
from speed_fits import epoch, evidence, scaling
from speed_steps import ratio, step

STARTS = {
    "python alone": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import pyro": ["-c", "import pyro"],
    "import latente.inference": ["-c", "import latente.inference"],
    "… and models and guides": ["-c", "import latente.inference, latente.models, latente.guides"],
    "… and fit": [
        "-c",
        "import latente.models, latente.guides; from latente.inference import fit",
    ],
    "latente --help": ["-c", "", "--help"],
}


class Report:
    """Tables and lines, on the screen and in speed.md."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.console, self.path = Console(width=160), folder / "speed.md"

    def write(self, text: str) -> None:
        """Append to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line, highlight=False, markup=False)
        self.write(f"{line}  ")

    def progress(self, line: str) -> None:
        """What is not kept."""
        self.console.print(line, style="dim", highlight=False, markup=False)

    def table(self, title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """A table, figures to the right."""
        shown = Table(title=title, title_justify="left")
        for i, head in enumerate(heads):
            shown.add_column(head, justify="right" if i else "left")
        for row in rows:
            shown.add_row(*row)
        self.console.print(shown)
        lines = [heads, ("---", *["---:"] * (len(heads) - 1)), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self.write(f"\n{title}:\n\n{text}\n")


def startup(options: Any, report: Report) -> dict[str, Any]:
    """Seconds until a process is done, the median of 5."""
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    for turn in range(2 if options.quick else 6):
        for name, arguments in STARTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first turn brings the files into memory
                times[name].append(time.perf_counter() - began)
    rows = [
        (name, f"{statistics.median(taken):.2f}", f"{ratio(times, name, 'import pyro'):.2f}")
        for name, taken in times.items()
    ]
    report.table("Start: seconds", ("", "seconds", "÷ import pyro"), rows)
    return times


SECTIONS = {
    "step": step, "epoch": epoch, "evidence": evidence, "scaling": scaling, "startup": startup
}  # fmt: skip


def circumstances(device: str) -> str:
    """Versions, machine and threads."""
    names = ("torch", "pyro-ppl", "numpyro", "jax", "pythae")
    found = [name for name in names if importlib.util.find_spec(name.split("-")[0])]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in found)
    where = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"threads of PyTorch {torch.get_num_threads()}, cores {cores}"
    return f"{versions}; Python {platform.python_version()}; {where}, {threads}"


def limit(threads: int | None) -> None:
    """Give PyTorch so many threads, and all else so many cores: JAX takes a thread for each."""
    if threads is None:
        return
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def seconds_worked() -> tuple[float, float]:
    """Seconds that the machine's cores have worked, for anyone, and for this process."""
    machine, own = psutil.cpu_times(), os.times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # What a guest system does is counted as its user's already.
    guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
    return sum(machine) - idle - guests, sum(own[:4])


def draw(scaling: dict[str, Any], path: Path) -> None:
    """Cost against each of the sizes, and the line that was fitted."""
    import matplotlib.pyplot as plt

    labels = {
        "batch": ("data in a batch", "one step, ms"),
        "hidden width": ("hidden width H (batch 128)", "one step, ms"),
        "N, one epoch": ("rows N", "a fit of one epoch, ms"),
        "S, 200 data": ("samples S (200 data)", "log_evidence, ms"),
    }
    colours = {"latente": "#0072B2", "by hand": "#D55E00"}
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 2, figsize=(7.5, 5.6), layout="constrained")
        for ax, (what, result) in zip(axes.flat, scaling.items(), strict=False):
            sizes = np.asarray(result["sizes"], float)
            fine = np.geomspace(sizes[0], sizes[-1], 100)
            for name, seconds in result["seconds"].items():
                line, colour = result["line"][name], colours[name]
                text = f"{name}: slope {line['slope']:.2f} beyond {1000 * line['fixed']:.2g} ms"
                ax.plot(sizes, 1000 * np.asarray(seconds), "o", color=colour, ms=4, label=text)
                ax.plot(fine, 1000 * (line["fixed"] + line["rate"] * fine), color=colour, lw=1)
            across, up = labels[what]
            ax.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
            ax.minorticks_off()
            ax.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
            low, high = ax.get_ylim()
            ticks = [n * 10.0**d for d in range(-3, 8) for n in (1, 2, 5)]
            ticks = [tick for tick in ticks if low <= tick <= high]
            ax.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
            ax.legend(frameon=False, fontsize=8)
        for ax in axes.flat[len(scaling) :]:
            ax.set_axis_off()
        figure.savefig(path, dpi=150)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch and of JAX; all cores if not given")
    parser.add_argument("--quick", action="store_true", help="few sizes, few rounds: does it run?")
    parser.add_argument("--among", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    options = parser.parse_args()
    limit(options.threads)
    report = Report(options.out)
    lacking = missing(options.device)
    report.write(f"\n# {time.strftime('%Y-%m-%d %H:%M')}\n")
    report.say(circumstances(options.device))
    for name in options.among:
        if name in lacking:
            report.say(lacking[name])
    options.among = [name for name in options.among if name not in lacking]
    kept = options.out / "speed.json"
    figures = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.only:
        report.write(f"\n## {name}\n")
        began, (all_before, own_before) = time.perf_counter(), seconds_worked()
        figures[name] = SECTIONS[name](options, report)
        passed, (all_after, own_after) = time.perf_counter() - began, seconds_worked()
        others = (all_after - all_before - own_after + own_before) / passed
        report.say(f"{name}: {passed:.0f} seconds, in which others kept {others:.2f} cores busy")
        kept.write_text(json.dumps(figures, indent=1))
    if "scaling" in figures:
        draw(figures["scaling"], options.out / "speed.png")


if __name__ == "__main__":
    main()
