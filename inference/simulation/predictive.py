"""What a pair says of data: posterior means, reconstructions, and samples of its prior."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..data.rows import BLOCK, as_rows
from ..pairs.parameters import place, place_all, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import in_data_plate, latent_sites
from .simulate import Unobserved, as_x, main_site

MEAN_DRAWS = 1000
"""Runs whose average stands for a posterior mean that has no closed form: its noise, a
thousandth of the posterior's variance, is well below what makes a unit active."""


def posterior_means(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """E_q[z|x] of each latent site of the data plate, (N, *event_shape), on CPU.

    Exact for a guide of one site that knows its mean; else an average over
    :data:`MEAN_DRAWS` runs of the guide (of a discrete site, of its codes).
    """
    rows = as_rows(data, "data")
    device, dtype = placement(model, guide)
    blocks: list[dict[str, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        for start in range(0, len(rows[0]), BLOCK):
            args = place(tuple(part[start : start + BLOCK] for part in rows), device, dtype)
            blocks.append(_block_means(guide, args))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _block_means(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    sites = _local_sites(guide, args)
    means = {name: _mean(site) for name, site in sites.items()}
    runs = 1 if len(sites) == 1 and all(exact for _, exact in means.values()) else MEAN_DRAWS
    total = {name: value for name, (value, _) in means.items()}
    for _ in range(runs - 1):
        for name, site in _local_sites(guide, args).items():
            total[name] = total[name] + _mean(site)[0]
    # The data first, before plates within them.
    return {
        name: (value / runs).movedim(_data_dim(sites[name]), 0).cpu()
        for name, value in total.items()
    }


def _data_dim(site: Any) -> int:
    """Along which dimension of a site's value the data lie."""
    return site["value"].dim() - site["fn"].event_dim - 1


def _local_sites(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Any]:
    trace = poutine.trace(guide).get_trace(*args)
    return {name: site for name, site in latent_sites(trace).items() if in_data_plate(site)}


def reconstruct(model: Program, guide: Program, data: Any) -> Tensor:
    """E[x|z] at one draw z ~ q(z|x) of each datum, in the shape of the data, on CPU.

    A draw x ~ p(x|z), where the distribution of x knows no mean.
    """
    args = _args(model, guide, data)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        trace = poutine.trace(guide).get_trace(*args)
        return _observed_mean(poutine.replay(model, trace=trace), args)


def decode(model: Program, guide: Program, values: dict[str, Tensor], like: Any) -> Tensor:
    """E[x|z] at given values z of the latent sites, each (N, *event_shape), on CPU.

    A draw x ~ p(x|z), where the distribution of x knows no mean.

    Args:
        like: data whose shape, and context, the result takes; x's values do not matter. Where it
            has fewer rows than there are values, they are taken again in turn.
    """
    num_rows = len(next(iter(values.values())))
    args = _like(model, guide, like, num_rows)
    trace = Trace()
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        sites = _local_sites(guide, args)
    for name, value in values.items():
        if name in sites:
            value = value.movedim(0, _data_dim(sites[name]))
        (value,) = place((value,), *placement(model, guide))
        trace.add_node(name, type="sample", is_observed=False, value=value, infer={})
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        return _observed_mean(poutine.replay(model, trace=trace), args)


def sample_prior(
    model: Program, guide: Program, num: int, like: Any, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw z ~ p(z) and x ~ p(x|z), ``num`` times.

    Args:
        like: data whose shape, and context, the draws take; x's values do not matter.

    Returns:
        The means E[x|z], or the draws again where the distribution of x knows none, and the draws
        x, each (num, *event_shape), on CPU.
    """
    if num < 1:
        raise ValueError(f"the number of samples must be at least 1, got {num}")
    args = _like(model, guide, like, num)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        with plain_errors():
            prior = poutine.trace(Unobserved()(model)).get_trace(*args)
    site = main_site(prior, args)
    mean, value = (as_x(one, site["fn"], args[0]) for one in (_mean(site)[0], site["value"]))
    return mean.cpu(), value.cpu()


def _args(model: Program, guide: Program, data: Any) -> tuple[Tensor, ...]:
    rows = as_rows(data, "data")
    return place_all(model, guide, rows)


def _like(model: Program, guide: Program, like: Any, num: int) -> tuple[Tensor, ...]:
    """Arguments of ``num`` rows, in the shape of some data."""
    rows = as_rows(like, "data")
    index = torch.arange(num) % len(rows[0])
    return place(tuple(part[index] for part in rows), *placement(model, guide))


def _observed_mean(program: Program, args: tuple[Tensor, ...]) -> Tensor:
    with plain_errors():
        site = main_site(poutine.trace(program).get_trace(*args), args)
    mean, known = _mean(site)
    if not known:  # a draw, then: a distribution of classes has no mean, nor one of pixels in turn
        mean = site["fn"].sample()
    return as_x(mean.to(torch.get_default_dtype()), site["fn"], args[0]).cpu()


def _mean(site: Any) -> tuple[Tensor, bool]:
    """A site's mean given its parents, or where its distribution knows none its value; and which it
    is."""
    try:
        mean = site["fn"].mean
        if mean.isfinite().all():
            return mean, True
    except NotImplementedError:  # a flow, say
        pass
    return site["value"].to(torch.get_default_dtype()), False
