"""The folder of a run: the names of its files, and whether it is free."""

from pathlib import Path

CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.safetensors", "metrics.csv"


EVALUATION, FIGURES = "evaluation.json", "figures"


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds the one to resume.

    Raises:
        FileExistsError: if it already holds a run and ``resume`` is not set.
        FileNotFoundError: if ``resume`` is set and there is none.
    """
    if resume and not (out / CHECKPOINT).is_file():
        raise FileNotFoundError(f"{out} holds no run to resume: leave resume out to start one")
    if not resume and (out / CHECKPOINT).exists():
        raise FileExistsError(
            f"{out} already holds a run: continue it (resume=True, --resume), or choose another "
            "folder for a new one (out=, --out)"
        )
