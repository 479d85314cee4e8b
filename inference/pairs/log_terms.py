"""Per-datum log terms log p(x|z), log p(z), log q(z|x) of draws from the guide."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .cached_flows import log_prob_of
from .enumeration import draw_summed_out, is_summed_out, sum_out, trace_all_values, varies
from .kl import is_delta
from .programs import Program
from .separate_runs import map_runs
from .sites import (
    DATA_PLATE,
    in_data_plate,
    is_deterministic,
    latent_sites,
    rows_dim,
    sample_sites,
    value_rows_dim,
)
from .stacking import stack_traces, whole_value
from .structure import Structure
from .supports import bounds_of, in_support

SAMPLE_PLATE = "latente_samples"


@dataclass(frozen=True)
class Terms:
    """Log terms of S draws z ~ q(z|x) for each of N data, in nats.

    These are densities: weights of sites (``poutine.scale``, the N/M of a minibatch) are left out.
    Global latent variables, outside the data plate, have separate terms of shape (S,), which are
    zero where there are none.

    Sites k that the model enumerates and the guide does not draw are summed out of each term,
    exactly: p(z) = Σ_k p(k, z), and p(x|z) = Σ_k p(k, z, x) / p(z).
    """

    log_likelihood: Tensor
    """log p(x|z), (S, N)."""
    log_prior: Tensor
    """log p(z), (S, N)."""
    log_posterior: Tensor
    """log q(z|x), (S, N)."""
    log_prior_global: Tensor
    """log p of the global latent variables, (S,)."""
    log_posterior_global: Tensor
    """log q of the global latent variables, (S,)."""
    kl_by_site: Mapping[str, Tensor] = field(default_factory=dict)
    """log q(z|x) − log p(z) of each local latent site, (S, N), where they were asked for."""
    log_summed_weight: Tensor | None = None
    """Where the guide marks discrete sites y to be enumerated, log Σ_y p(x, y, z) / q(z|x, y) of
    one draw of z at each y, (S, N): the other terms are then means over q(y|x)."""

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x) of the local variables of each datum, (S, N)."""
        if self.log_summed_weight is not None:
            return self.log_summed_weight
        return self.log_likelihood + self.log_prior - self.log_posterior


@dataclass(frozen=True)
class Draws:
    """S draws from a guide for each of N data, with their densities and their layout."""

    trace: Trace
    args: tuple[Any, ...]
    log_posterior: Tensor
    """log q(z|x), (S, N)."""
    log_posterior_global: Tensor
    """log q of the global latent variables, (S,)."""
    nesting: int
    plated: bool
    """Whether samples lie along a separate dimension; if not, they are part of the data plate."""
    enumerated: tuple[str, ...] = ()
    """Sites of the model without a draw, which are summed out of its log terms."""
    apart: bool = False
    """Whether each sample is a run of its own, and not an element of a plate of samples."""

    @property
    def num_samples(self) -> int:
        """S."""
        return self.log_posterior.shape[0]

    @property
    def num_data(self) -> int:
        """N."""
        return self.log_posterior.shape[1]

    @property
    def depth(self) -> int:
        """Number of batch dimensions of all plates, that of the samples included."""
        return self.nesting + self.plated


def draw(
    guide: Program,
    args: tuple[Any, ...],
    num_samples: int,
    structure: Structure,
    *,
    keep_distributions: bool = False,
) -> Draws:
    """Draw ``num_samples`` times from q(z|x) for each of a batch of data.

    A vectorized guide is run once, under a plate of samples to the left of its own plates, so its
    encoder runs once. Any other guide is run on the data repeated ``num_samples`` times; or, if it
    keeps a posterior for each datum, or the whole data set is one datum, ``num_samples`` times.

    Args:
        keep_distributions: whether the distributions in the trace are needed; where samples are
            runs of their own, they are otherwise those of one run.
    """
    num_data = len(args[0])
    plated = structure.plated(num_samples)
    if structure.keeps_rows and not plated and num_samples > 1:
        return _join([draw(guide, args, 1, structure) for _ in range(num_samples)])
    if plated and structure.apart and not keep_distributions:
        return _draw_apart(guide, args, num_samples, structure)
    if plated and structure.apart:
        trace = stack_traces([poutine.trace(guide).get_trace(*args) for _ in range(num_samples)])
    elif plated:
        with pyro.plate(SAMPLE_PLATE, num_samples, dim=-1 - structure.nesting):
            trace = poutine.trace(guide).get_trace(*args)
    else:
        trace = poutine.trace(guide).get_trace(*repeat_data(args, num_samples, num_data))
    log_posterior, log_posterior_global = sum_sites(
        latent_sites(trace).values(), (num_samples, num_data), plated, like=args[0]
    )
    # Draws of the model itself hold the sites that are summed out.
    missing = tuple(name for name in structure.enumerated if name not in trace.nodes)
    return Draws(
        trace,
        args,
        log_posterior,
        log_posterior_global,
        structure.nesting,
        plated,
        missing,
        plated and structure.apart,
    )


