"""The rows that a command looks at: new data, or the test part of a run's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..data.load_data import Data
    from ..data.transform import Transform
    from ..recipes.plan import Plan
    from ..training.run import Run


def rows_of(
    run: "Run", folder: Path, new: str | None, labels: Path | None, moved_to: Path | None
) -> tuple[Any, "np.ndarray", dict[str, "np.ndarray"]]:
    """Rows (x, *context) as the model of a run sees them; their numbers; and what stands beside.

    Args:
        run: the run.
        folder: its folder.
        new: new data; ``None``: the test part of the run's data.
        labels: a file of labels beside new data.
        moved_to: where the file of the run's data is now.

    Raises:
        ValueError: if the new data are not like those of the fit; if the run has no test data.
    """
    import numpy as np

    from ..recipes.plan import read_plan
    from ..recipes.plan_data import find_plan_data

    if labels is not None and new is None:
        raise ValueError("--labels are beside new data: give --data too, or leave it out")
    if new is not None and moved_to is not None and run.transform is not None:
        raise ValueError("--moved-to is for the data of the run, and --data are new: leave it")
    plan, data, transform = None, None, run.transform
    if new is None or transform is None:  # a folder older than transforms: the data lead to it
        plan, data = find_plan_data(read_plan(folder), folder, moved_to)
        transform = data.transform
    if new is not None:
        given = _read_labels(labels)
        beside = _beside_new(transform, new, given)
        rows = transform(new, given)
        return rows, np.arange(len(rows[0])), beside
    assert plan is not None
    assert data is not None
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data: give --data FILE")
    return data.rows("test"), data.test_index, _beside_test(plan, data)


def _read_labels(path: Path | None) -> "np.ndarray | None":
    import numpy as np

    if path is None:
        return None
    if path.suffix.lower() != ".npy":
        raise ValueError(f"--labels is a .npy file, one label for each row of --data, not {path}")
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as .npy: {error}") from error


def _beside_new(
    transform: "Transform", new: str, labels: "np.ndarray | None"
) -> dict[str, "np.ndarray"]:
    """What stands beside new data, which must have labels if the model is given them."""
    from ..evaluation.rows_beside import beside_source

    source = transform.read(new, labels)
    if transform.given == "labels" and source.labels is None:
        column = transform.options.label_column
        how = "--labels FILE.npy, or x and y in an .npz"
        if source.columns and column:
            how = f"a column {column!r}, as the data of the fit had"
        raise ValueError(f"the model is given labels, and {new} has none: give them as {how}")
    return beside_source(transform, source)


def _beside_test(plan: "Plan", data: "Data") -> dict[str, "np.ndarray"]:
    """What stands beside the test data of a run: columns of its files, and labels."""
    import numpy as np

    from ..evaluation.rows_beside import beside_test_rows
    from ..recipes.plan import files_of

    names, columns = data.transform.options.aside, {}
    if names:  # they are not kept with the data
        sources = [data.transform.read(path) for path in files_of(plan).values()]
        for name in names:
            values = np.concatenate([source.aside[name] for source in sources])
            columns[name] = values[data.test_index]
    return {**columns, **beside_test_rows(data)}


def label_codes(run: "Run", beside: dict[str, "np.ndarray"]) -> "np.ndarray | None":
    """The true labels of rows as numbers, where the model is given a few labels; else ``None``."""
    import numpy as np

    from ..data.some_labels import SOME_LABELS, UNKNOWN
    from ..evaluation.rows_beside import label_name

    transform = run.transform
    if transform is None or transform.given != SOME_LABELS:
        return None
    values = beside.get(label_name(transform))
    if values is None or not transform.label_names:
        return values
    codes = {name: number for number, name in enumerate(transform.label_names)}
    return np.array([codes.get(value, UNKNOWN) for value in values.tolist()])


def units_of(folder: Path) -> str:
    """A remark on the units of densities; empty if they are the data's own."""
    from ..recipes.plan import read_plan

    return ", in standardized units" if read_plan(folder).standardize else ""


def stem_of(source: str) -> str:
    """The name of a file without its folder and its ending.

    >>> stem_of("new/blood.csv.gz"), stem_of("digits")
    ('blood', 'digits')
    """
    from ..data.files import SUFFIXES

    name = Path(source).name
    endings = [end for end in SUFFIXES if name.lower().endswith(end)]
    return name[: -max(map(len, endings))] if endings else name
