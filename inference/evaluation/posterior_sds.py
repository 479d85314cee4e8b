"""Standard deviations of the posterior of each datum."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.rows import BLOCK_ROWS
from ..pairs.coordinates import is_circular
from ..pairs.kept_rows import rows_kept
from ..pairs.log_terms import repeat_data
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..simulation.predictive import (
    POSTERIOR_MEAN_SAMPLES,
    chains_alone,
    data_dim,
    draws_at_once,
    local_sites,
    local_sites_of,
    moments_of_chain,
    without_draws_before,
)


def posterior_sds(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """Compute the standard deviation of q(z|x) of each latent site in the data plate, on CPU.

    Each is (N, *event_shape). Of an angle, it is √(−2 log R), with R the length of the mean of its
    unit vectors.

    Exact for the site that a guide draws first, and for others that do not depend on a draw, where
    the distribution has a variance in closed form; otherwise that of
    :data:`POSTERIOR_MEAN_SAMPLES` draws.

    Args:
        data: as for :func:`posterior_means`.
    """
    model, guide, rows = open_pair(model, guide, data)
    blocks: list[dict[str, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(0)
        size = rows_kept(guide) or BLOCK_ROWS
        for start in range(0, len(rows[0]), size):
            block = tuple(part[start : start + size] for part in rows)
            blocks.append(_block_sds(guide, place(block, *placement(model, guide))))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _block_sds(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    trace = poutine.trace(guide).get_trace(*args)
    sites, exact = local_sites_of(trace), {}
    alone = without_draws_before(guide, args, trace)
    for name in chains_alone(sites, alone):
        exact[name] = moments_of_chain(sites[name])[1].sqrt()
    for name in alone - exact.keys():
        sd = None if is_circular(sites[name]["fn"]) else _exact_sd(sites[name])
        if sd is not None:
            exact[name] = sd
    found = exact if len(exact) == len(sites) else _sds_of_draws(guide, args, trace) | exact
    # The data dimension first, before plates within a datum.
    return {name: found[name].movedim(data_dim(site), 0).cpu() for name, site in sites.items()}


def _sds_of_draws(guide: Program, args: tuple[Tensor, ...], trace: Trace) -> dict[str, Tensor]:
    """From :data:`POSTERIOR_MEAN_SAMPLES` draws, the first of which is given."""
    sites = local_sites_of(trace)
    sums = {name: _moments(site, site["value"]) for name, site in sites.items()}
    at_once = draws_at_once(guide, args, trace, POSTERIOR_MEAN_SAMPLES)
    for start in range(1, POSTERIOR_MEAN_SAMPLES, at_once):
        times = min(at_once, POSTERIOR_MEAN_SAMPLES - start)
        for name, site in local_sites(guide, repeat_data(args, times, len(args[0]))).items():
            dim = data_dim(site)
            value = site["value"].unflatten(dim, (times, -1))
            first, second = _moments(site, value)
            sums[name] = sums[name][0] + first.sum(dim), sums[name][1] + second.sum(dim)
    return {name: _sd(site, *sums[name]) for name, site in sites.items()}


def _exact_sd(site: Any) -> Tensor | None:
    try:
        variance = site["fn"].variance
    except NotImplementedError:  # a flow, for example
        return None
    return variance.sqrt() if variance.isfinite().all() else None


def _moments(site: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """Value and square in float64; of an angle, its cosine and sine."""
    value = value.double()
    return (value.cos(), value.sin()) if is_circular(site["fn"]) else (value, value.square())


def _sd(site: Any, first: Tensor, second: Tensor) -> Tensor:
    num = POSTERIOR_MEAN_SAMPLES
    if is_circular(site["fn"]):
        length = torch.hypot(first, second) / num
        sd = (-2 * length.log()).clamp(min=0).sqrt()
    else:
        sd = ((second - first.square() / num) / (num - 1)).clamp(min=0).sqrt()
    return sd.to(torch.get_default_dtype())
