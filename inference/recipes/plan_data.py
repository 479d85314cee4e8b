"""Load the data of a plan, also where its files have moved."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.files import read_json
from ..data.files import check_path
from ..data.load_data import Data, load_data
from ..training.run_folder import CONFIG
from .columns import column_kinds
from .plan import Plan, compose, files_of


def load_plan_data(plan: Plan, out: Path | None = None, moved_to: Path | None = None) -> Data:
    """Load the data of a plan, with its binarization and context.

    Args:
        plan: the plan.
        out: folder of the plan's run, which must have been fitted to the same data.
        moved_to: where the file of the run's data is now.

    Raises:
        FileNotFoundError: if the files of the data are not there.
        ValueError: if the data have changed, and so their split into training and test data.
    """
    return find_plan_data(plan, out, moved_to)[1]


def find_plan_data(
    plan: Plan, out: Path | None = None, moved_to: Path | None = None
) -> tuple[Plan, Data]:
    """Load the data of a plan as :func:`load_plan_data` does; also the plan with their paths now.

    A run may have moved together with its data: their paths relative to its folder are tried first,
    then their absolute paths. Data at any of them are known by their digest.
    """
    if out is None:
        return plan, _load(plan)
    config = read_json(out / CONFIG)
    digest = config.get("data_digest")
    plans = list(_plans_now(plan, out, config, moved_to))
    for number, found in enumerate(plans, 1):
        try:
            data = _load(found)
        except ValueError:  # another file of that name
            if number < len(plans):
                continue
            raise
        if digest in (None, data.digest()):
            return found, data
    if moved_to is not None:
        raise ValueError(
            f"{moved_to} holds other data than {plan.data} did when {out} was fitted to it: give "
            "--moved-to the file of the former data"
        )
    paths = list(dict.fromkeys(found.data for found in plans))
    raise ValueError(
        f"{' and '.join(paths)} {'holds' if len(paths) == 1 else 'hold'} other data now than when "
        f"{out} was fitted to it: restore the former data, point to them by --moved-to PATH, or "
        "fit a new run"
    )


def relative_paths(plan: Plan, out: Path) -> dict[str, str]:
    """The paths of a plan's files of data, relative to the folder of its run, by field."""
    folder = out.resolve()
    return {
        name: Path(os.path.relpath(path, folder)).as_posix()
        for name, path in files_of(plan).items()
    }


def _plans_now(
    plan: Plan, out: Path, config: Mapping[str, Any], moved_to: Path | None
) -> Iterator[Plan]:
    """The plan with the paths at which its files of data are there; the likeliest first."""
    files = files_of(plan)
    if moved_to is not None:
        yield replace(plan, **_moved_files(plan, files, out, moved_to))
        return
    relative = config.get("relative_paths", {})
    places = [{name: str((out / path).resolve()) for name, path in relative.items()}, files]
    there = [place for place in places if files.keys() == place.keys() and _are_there(place)]
    if not there:
        missing = [path for place in places for path in place.values() if not Path(path).exists()]
        listed = ", ".join(dict.fromkeys(missing))
        raise FileNotFoundError(
            f"no such file: {listed}; if the data of {out} have moved, point to them by "
            "--moved-to PATH"
        )
    for number, place in enumerate(there):
        if place not in there[:number]:
            yield replace(plan, **place)


def _are_there(place: Mapping[str, str]) -> bool:
    return all(Path(path).exists() for path in place.values())


def _moved_files(plan: Plan, files: Mapping[str, str], out: Path, moved_to: Path) -> dict[str, str]:
    """The paths of the files of data, of which one has moved; a test set of its own likewise."""
    if "data" not in files:
        raise ValueError(f"the data of {out} are {plan.data}, no file: leave --moved-to out")
    check_path(moved_to)
    moved = {"data": str(moved_to.resolve())}
    if "test" in files:
        beside = moved_to.parent / os.path.relpath(files["test"], Path(files["data"]).parent)
        moved["test"] = str(beside.resolve() if beside.exists() else files["test"])
    return moved


def _load(plan: Plan) -> Data:
    composition = compose(plan)
    return load_data(
        plan.data,
        labels=plan.labels,
        binarize=composition.binarize,
        standardize=plan.standardize,
        given=composition.given.build(),
        validation=plan.validation,
        test=plan.test,
        split=plan.split,
        groups=plan.groups,
        order=plan.order,
        drop=() if plan.drop is None else tuple(name.strip() for name in plan.drop.split(",")),
        seed=plan.seed,
        delimiter=plan.delimiter,
        decimal=plan.decimal,
        header=plan.header,
        scale=plan.scale,
        shape=plan.shape,
        layout=plan.layout,
        kinds=column_kinds(plan.kinds, composition.likelihood.part.data),
        key=plan.key,
        tokens=plan.tokens,  # pyright: ignore[reportArgumentType] # checked when read
        lengths=plan.lengths,
        keep_degenerate=plan.keep_degenerate,
    )
