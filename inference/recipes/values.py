"""Whether the values of data suit a likelihood: seen before a fit, in all parts of the data."""

import warnings
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..common.arguments import name_rows
from ..data.binarization import advise_scale
from ..data.load_data import Data
from ..data.source import BLOCK_ROWS
from ..data.splits import PARTS
from .composition import Composition

LARGE_VALUE = 100
"""Real numbers with larger absolute values are hard to fit if they are not standardized."""


def check_values(composition: Composition, data: Data) -> None:
    """Refuse values that the likelihood cannot have, in the training, validation and test part.

    Also sequences, for a model of data of one shape. Bits that are drawn of values suit any of
    them. It warns of real numbers that are large and not standardized.

    Raises:
        ValueError: naming the rows of what was read, a value, and what to do.
    """
    _check_steps(composition, data)
    if data.binarize != "none":
        return
    name, kind = composition.likelihood.name, composition.likelihood.part.data
    if kind in ("bits", "unit interval", "levels"):
        head = data.train[:BLOCK_ROWS].numpy()
        advice = advise_scale(head) or "take --likelihood normal with --standardize"
        what = f"outside [0, 1], where those of the likelihood {name} are"
        _refuse(data, lambda x: (x < 0) | (x > 1), what, advice)
    elif kind == "counts":
        advice = "take --likelihood normal, or mend them"
        _refuse(
            data, lambda x: x < 0, f"below zero, and the likelihood {name} is for counts", advice
        )
        what = f"with fractions, and the likelihood {name} is for counts"
        _refuse(data, lambda x: x != x.floor(), what, advice)
    elif kind == "reals" and data.location is None:
        largest = data.train[:BLOCK_ROWS].abs().max().item()
        if largest > LARGE_VALUE:
            warnings.warn(
                f"the data reach {largest:g}: standardize them, by --standardize, to fit well",
                stacklevel=3,
            )


def _check_steps(composition: Composition, data: Data) -> None:
    """Refuse sequences where the model takes none, and what is none where it does."""
    if data.transform.has_lengths and not composition.takes_sequences:
        raise ValueError(
            f"{data.name} holds sequences of different lengths, and --levels {composition.levels} "
            "is for data of one shape: take --levels chain, or the recipe dmm; or text-vae"
        )
    if not composition.takes_sequences:
        return
    if not data.event_shape:
        raise ValueError(
            f"{data.name} holds one number a row, and --levels chain is for sequences (N, T, …)"
        )
    is_whole = not getattr(data.train, "is_floating_point", lambda: True)()
    if composition.likelihood.part.data == "codes" and not is_whole:
        raise ValueError(
            f"{data.name} holds numbers of a type with fractions, and the steps of --likelihood "
            "categorical are whole numbers: save them as integers"
        )


def _refuse(data: Data, is_bad: Callable[[Tensor], Tensor], what: str, advice: str) -> None:
    """Refuse data of which a value is bad."""
    found: list[np.ndarray] = []
    example = 0.0
    for part in PARTS:
        rows, index = getattr(data, part), getattr(data, f"{part}_index")
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            flags = is_bad(block)
            if flags.any():
                example = example if found else block[flags][0].item()
                of_rows = flags.flatten(1).any(1).numpy()
                found.append(index[start : start + BLOCK_ROWS][of_rows])
    if found:
        rows = name_rows(np.sort(np.concatenate(found)))
        raise ValueError(f"{data.name} has values {what}, such as {example:g}, in {rows}: {advice}")
