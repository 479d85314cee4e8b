"""Per-datum log terms log p(x|z), log p(z), log q(z|x), read from the traces of any pair."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .pairs import DATA_PLATE, Program, plain_errors

SAMPLE_PLATE = "latente_samples"


@dataclass(frozen=True)
class Terms:
    """Log terms of S draws z ~ q(z|x) for each of N data, in nats.

    Weights that a program puts on itself (``poutine.scale``, the N/M of a minibatch) are
    left out: these are the densities. Latent variables outside the data plate have terms
    of their own, of shape (S,), zero where there are none.
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

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x) of each datum's own variables, (S, N)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


@dataclass(frozen=True)
class Structure:
    """The facts of a pair that decide how it is run; see :func:`inspect_pair`."""

    nesting: int
    """How many batch dimensions its plates take, counted from the right."""
    vectorized: bool
    """Whether it runs under a plate of samples left of its own."""
    global_latents: tuple[str, ...]
    """Latent sites outside the data plate."""
    observed_outside: tuple[str, ...] = ()
    """Observed sites, and factors, outside the data plate."""
    enumerated: tuple[str, ...] = ()
    """Latent sites of the model that an objective sums out, and the guide does not have."""
    points: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide puts on one point, without a density."""


@dataclass(frozen=True)
class Draws:
    """S draws from a guide for each of N data, their densities, and what scoring them needs."""

    trace: Trace
    args: tuple[Any, ...]
    log_posterior: Tensor
    """log q(z|x), (S, N)."""
    log_posterior_global: Tensor
    """log q of the global latent variables, (S,)."""
    nesting: int
    plated: bool
    """Samples lie along a plate of their own; if not, they are folded into the data plate."""

    @property
    def num_samples(self) -> int:
        """S."""
        return self.log_posterior.shape[0]

    @property
    def num_data(self) -> int:
        """N."""
        return self.log_posterior.shape[1]


def sample_sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace, by name; what plates draw of their indices is none."""
    nodes: dict[str, Any] = dict(trace.nodes)
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample)
    }


def latent_sites(trace: Trace) -> dict[str, Any]:
    """The unobserved sample sites of a trace, by name."""
    return {n: site for n, site in sample_sites(trace).items() if not site["is_observed"]}


def observed_sites(trace: Trace) -> dict[str, Any]:
    """The observed sites of a trace that carry data, by name: no deterministic ones."""
    return {
        name: site
        for name, site in sample_sites(trace).items()
        if site["is_observed"] and not site["infer"].get("_deterministic")
    }


def base_law(law: Any) -> Any:
    """The law behind ``to_event``, ``expand`` and masks."""
    while hasattr(law, "base_dist"):
        law = law.base_dist
    return law


def in_data_plate(site: Any) -> bool:
    """Whether a site lies inside the plate named ``"data"``."""
    return any(frame.name == DATA_PLATE for frame in site["cond_indep_stack"])


