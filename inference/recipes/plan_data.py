"""The data of a plan."""

from pathlib import Path

from ..common.files import read_json
from ..data.load_data import Data, load_data
from ..training.run_folder import CONFIG
from .plan import Plan, compose


def load_plan_data(plan: Plan, out: Path | None = None) -> Data:
    """The data that a plan names, binarized and given as it says.

    Args:
        plan: the plan.
        out: folder of the plan's run; the data must be those that it was fitted to.

    Raises:
        ValueError: if they are others: their split, and so what is test data, would be too.
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
        keep_degenerate=plan.keep_degenerate,
    )
    digest = None if out is None else read_json(out / CONFIG).get("data_digest")
    if digest is not None and digest != data.digest():
        raise ValueError(
            f"{plan.data} holds other data now than when {out} was fitted to it: put the former "
            "data back, or fit a new run"
        )
    return data
