"""The rows that a command looks at: new data, or the test part of a run's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..training.run import Run


def rows_of(
    run: "Run", folder: Path, new: str | None, moved_to: Path | None
) -> tuple[Any, "np.ndarray"]:
    """Rows (x, *context) as the model of a run sees them, and their numbers where they were read.

    Args:
        run: the run.
        folder: its folder.
        new: new data; ``None``: the test part of the run's data.
        moved_to: where the file of the run's data is now.

    Raises:
        ValueError: if the new data are not like those of the fit; if the run has no test data.
    """
    import numpy as np

    from ..recipes.plan import read_plan
    from ..recipes.plan_data import load_plan_data

    if new is not None and run.transform is not None:
        if moved_to is not None:
            raise ValueError("--moved-to is for the data of the run, and --data are new: leave it")
        rows = run.transform(new)
        return rows, np.arange(len(rows[0]))
    data = load_plan_data(read_plan(folder), folder, moved_to)
    if new is not None:  # the folder is older than transforms, which the data lead to
        rows = data.transform(new)
        return rows, np.arange(len(rows[0]))
    if len(data.test) == 0:
        raise ValueError(f"{data.name} has no test data: give --data FILE")
    return data.rows("test"), data.test_index


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