def inspect_pair(model: Program, guide: Program, args: tuple[Any, ...]) -> Structure:
    """Run a pair once and check that it keeps to the contract.

    Raises:
        ValueError: if the model has no plate named ``"data"`` at dimension −1 with an
            observed site inside, if that plate is not as long as the data, or if a latent
            site stands in only one of the two programs.
    """
    with plain_errors():
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    in_guide, in_model = latent_sites(guide_trace), latent_sites(model_trace)
    alone = sorted(in_model.keys() - in_guide.keys())
    enumerated = tuple(name for name in alone if in_model[name]["infer"].get("enumerate"))
    for name in sorted(set(alone) - set(enumerated)):
        raise ValueError(
            f"the model samples {name!r}, which the guide does not (if it is data, give it obs=)"
        )
    for name, site in in_guide.items():
        if name not in in_model and not site["infer"].get("is_auxiliary"):
            raise ValueError(f"the guide samples {name!r}, which the model does not")
    for name in in_guide.keys() & in_model.keys():
        given, wanted = in_guide[name]["value"].shape, in_model[name]["fn"].event_shape
        if given[len(given) - len(wanted) :] != wanted:
            raise ValueError(
                f"the guide's {name!r} is of shape {tuple(given[1:])} for each datum, the model's "
                f"of {tuple(wanted)}: give prior and guide the same latent dimension"
            )
    for trace in (guide_trace, model_trace):
        for name, site in sample_sites(trace).items():
            _check_plates(name, site)
    frames = [
        frame
        for trace in (guide_trace, model_trace)
        for site in sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.dim is not None
    ]
    data_frames = [frame for frame in frames if frame.name == DATA_PLATE]
    if not any(in_data_plate(site) for site in observed_sites(model_trace).values()):
        raise ValueError(
            "the model has no observed site inside a plate named 'data': put its data under "
            "pyro.plate('data', len(x), dim=-1)"
        )
    for name in in_guide.keys() & in_model.keys():
        if in_data_plate(in_guide[name]) != in_data_plate(in_model[name]):
            inside, outside = "model", "guide"
            if in_data_plate(in_guide[name]):
                inside, outside = outside, inside
            raise ValueError(
                f"{name!r} is inside the plate 'data' in the {inside}, and not in the {outside}: "
                "put it under pyro.plate('data', len(x), dim=-1) in both"
            )
    for frame in data_frames:
        if frame.dim != -1 or frame.size != len(args[0]):
            raise ValueError(
                f"the plate 'data' has size {frame.size} at dimension {frame.dim}; "
                f"it must have the size of the batch, {len(args[0])}, at dimension -1"
            )
    nesting = max(-frame.dim for frame in frames)
    global_latents = tuple(name for name, site in in_guide.items() if not in_data_plate(site))
    if isinstance(guide, AutoGuide) and len(global_latents) < len(in_guide):
        raise ValueError(
            "an autoguide keeps one posterior for each datum of the first batch, and has none for "
            "others: write a guide that computes its posterior from x"
        )
    # Draws of a global variable are never spread over a plate of samples: see log_evidence.
    plain = not global_latents and not enumerated
    vectorized = plain and _is_vectorized(model, guide, args, nesting)
    outside = tuple(
        name for name, site in observed_sites(model_trace).items() if not in_data_plate(site)
    )
    points = tuple(
        name
        for name, site in in_guide.items()
        if in_data_plate(site) and isinstance(base_law(site["fn"]), Delta)
    )
    return Structure(nesting, vectorized, global_latents, outside, enumerated, points)


def _check_plates(name: str, site: Any) -> None:
    """Refuse log densities that no plate accounts for: summed, they would count many times."""
    owned = {frame.dim for frame in site["cond_indep_stack"]}
    shape = site["fn"].batch_shape
    for dim in range(-len(shape), 0):
        if shape[dim] > 1 and dim not in owned:
            raise ValueError(
                f"the law at {name!r} has {shape[dim]} log densities at dimension {dim}, where "
                "there is no plate: end it with .to_event(…); labels, and what a prior is given, "
                "are one row a datum, (N,) or (N, event), not (N, 1)"
            )


def _is_vectorized(model: Program, guide: Program, args: tuple[Any, ...], nesting: int) -> bool:
    """Whether the pair, run under a plate of two samples, scores them as it does one by one.

    A network written for one batch dimension fails there, or mixes samples with data; such
    a pair is run on repeated data instead.
    """
    try:
        draws = draw(guide, args, 2, Structure(nesting, vectorized=True, global_latents=()))
        together = score(model, draws)
    except Exception:  # a user's network may fail on a further dimension in any way
        return False
    apart = [_one_sample(draws, sample) for sample in range(2)]
    terms = [score(model, one) for one in apart]
    # The guide too: its log q, scored again at one sample's values without the plate.
    replayed = [poutine.trace(poutine.replay(guide, trace=one.trace)) for one in apart]
    posteriors = [
        sum_sites(latent_sites(trace.get_trace(*args)).values(), (1, len(args[0])), False, args[0])
        for trace in replayed
    ]
    pairs = [
        (together.log_likelihood, torch.cat([term.log_likelihood for term in terms])),
        (together.log_prior, torch.cat([term.log_prior for term in terms])),
        (together.log_posterior, torch.cat([local for local, _ in posteriors])),
    ]
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs)


def _one_sample(draws: Draws, sample: int) -> Draws:
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
    )


