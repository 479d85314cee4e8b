"""Predictions of a pair: posterior means, reconstructions, and samples from its prior."""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.row_lengths import rows_of_lengths
from ..data.rows import BLOCK_ROWS, Rows
from ..pairs.calling import is_one_datum
from ..pairs.chains import flags_of_chains, steps_of_chain
from ..pairs.coordinates import is_circular
from ..pairs.enumeration import draw_summed_out, summed_out
from ..pairs.kept_rows import rows_kept
from ..pairs.log_terms import repeat_data
from ..pairs.observed_values import ObservedValues, find_observed_values
from ..pairs.parameters import place, place_all, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.scoring import DRAWS_AT_ONCE, VALUES_AT_ONCE
from ..pairs.sites import (
    check_prior_has_draws,
    global_latent_sites,
    in_data_plate,
    latent_sites,
    nesting_of,
    sample_sites,
    value_rows_dim,
)
from .ancestral import SampleObserved, draw_data
from .simulate import reshape_like_x, site_of_x
from .temperature import Tempered

POSTERIOR_MEAN_SAMPLES = 1000
"""Draws averaged for a posterior mean without a closed form. The variance of the average, a
thousandth of the posterior's, is well below what makes a latent unit active."""


def posterior_means(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """Compute E_q[z|x] of each latent site that the guide draws in the data plate, on CPU.

    Each is (N, *event_shape).

    Of an angle, it is the mean direction.

    Exact for the site that a guide draws first, and for others that do not depend on a draw, where
    the distribution has a mean in closed form; otherwise the average of
    :data:`POSTERIOR_MEAN_SAMPLES` draws (for a discrete site, of its codes), or of the means given
    the sites drawn before.
    """
    model, guide, rows = open_pair(model, guide, data)
    device, dtype = placement(model, guide)
    blocks: list[dict[str, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(0)
        size = rows_kept(guide) or BLOCK_ROWS
        for start in range(0, len(rows[0]), size):
            args = place(tuple(part[start : start + size] for part in rows), device, dtype)
            blocks.append(_block_means(guide, args))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def steps_of_latents(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """Which steps of each latent site are there, (N, T) of bool, on CPU.

    Only of sites that are Markov chains of padded sequences: what stands beyond the flags in
    :func:`posterior_means` is no latent variable.
    """
    model, guide, rows = open_pair(model, guide, data)
    blocks: list[dict[str, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(0)
        size = rows_kept(guide) or BLOCK_ROWS
        for start in range(0, len(rows[0]), size):
            block = tuple(part[start : start + size] for part in rows)
            args = place(block, *placement(model, guide))
            blocks.append(flags_of_chains(local_sites(guide, args)))
    return {
        name: torch.cat([block[name] for block in blocks]).cpu()
        for name in blocks[0]
        if not all(block[name].all() for block in blocks)
    }


def _block_means(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    trace = poutine.trace(guide).get_trace(*args)
    sites = local_sites_of(trace)
    if not sites:
        return {}
    alone = without_draws_before(guide, args, trace)
    exact = {name for name in alone if _mean_or_value(sites[name])[1]}
    chains = {name: moments_of_chain(sites[name])[0] for name in chains_alone(sites, alone - exact)}
    known = len(exact) + len(chains) == len(sites)
    num_samples = 1 if known else POSTERIOR_MEAN_SAMPLES
    turned = {name for name, site in sites.items() if is_circular(site["fn"])}

    def added(name: str, value: Tensor) -> Tensor:
        """What is summed: of an angle its unit vector, as a complex number."""
        return torch.polar(torch.ones_like(value), value) if name in turned else value

    def part(name: str, site: Any) -> Tensor:
        """Its mean given the draws before it; of an angle that depends on them, a draw."""
        drawn = name in turned - exact
        return added(name, site["value"] if drawn else _mean_or_value(site)[0])

    total = {name: part(name, site) for name, site in sites.items()}
    at_once = draws_at_once(guide, args, trace, num_samples)
    for start in range(1, num_samples, at_once):
        times = min(at_once, num_samples - start)
        for name, site in local_sites(guide, repeat_data(args, times, len(args[0]))).items():
            value, dim = part(name, site), data_dim(site)
            total[name] = total[name] + value.unflatten(dim, (times, -1)).sum(dim)
    total = {name: value.angle() * num_samples if name in turned else value
             for name, value in total.items()}  # fmt: skip
    average = {name: value / num_samples for name, value in total.items()}
    average |= {name: _mean_or_value(sites[name])[0] for name in exact - turned}
    average |= chains
    # The data dimension first, before plates within a datum.
    return {name: value.movedim(data_dim(sites[name]), 0).cpu() for name, value in average.items()}


def chains_alone(sites: Mapping[str, Any], alone: set[str]) -> list[str]:
    """Of the sites whose distribution is that given x alone, chains whose steps need one another.

    Moments of others have a closed form, as those of any site may have.
    """
    chains = {name for name in alone if steps_of_chain(sites[name]["fn"]) > 1}
    return [name for name in chains if not getattr(sites[name]["fn"], "memoryless", False)]


def moments_of_chain(site: Any) -> tuple[Tensor, Tensor]:
    """Mean and variance of a Markov chain, of :data:`POSTERIOR_MEAN_SAMPLES` draws.

    They are drawn from the distribution itself, so that the guide does not read x again.
    """
    distribution, total = site["fn"], site["value"].new_zeros(2, *site["value"].shape).double()
    size = max(1, VALUES_AT_ONCE // max(1, site["value"].numel()))
    for start in range(0, POSTERIOR_MEAN_SAMPLES, size):
        count = min(size, POSTERIOR_MEAN_SAMPLES - start)
        draws = distribution.sample((count,)).double()
        total += torch.stack([draws.sum(0), draws.square().sum(0)])
    first, second = total / POSTERIOR_MEAN_SAMPLES
    variance = (second - first.square()).clamp(min=0)
    variance *= POSTERIOR_MEAN_SAMPLES / (POSTERIOR_MEAN_SAMPLES - 1)
    return first.to(site["value"].dtype), variance.to(site["value"].dtype)


def draws_at_once(guide: Program, args: tuple[Tensor, ...], trace: Trace, num_samples: int) -> int:
    """How often data may be repeated for a guide: once if it does not take them so."""
    times = min(num_samples, max(1, DRAWS_AT_ONCE // len(args[0])))
    if times == 1 or is_one_datum(guide) or rows_kept(guide) is not None:
        return 1
    if global_latent_sites(trace):
        return 1  # all repetitions would share their one draw
    repeated = repeat_data(args, times, len(args[0]))
    try:
        sites = local_sites(guide, repeated).values()
    except (ValueError, RuntimeError):  # a plate whose size is fixed
        return 1
    whole = all(site["value"].shape[data_dim(site)] == len(repeated[0]) for site in sites)
    return times if whole else 1


def data_dim(site: Any) -> int:
    """The data dimension of a site's value."""
    return site["value"].dim() + value_rows_dim(site)


def local_sites(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Any]:
    """The guide's latent sites in the data plate, drawn once."""
    return local_sites_of(poutine.trace(guide).get_trace(*args))


def local_sites_of(trace: Trace) -> dict[str, Any]:
    """The latent sites of a guide's trace in the data plate."""
    return {name: site for name, site in latent_sites(trace).items() if in_data_plate(site)}


def without_draws_before(guide: Program, args: tuple[Tensor, ...], trace: Trace) -> set[str]:
    """The sites in the data plate whose distribution is that given x alone, in a guide's trace.

    It is for the site drawn first: of a hierarchy, the top level of a guide from the top down, and
    the lowest level of one from the bottom up. It is for any other to which no draw leads through
    the operations of PyTorch, and whose distribution comes out the same with other draws before it.
    """
    sites, drawn = local_sites_of(trace), [*sample_sites(trace)]
    if len(drawn) == 1:
        return {*sites}
    first, again = {*sites} & {drawn[0]}, local_sites(guide, args)
    try:
        leading: Any = get_dependencies(guide, args)["prior_dependencies"]
    except Exception:  # a program may fail in any way on tensors that carry where they come from
        return first
    # Of numbers taken out of a draw, as by item(), only other draws tell. Dependencies leave out
    # the sites of autoguides, which are values of draws.
    return first | {
        name for name in sites
        if name in leading and not {*leading[name]} - {name}
        and _is_same(sites[name]["fn"], again[name]["fn"])
    }  # fmt: skip


def _is_same(first: dist.TorchDistribution, second: dist.TorchDistribution) -> bool:
    """Whether two distributions have the same moments, if they have any."""
    try:
        return torch.equal(first.mean, second.mean) and torch.equal(first.variance, second.variance)
    except NotImplementedError:  # a flow, for example
        return False


def reconstruct(model: Program, guide: Program, data: Any) -> Tensor | dict[str, Tensor]:
    """Compute E[x|z] at one draw z ~ q(z|x) for each datum, in the shape of the data, on CPU.

    A site that is summed out is drawn from its exact posterior given x and the other sites. If the
    distribution of x has no mean in closed form, the result is a draw x ~ p(x|z). The mean of a
    site that depends on earlier data (x_t given x_{t−1}) is the one given the data as they are.

    Returns:
        A tensor of the shape of x; if the model observes several arguments, ``model(x, y)`` say,
        one for each, by the name of the site that observes it. Sites that observe parts of one
        argument (``x[:, t]``) fill one tensor, and elements that no site observes stay.
    """
    model, guide, rows = open_pair(model, guide, data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(0)
        given = poutine.trace(guide).get_trace(*args)
        with plain_errors():
            trace = poutine.trace(poutine.replay(model, trace=given)).get_trace(*args)
            if summed_out(latent_sites(given), latent_sites(trace)):
                given = draw_summed_out(model, args, given, -1 - nesting_of(trace))
            program = poutine.replay(model, trace=given)
            observed = find_observed_values(program, args)
            return _means(poutine.trace(program).get_trace(*args), args, observed)


def decode(
    model: Program, guide: Program, values: dict[str, Tensor], like: Any
) -> Tensor | dict[str, Tensor]:
    """Compute E[x|z] at given values z of the latent sites, in the shape of the data, on CPU.

    If the distribution of x has no mean in closed form, the result is a draw x ~ p(x|z). With
    several observed sites, the mean of each is the one given draws of those before it.

    Args:
        values: z by site name, each (N, *event_shape). A site that is not among them is drawn from
            its prior given the others.
        like: data whose shape and contexts the result takes; the values of x do not matter. If it
            has fewer than N rows, they are repeated in turn.

    Returns:
        A tensor, or tensors by name, as :func:`reconstruct` does.
    """
    num_rows = len(next(iter(values.values())))
    model, guide, rows = open_pair(model, guide, like)
    args = _repeat_rows(model, guide, rows, num_rows)
    trace = Trace()
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        sites = local_sites(guide, args)
    for name, value in values.items():
        if name in sites:
            value = value.movedim(0, data_dim(sites[name]))
        (value,) = place((value,), *placement(model, guide))
        trace.add_node(name, type="sample", is_observed=False, value=value, infer={})
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(0)
        program = poutine.replay(model, trace=trace)
        with plain_errors():
            observed = find_observed_values(program, args)
            if len(observed.places) > 1:
                drawn = draw_data(model, args, observed, trace)
                return _means(drawn[1], args, observed)
            return _means(poutine.trace(program).get_trace(*args), args, observed)


def sample_prior(
    model: Program,
    guide: Program,
    num: int,
    like: Any,
    *,
    temperature: float = 1.0,
    lengths: Any = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor] | tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw z ~ p(z) and x ~ p(x|z), ``num`` times.

    Args:
        like: data whose shape and contexts the draws take, lengths of sequences included, in turn;
            the values of x do not matter.
        lengths: the lengths of drawn sequences in place of those, one for all or (num,); draws are
            padded with zeros to the longest.
        temperature: T scales draws of z around the centres of normal priors, z = μ + T(z′ − μ), and
            those of the normal bases of flows; at 1 they are draws of the prior (Kingma and
            Dhariwal 2018, arXiv 1807.03039).
        seed: seed of the draws.

    Returns:
        The means E[x|z], or the draws again if the distribution of x has no mean in closed form;
        and the draws x. Each is (num, *event_shape), on CPU. If the model observes several
        arguments, each of the two is a dictionary of tensors, as in :func:`reconstruct`; of several
        observed sites, each is drawn, and its mean taken, given draws of those before it.

    Raises:
        ValueError: if ``num`` < 1, the data cannot be used, a prior is masked and has no draws, or
            the model has several observed sites and does not define how they are drawn: see
            :func:`simulate`; if the temperature is negative, or is not 1 and a prior is neither
            normal nor a flow; if lengths are given and the data are no sequences with lengths.
    """
    if num < 1:
        raise ValueError(f"the number of samples must be at least 1, got {num}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number of at least 0, got {temperature}")
    model, guide, rows = open_pair(model, guide, like)
    if lengths is not None:
        rows = rows_of_lengths(model, guide, rows, like, lengths, num)
    args = _repeat_rows(model, guide, rows, num)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(seed)
        with plain_errors():
            observed = find_observed_values(model, args)
            program = model if temperature == 1 else Tempered(temperature)(model)
            if len(observed.places) > 1:
                prior = draw_data(program, args, observed)[1]
            else:
                prior = poutine.trace(SampleObserved(observed.held)(program)).get_trace(*args)
    check_prior_has_draws(prior)
    sites = _data_sites(prior, args, observed)
    means = {name: _mean_or_value(site)[0] for name, site in sites.items()}
    values = {name: site["value"] for name, site in sites.items()}
    return tuple(_in_arguments(part, sites, args, observed) for part in (means, values))  # pyright: ignore


def _repeat_rows(
    model: Program, guide: Program, rows: tuple[Rows, ...], num: int
) -> tuple[Tensor, ...]:
    """Arguments of ``num`` rows: those given, repeated in turn."""
    index = torch.arange(num) % len(rows[0])
    return place(tuple(part[index] for part in rows), *placement(model, guide))


def _means(
    trace: Trace, args: tuple[Tensor, ...], observed: ObservedValues
) -> Tensor | dict[str, Tensor]:
    """E[x|z], or a draw of x if its distribution has no mean, in the shape of the data, on CPU."""
    sites = _data_sites(trace, args, observed)
    means = {}
    for name, site in sites.items():
        mean, is_mean = _mean_or_value(site)
        if (
            not is_mean
        ):  # classes have no mean; an autoregressive likelihood has none in closed form
            mean = site["fn"].sample()
        means[name] = mean.to(torch.get_default_dtype())
    return _in_arguments(means, sites, args, observed)


def _data_sites(trace: Trace, args: tuple[Tensor, ...], observed: ObservedValues) -> dict[str, Any]:
    """The sites that observe data; the one as large as x, where none observes data as they are."""
    if observed.places:
        sites = sample_sites(trace)
        return {name: sites[name] for name in observed.places}
    site = site_of_x(trace, args)
    return {site["name"]: site}


def _in_arguments(
    values: Mapping[str, Tensor],
    sites: Mapping[str, Any],
    args: tuple[Tensor, ...],
    observed: ObservedValues,
) -> Tensor | dict[str, Tensor]:
    """Values of the observed sites in the shape of the arguments that they observe, on CPU.

    Returns:
        One tensor, or those of several arguments by :attr:`ObservedValues.names`.
    """
    if not observed.places:
        ((name, value),) = values.items()
        return reshape_like_x(value, sites[name], args[0]).cpu()
    dtype = next(iter(values.values())).dtype
    found = tuple(arg.to(dtype, copy=True).contiguous() for arg in args)
    for name, elements in observed.places.items():
        distribution = sites[name]["fn"]
        shape = (*distribution.batch_shape, *distribution.event_shape)
        elements.write(found, values[name].expand(shape))
    by_name = {name: found[number].cpu() for number, name in observed.names.items()}
    return next(iter(by_name.values())) if len(by_name) == 1 else by_name


def _mean_or_value(site: Any) -> tuple[Tensor, bool]:
    """The mean of a site given its parents, or its value if there is none; and whether it is the
    mean."""
    try:
        mean = site["fn"].mean
        if mean.isfinite().all():
            return mean, True
    except NotImplementedError:  # a flow, for example
        pass
    return site["value"].to(torch.get_default_dtype()), False
