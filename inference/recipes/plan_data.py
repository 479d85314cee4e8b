"""Load the data of a plan."""

from pathlib import Path

from ..common.files import read_json
from ..data.load_data import Data, load_data
from ..training.run_folder import CONFIG
from .plan import Plan, compose


def load_plan_data(plan: Plan, out: Path | None = None) -> Data:
    """Load the data of a plan, with its binarization and context.

    Args:
        plan: the plan.
        out: folder of the plan's run, which must have been fitted to the same data.

    Raises:
        ValueError: if the data have changed, and so their split into training and test data.
    """
    composition = compose(plan)
    data = load_data(
        plan.data,
        labels=plan.labels,
        binarize=composition.binarize,
        standardize=plan.standardize,
        given=composition.given.build(),
        seed=plan.seed,
        delimiter=plan.delimiter,
        decimal=plan.decimal,
        header=plan.header,
        kinds={} if composition.likelihood.part.data == "columns" else None,
        key=plan.key,
        keep_degenerate=plan.keep_degenerate,
    )
    digest = None if out is None else read_json(out / CONFIG).get("data_digest")
    if digest is not None and digest != data.digest():
        raise ValueError(
            f"{plan.data} holds other data now than when {out} was fitted to it: restore the "
            "former data, or fit a new run"
        )
    return data