def draw(guide: Program, args: tuple[Any, ...], num_samples: int, structure: Structure) -> Draws:
    """Draw ``num_samples`` times from q(z|x) for each of a batch of data.

    A vectorized guide is run once, under a plate of samples left of its own plates, so its
    encoder runs once; another is run on the data repeated ``num_samples`` times.
    """
    num_data = len(args[0])
    plated = structure.vectorized and num_samples > 1
    if plated:
        with pyro.plate(SAMPLE_PLATE, num_samples, dim=-1 - structure.nesting):
            trace = poutine.trace(guide).get_trace(*args)
    else:
        trace = poutine.trace(guide).get_trace(*_repeat(args, num_samples, num_data))
    log_posterior, log_posterior_global = sum_sites(
        latent_sites(trace).values(), (num_samples, num_data), plated, like=args[0]
    )
    return Draws(trace, args, log_posterior, log_posterior_global, structure.nesting, plated)


def score(model: Program, draws: Draws, start: int = 0, stop: int | None = None) -> Terms:
    """The log terms of draws ``start`` to ``stop`` under the model and their guide."""
    stop = draws.num_samples if stop is None else stop
    return read_terms(replay(model, draws, start, stop), draws, start, stop)


def replay(model: Program, draws: Draws, start: int = 0, stop: int | None = None) -> Trace:
    """The trace of the model at draws ``start`` to ``stop`` of its latent variables."""
    stop = draws.num_samples if stop is None else stop
    count, num_data = stop - start, draws.num_data
    rows = slice(start, stop) if draws.plated else slice(start * num_data, stop * num_data)
    trace = Trace()
    for name, site in latent_sites(draws.trace).items():
        value = site["value"] if count == draws.num_samples else site["value"][rows]
        trace.add_node(name, **{**site, "value": value})
    replayed = poutine.trace(poutine.replay(model, trace=trace))
    if draws.plated:
        with pyro.plate(SAMPLE_PLATE, count, dim=-1 - draws.nesting):
            return replayed.get_trace(*draws.args)
    return replayed.get_trace(*_repeat(draws.args, count, num_data))


def read_terms(model_trace: Trace, draws: Draws, start: int = 0, stop: int | None = None) -> Terms:
    """The log terms of draws ``start`` to ``stop``, of which the model's trace is at hand."""
    stop = draws.num_samples if stop is None else stop
    shape, like = (stop - start, draws.num_data), draws.log_posterior
    latent = latent_sites(model_trace)
    observed = [site for site in sample_sites(model_trace).values() if site["is_observed"]]
    log_prior, log_prior_global = sum_sites(latent.values(), shape, draws.plated, like)
    log_likelihood, unplated = sum_sites(observed, shape, draws.plated, like)
    return Terms(
        log_likelihood,
        log_prior,
        draws.log_posterior[start:stop],
        log_prior_global + unplated,
        draws.log_posterior_global[start:stop],
    )


def score_in_chunks(model: Program, draws: Draws, chunk_size: int) -> Iterator[Terms]:
    """The terms of all draws, ``chunk_size`` samples at a time."""
    for start in range(0, draws.num_samples, chunk_size):
        yield score(model, draws, start, min(start + chunk_size, draws.num_samples))


def sum_sites(
    sites: Iterable[Any], shape: tuple[int, int], plated: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Summed log densities of sites: those in the data plate (S, N), and the others (S,).

    Masks count, scales do not.
    """
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    local = torch.zeros(shape, dtype=dtype, device=like.device)
    beyond = torch.zeros(shape[0], dtype=dtype, device=like.device)
    first = 1 if plated else 0
    for site in sites:
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_prob = scale_and_mask(log_prob, mask=site["mask"])
        in_data = in_data_plate(site)
        inner = tuple(range(first, log_prob.dim() - (1 if in_data else 0)))
        log_prob = log_prob.sum(inner) if inner else log_prob
        if in_data:
            local = local + log_prob.reshape(shape)
        else:
            beyond = beyond + log_prob
    return local, beyond


def _repeat(args: tuple[Any, ...], times: int, num_data: int) -> tuple[Any, ...]:
    """Repeat each tensor of data along its first dimension, sample by sample."""
    if times == 1:
        return args
    return tuple(
        arg.repeat(times, *[1] * (arg.dim() - 1))
        if isinstance(arg, Tensor) and arg.dim() and len(arg) == num_data
        else arg
        for arg in args
    )
