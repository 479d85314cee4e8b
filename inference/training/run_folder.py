"""The folder of a run: the names of its files, and whether it is free."""

from pathlib import Path

from ..common.files import read_json

CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.safetensors", "metrics.csv"


EVALUATION, FIGURES = "evaluation.json", "figures"


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds the one to resume.

    Raises:
        FileExistsError: if it already holds a run and ``resume`` is not set, or files that are no
            run's under the names of a run's.
        FileNotFoundError: if ``resume`` is set and there is none.
    """
    if resume and not (out / CHECKPOINT).is_file():
        raise FileNotFoundError(f"{out} holds no run to resume: leave resume out to start one")
    if not resume and (out / CHECKPOINT).exists():
        raise FileExistsError(
            f"{out} already holds a run: continue it (resume=True, --resume), or choose another "
            "folder for a new one (out=, --out)"
        )
    if not resume:
        for name in (CONFIG, METRICS):
            # A run that was stopped before its first checkpoint leaves a configuration of ours.
            if (out / name).exists() and not _is_config(out / CONFIG):
                raise FileExistsError(
                    f"{out} has a {name} that is not of a run: choose another folder (out=, --out)"
                )


def _is_config(path: Path) -> bool:
    try:
        return "versions" in read_json(path)
    except (OSError, ValueError):
        return False