def _draw_apart(
    guide: Program, args: tuple[Any, ...], num_samples: int, structure: Structure
) -> Draws:
    """Draws that are runs of their own."""
    trace = Trace()
    sites = latent_sites(poutine.trace(guide).get_trace(*args))

    def run(_: Tensor) -> tuple[Tensor, ...]:
        found = latent_sites(poutine.trace(guide).get_trace(*args))
        terms = sum_sites(found.values(), (1, len(args[0])), False, args[0])
        values = [whole_value(found[name]) for name in sites]
        return terms[0][0], terms[1][0], *values

    random = [2 + number for number, name in enumerate(sites) if not is_delta(sites[name]["fn"])]
    log_posterior, beyond, *values = map_runs(guide, run, [torch.arange(num_samples)], random)
    for (name, site), value in zip(sites.items(), values, strict=True):
        trace.add_node(name, **{**site, "value": value})
    missing = tuple(name for name in structure.enumerated if name not in sites)
    return Draws(trace, args, log_posterior, beyond, structure.nesting, True, missing, True)


def complete(model: Program, draws: Draws) -> Draws:
    """Draw the sites that are summed out, too, from their exact posterior p(k | x, z).

    The weights of the draws stay as they are: log q(z, k | x) = log q(z|x) + log p(k | x, z).
    """
    if not draws.enumerated:
        return draws
    trace = draw_summed_out(*_program_and_args(model, draws), draws.trace, -1 - draws.depth)
    unknown = replace(draws, trace=trace, enumerated=())
    together, summed = score(model, unknown), score(model, draws)
    log_posterior = together.log_likelihood + together.log_prior - summed.log_likelihood
    return replace(unknown, log_posterior=log_posterior - summed.log_prior + draws.log_posterior)


def _program_and_args(model: Program, draws: Draws) -> tuple[Program, tuple[Any, ...]]:
    """The model with the plate of samples inside it, and the arguments that it takes."""
    if not draws.plated:
        return model, repeat_data(draws.args, draws.num_samples, draws.num_data)

    def plated(*args: Any) -> Any:
        with pyro.plate(SAMPLE_PLATE, draws.num_samples, dim=-1 - draws.nesting):
            return model(*args)

    return plated, draws.args


def _join(draws: list[Draws]) -> Draws:
    """Single draws of all data as draws on repeated data; global sites are the same in all."""
    trace = Trace()
    for name, site in latent_sites(draws[0].trace).items():
        value = site["value"]
        if in_data_plate(site):
            values: list[Any] = [latent_sites(one.trace)[name]["value"] for one in draws]
            value = torch.cat(values, dim=value_rows_dim(site))
        trace.add_node(name, **{**site, "value": value})
    return replace(
        draws[0],
        trace=trace,
        log_posterior=torch.cat([one.log_posterior for one in draws]),
        log_posterior_global=torch.cat([one.log_posterior_global for one in draws]),
    )


def score(model: Program, draws: Draws, start: int = 0, stop: int | None = None) -> Terms:
    """The log terms of draws ``start`` to ``stop`` under the model and their guide."""
    stop = draws.num_samples if stop is None else stop
    if draws.apart and draws.enumerated:  # traces with all values of a site are not stacked
        parts = [score(model, one_sample(draws, sample)) for sample in range(start, stop)]
        names = [f.name for f in fields(Terms) if f.name not in ("kl_by_site", "log_summed_weight")]
        return Terms(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})  # pyright: ignore
    if draws.apart:
        return _score_apart(model, draws, start, stop)
    return read_terms(trace_model(model, draws, start, stop), draws, start, stop)


