"""A pair with global latent variables is opened with its whole data set as one datum."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..pairs.calling import as_one_datum, is_one_datum
from ..pairs.checks import check_support
from ..pairs.inspection import inspect_pair
from ..pairs.parameters import place, place_all, placement
from ..pairs.programs import Program, evaluating, plain_errors, probing
from ..pairs.sites import in_data_plate, latent_sites, nesting_of
from .arguments import open_pair
from .load_data import Data
from .rows import Rows

PROBED_ROWS = 50
"""Rows on which it is found out whether a latent site is global, where so few are enough."""


def open_posterior(
    model: Program, guide: Program, data: Any, *, data_plate: str | None = None, name: str = "data"
) -> tuple[Program, Program, tuple[Rows, ...]]:
    """Bring a pair and its data into the form in which each datum has a posterior of its own.

    That is the form of :func:`open_pair` where all latent sites lie in the data plate. Where some
    are global, the data are not independent, and log p(x) and p(z|x) of one of them are not
    defined. Then the whole data set becomes one datum, with all latent variables its own: log p(x)
    is the evidence of the whole data set, and the posterior that of all latent variables together.
    :func:`rows_of_set` tells which of the two it is.

    Args:
        data: as for :func:`open_pair`. Of a ``Data`` the test part; the training part, where
            latent variables are global, as their posterior is that of the training data.
        data_plate: the name of the plate over the data, where two plates fit.
        name: of the data, in errors.

    Raises:
        ValueError: as :func:`open_pair` does; if data of a pair with global latent variables lie
            outside the support of an observed site.
    """
    given = model, guide
    model, guide, rows = open_pair(*given, data, data_plate=data_plate, name=name)
    if is_one_datum(model):
        return model, guide, rows
    nesting = _nesting_around_global(model, guide, rows)
    if nesting is None:
        return model, guide, rows
    if nesting == 0:  # global, as nothing is in a plate: it is refused with the site's name
        with evaluating(model, guide), torch.random.fork_rng():
            inspect_pair(model, guide, place_all(model, guide, rows))
    if isinstance(data, Data):
        data = data.rows("train")
        model, guide, rows = open_pair(*given, data, data_plate=data_plate, name=name)
    args = place(tuple(part[: len(part)] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        check_support(model, guide, args, name)
    return as_one_datum(model, guide, rows, nesting)


def rows_of_set(model: Program, rows: tuple[Rows, ...]) -> int:
    """How many rows the one datum of a pair has that is a whole data set; 0 if each row is one.

    Args:
        model: as :func:`open_posterior` returns it, with its rows.
    """
    if not is_one_datum(model):
        return 0
    return rows[0].shape[1] if len(rows[0].shape) > 1 else 1


def _nesting_around_global(model: Program, guide: Program, rows: tuple[Rows, ...]) -> int | None:
    """The number of batch dimensions of a pair's plates; ``None`` if no latent site is global."""
    with probing(model, guide):
        few = place(tuple(part[:PROBED_ROWS] for part in rows), *placement(model, guide))
        try:
            return _find_nesting(model, guide, few)
        except Exception:  # perhaps the programs can be run on all data only
            if len(rows[0]) <= PROBED_ROWS:
                return None  # whoever runs the pair reports why it fails
        args = place(tuple(part[: len(part)] for part in rows), *placement(model, guide))
        try:
            return _find_nesting(model, guide, args)
        except Exception:  # as above
            return None


def _find_nesting(model: Program, guide: Program, args: tuple[Tensor, ...]) -> int | None:
    with plain_errors():
        in_guide = poutine.trace(guide).get_trace(*args)
        if all(map(in_data_plate, latent_sites(in_guide).values())):
            return None
        in_model = poutine.trace(poutine.replay(model, trace=in_guide)).get_trace(*args)
    return nesting_of(in_guide, in_model)
