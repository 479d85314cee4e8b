"""Guides that keep a posterior for each datum, as Pyro's autoguides of local sites do."""

from typing import Any
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoCallable, AutoGuide, AutoGuideList
from torch import Tensor

from .calling import AdaptedProgram
from .programs import Program, modules
from .sites import DATA_PLATE, in_data_plate, latent_sites

_FITTED_TO: "WeakKeyDictionary[AutoGuide, Tensor]" = WeakKeyDictionary()
"""The x that each such guide was fitted to, which it knows only by the order of the rows."""

ADVICE = "or write a guide that computes its posterior from x"


def autoguides(guide: Program) -> list[AutoGuide]:
    """The autoguides within a guide that make sites themselves."""
    return [
        part
        for root in modules(guide, guide).values()
        for part in root.modules()
        if isinstance(part, AutoGuide) and not isinstance(part, AutoGuideList | AutoCallable)
    ]


def keeps_rows(guide: Program, args: tuple[Any, ...]) -> bool:
    """Whether a guide has parameters of its own for each datum: an autoguide of local sites.

    The models of its autoguides are run, and not the guide, which would then be fixed to ``args``.
    """
    if isinstance(guide, AdaptedProgram) and guide.calling.plate is None:
        return False  # the data set is one datum
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        for part in autoguides(guide):
            own = (
                guide.calling.adapt(part.model) if isinstance(guide, AdaptedProgram) else part.model
            )
            found = latent_sites(poutine.trace(own).get_trace(*args))
            if any(map(in_data_plate, found.values())):
                return True
    return False


def rows_kept(guide: Program) -> int | None:
    """Of how many data a guide keeps a posterior each; ``None`` if of none, or not run so far."""
    plate = guide.calling.plate if isinstance(guide, AdaptedProgram) else DATA_PLATE
    for part in autoguides(guide) if plate is not None else ():
        if plate in part._prototype_frames:
            return part._prototype_frames[plate].size
    return None


def remember_rows(guide: Program, args: tuple[Any, ...]) -> None:
    """Remember the data that a guide that keeps its rows is fitted to."""
    for part in autoguides(guide):
        _FITTED_TO[part] = args[0]


def check_rows(guide: Program, args: tuple[Any, ...]) -> None:
    """Refuse other data than those of which a guide keeps the posteriors.

    Raises:
        ValueError: if their number or, where it is remembered, their x differs.
    """
    kept, num_data = rows_kept(guide), len(args[0])
    if kept is None:
        return
    if kept != num_data:
        raise ValueError(
            f"the autoguide keeps a posterior for each of the {kept} data that it was first run "
            f"on, and got {num_data}: give it all of them, in one batch (batch_size={kept}), "
            f"{ADVICE}"
        )
    for part in autoguides(guide):
        fitted_to = _FITTED_TO.get(part)
        if fitted_to is not None and not _same(fitted_to, args[0]):
            raise ValueError(
                f"the autoguide keeps a posterior for each of the {kept} data that it was fitted "
                f"to, in their order, and these are others: give it those, {ADVICE}"
            )


def check_amortized(guide: Program) -> None:
    """Refuse a guide that keeps a posterior for each datum where data are simulated.

    Raises:
        ValueError: if it does.
    """
    kept = rows_kept(guide)
    if kept is not None:
        raise ValueError(
            f"the autoguide keeps a posterior for each of the {kept} data that it was fitted to, "
            "and has none of data simulated from the model: this needs a guide that computes its "
            "posterior from x"
        )


def _same(first: Tensor, second: Tensor) -> bool:
    second = second.to(first)
    return first.shape == second.shape and bool(torch.isclose(first, second, equal_nan=True).all())