def trace_model(model: Program, draws: Draws, start: int = 0, stop: int | None = None) -> Trace:
    """The trace of the model at draws ``start`` to ``stop`` of its latent variables.

    A site that is summed out has all of its values there, each along a dimension of its own.
    """
    stop = draws.num_samples if stop is None else stop
    count, num_data = stop - start, draws.num_data
    trace = Trace()
    for name, site in latent_sites(draws.trace).items():
        value = site["value"]
        if count < draws.num_samples:
            value = samples(value, site, start, stop, None if draws.plated else num_data)
        trace.add_node(name, **{**site, "value": value})
    if draws.apart:
        return stack_traces([_run_sample(model, trace, draws.args, s) for s in range(count)])

    def run(*args: Any) -> Trace:
        if draws.enumerated:
            return trace_all_values(model, args, trace, -1 - draws.depth)
        return poutine.trace(poutine.replay(model, trace=trace)).get_trace(*args)

    if draws.plated:
        with pyro.plate(SAMPLE_PLATE, count, dim=-1 - draws.nesting):
            return run(*draws.args)
    return run(*repeat_data(draws.args, count, num_data))


def one_sample(draws: Draws, sample: int) -> Draws:
    """One sample of plated draws, as draws without a plate."""
    trace = Trace()
    for name, site in latent_sites(draws.trace).items():
        trace.add_node(name, **{**site, "value": site["value"][sample]})
    rows = slice(sample, sample + 1)
    return replace(
        draws,
        trace=trace,
        log_posterior=draws.log_posterior[rows],
        log_posterior_global=draws.log_posterior_global[rows],
        plated=False,
        apart=False,
    )


def _score_apart(model: Program, draws: Draws, start: int, stop: int) -> Terms:
    """The log terms of draws that are runs of their own."""

    def read(trace: Trace) -> tuple[Tensor, ...]:
        one = replace(draws, log_posterior=draws.log_posterior[:1], plated=False, apart=False)
        terms = read_terms(trace, one)
        return terms.log_likelihood[0], terms.log_prior[0], terms.log_prior_global[0]

    likelihood, prior, beyond = _run_at(model, draws, read, start, stop)
    log_q, log_q_global = draws.log_posterior[start:stop], draws.log_posterior_global[start:stop]
    return Terms(likelihood, prior, log_q, beyond, log_q_global)


def log_density_at(program: Program, draws: Draws) -> Tensor:
    """The log density of a program's latent sites in the data plate at draws, (S, N)."""
    if not draws.apart:
        return read_terms(trace_model(program, draws), draws, anywhere=True).log_prior
    one = replace(draws, log_posterior=draws.log_posterior[:1], plated=False, apart=False)

    def read(trace: Trace) -> tuple[Tensor, ...]:
        return (read_terms(trace, one, anywhere=True).log_prior[0],)

    return _run_at(program, draws, read, 0, draws.num_samples)[0]


def _run_at(
    program: Program,
    draws: Draws,
    read: Callable[[Trace], tuple[Tensor, ...]],
    start: int,
    stop: int,
) -> tuple[Tensor, ...]:
    """Run a program for each of some draws, and read numbers from each trace, stacked."""
    sites = latent_sites(draws.trace)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        own = Trace()
        for (name, site), value in zip(sites.items(), values, strict=True):
            own.add_node(name, **{**site, "value": value})
        return read(poutine.trace(poutine.replay(program, trace=own)).get_trace(*draws.args))

    return map_runs(program, run, [site["value"][start:stop] for site in sites.values()])


def samples(value: Tensor, site: Any, start: int, stop: int, num_data: int | None) -> Tensor:
    """Draws ``start`` to ``stop`` of a site's values.

    Args:
        num_data: N, if samples are part of the data plate; ``None`` if they lie along a plate.
    """
    if num_data is None:
        return value[start:stop]
    rows = value_rows_dim(site) if in_data_plate(site) else 0
    return value.narrow(rows, start * num_data, (stop - start) * num_data)


def _run_sample(model: Program, trace: Trace, args: tuple[Any, ...], sample: int) -> Trace:
    """One run of a model, at one sample of its latent variables."""
    own = Trace()
    for name, site in latent_sites(trace).items():
        own.add_node(name, **{**site, "value": site["value"][sample]})
    return poutine.trace(poutine.replay(model, trace=own)).get_trace(*args)


def read_terms(
    model_trace: Trace,
    draws: Draws,
    start: int = 0,
    stop: int | None = None,
    *,
    anywhere: bool = False,
) -> Terms:
    """The log terms of draws ``start`` to ``stop``, from the model's trace at these draws.

    Args:
        anywhere: whether latent sites may lie outside their support: see :func:`sum_sites`.
    """
    stop = draws.num_samples if stop is None else stop
    shape, like = (stop - start, draws.num_data), draws.log_posterior
    latent = latent_sites(model_trace)
    observed = [site for site in sample_sites(model_trace).values() if site["is_observed"]]
    if draws.enumerated:
        return _read_summed(model_trace, draws, start, stop)
    log_prior, log_prior_global = sum_sites(
        latent.values(), shape, draws.plated, like, anywhere=anywhere
    )
    log_likelihood, unplated = sum_sites(observed, shape, draws.plated, like)
    return Terms(
        log_likelihood,
        log_prior,
        draws.log_posterior[start:stop],
        log_prior_global + unplated,
        draws.log_posterior_global[start:stop],
    )


def _read_summed(model_trace: Trace, draws: Draws, start: int, stop: int) -> Terms:
    """The log terms of a model whose trace has all values of the sites that are summed out."""
    shape, like = (stop - start, draws.num_data), draws.log_posterior[start:stop]
    plates = (SAMPLE_PLATE, DATA_PLATE) if draws.plated else (DATA_PLATE,)
    sites = [s for s in sample_sites(model_trace).values() if not is_deterministic(s)]
    outside = [site for site in sites if not in_data_plate(site)]
    for site in outside:
        if is_summed_out(site) or varies(site):
            what = "is summed out" if is_summed_out(site) else "depends on a site summed out"
            raise ValueError(
                f"the site {site['name']!r} outside the plate of data {what}, so the data are "
                "not independent given what the guide draws: let the guide draw it"
            )
    local = [site for site in sites if in_data_plate(site)]
    latent = [site for site in local if not site["is_observed"]]
    drawn = [site for site in latent if not is_summed_out(site)]

    def total(chosen: list[Any]) -> Tensor:
        nothing = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return nothing + sum_out(chosen, plates).reshape(shape) if chosen else nothing

    if any(varies(site) for site in drawn):
        log_prior, log_joint = total(latent), total(local)
        # Where p(z) is zero or NaN, that decides, and p(x|z) is not defined.
        log_likelihood = torch.where(log_prior.isfinite(), log_joint - log_prior, 0.0)
    else:
        log_prior = total(drawn)
        log_likelihood = total(
            [site for site in local if site["is_observed"]]
            + [site for site in latent if is_summed_out(site)]
        )
    return Terms(
        log_likelihood,
        log_prior,
        draws.log_posterior[start:stop],
        sum_sites(outside, shape, draws.plated, like)[1],
        draws.log_posterior_global[start:stop],
    )


def score_in_chunks(model: Program, draws: Draws, chunk_size: int) -> Iterator[Terms]:
    """The terms of all draws, ``chunk_size`` samples at a time."""
    for start in range(0, draws.num_samples, chunk_size):
        yield score(model, draws, start, min(start + chunk_size, draws.num_samples))


def sum_sites(
    sites: Iterable[Any],
    shape: tuple[int, int],
    plated: bool,
    like: Tensor,
    *,
    anywhere: bool = False,
) -> tuple[Tensor, Tensor]:
    """Summed log densities of sites: those in the data plate (S, N), and the others (S,).

    Masks are applied, scales are not. Outside its support a distribution has the log density −∞:
    some of PyTorch's (Pareto, for example) give another number there. That is looked at where the
    support has bounds of its own, which a latent variable may cross.

    Args:
        anywhere: look at it for each site, as values may lie anywhere.
    """
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    local = torch.zeros(shape, dtype=dtype, device=like.device)
    beyond = torch.zeros(shape[0], dtype=dtype, device=like.device)
    first = 1 if plated else 0
    for site in sites:
        log_prob = log_prob_of(site)
        if anywhere or bounds_of(site["fn"]):
            inside = in_support(site["fn"], site["value"])
            log_prob = log_prob if inside is None else log_prob.where(inside, -torch.inf)
        log_prob = scale_and_mask(log_prob, mask=site["mask"])
        in_data = in_data_plate(site)
        if in_data and rows_dim(site) != -1:
            log_prob = log_prob.movedim(rows_dim(site), -1)
        inner = tuple(range(first, log_prob.dim() - (1 if in_data else 0)))
        log_prob = log_prob.sum(inner) if inner else log_prob
        if in_data:
            local = local + log_prob.reshape(shape)
        else:
            beyond = beyond + log_prob
    return local, beyond


def repeat_data(args: tuple[Any, ...], times: int, num_data: int) -> tuple[Any, ...]:
    """Repeat each tensor of data along its first dimension, sample by sample."""
    if times == 1:
        return args
    return tuple(
        arg.repeat(times, *[1] * (arg.dim() - 1))
        if isinstance(arg, Tensor) and arg.dim() and len(arg) == num_data
        else arg
        for arg in args
    )
