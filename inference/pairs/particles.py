"""Particle filters: weigh and resample draws of a chain step by step (sequential Monte Carlo)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .chains import Chain, StepEmissions
from .sites import in_data_plate, latent_sites, observed_sites


@dataclass(frozen=True)
class ChainSites:
    """What a particle filter needs of a pair, on one batch of N sequences."""

    posterior: Chain
    """q(z|x), which proposes."""
    prior: Chain
    """p(z)."""
    emissions: Sequence[tuple[StepEmissions, Tensor]]
    """The distribution of each observed site, and its value (N, T, …)."""


def chain_sites(guide_trace: Trace, model_trace: Trace) -> ChainSites:
    """Find the chain of a pair, and what is observed of its steps.

    Raises:
        ValueError: if the pair has another latent site than one chain, or observes what does not
            belong to the steps of that chain.
    """
    in_guide, in_model = latent_sites(guide_trace), latent_sites(model_trace)
    for name in [*in_guide, *in_model]:
        for role, sites in (("guide", in_guide), ("model", in_model)):
            if name not in sites or not isinstance(sites[name]["fn"], Chain):
                kind = type(sites[name]["fn"]).__name__ if name in sites else "missing"
                raise ValueError(
                    f"a particle filter is of a Markov chain, and {name!r} in the {role} is "
                    f"{kind}: give a StateSpaceModel and a SequencePosterior, or use log_evidence"
                )
    if len(in_guide) != 1:
        raise ValueError(
            f"a particle filter is of one latent chain, and the pair has the latent sites "
            f"{', '.join(map(repr, in_guide)) or 'none'}: use log_evidence"
        )
    emissions = []
    for name, site in observed_sites(model_trace).items():
        if not in_data_plate(site) or not isinstance(site["fn"], StepEmissions):
            raise ValueError(
                f"a particle filter needs log p(x_t|z_t) of each step, and the observed site "
                f"{name!r} is {type(site['fn']).__name__}: give it the distribution Emissions"
            )
        emissions.append((site["fn"], site["value"]))
    (q,), (p,) = in_guide.values(), in_model.values()
    return ChainSites(q["fn"], p["fn"], emissions)


@dataclass(frozen=True)
class Filtered:
    """What R particle filters found of N sequences."""

    log_px: Tensor
    """log p̂(x) of each filter, (R, N)."""
    ess: Tensor
    """Effective sample size after each step, before it is resampled, (T, R, N)."""
    resampled: Tensor
    """Whether the particles were resampled after the step, (T, R, N) of bool."""


def filter_particles(
    sites: ChainSites,
    num_particles: int,
    *,
    num_filters: int = 1,
    num_steps: int | None = None,
    threshold: float = 0.5,
    dtype: torch.dtype | None = None,
) -> Filtered:
    """Run R particle filters of S particles on each of N sequences.

    ::

        z_t ~ q(z_t | z_{t−1}, x),   v_t = p(x_t|z_t) p(z_t | z_{t−1}) / q(z_t | z_{t−1}, x)
        p̂(x) = ∏ₜ Σₛ W_{t−1,s} v_{t,s},   W_t ∝ W_{t−1} v_t

    Where the effective sample size 1 / Σ W² is below ``threshold`` · S, and a step follows, the
    particles are drawn anew by their weights (systematic resampling), and W becomes 1/S. p̂ is
    unbiased (Del Moral 2004), with adaptive resampling too. Gradients, if the proposal has them,
    leave out that which particles survive depends on the parameters.

    Args:
        sites: of the pair: see :func:`chain_sites`.
        num_particles: S.
        num_filters: R.
        num_steps: how many steps to take, at least the largest length; ``None``: all.
        threshold: 0 never resamples, which is importance sampling; above 1 it is done each step.
        dtype: of the weights; ``None``: that of the densities.
    """
    steps = sites.posterior.num_steps if num_steps is None else num_steps
    mask = sites.posterior.present
    z: Tensor | None = None
    total = weight = None
    all_ess, all_resampled = [], []
    for step in range(steps):
        z, gain = _advance(sites, step, z, num_filters * num_particles)
        gain = gain.to(dtype or gain.dtype).unflatten(0, (num_filters, num_particles))
        if weight is None or total is None:
            weight = torch.full_like(gain.detach(), -math.log(num_particles))
            total = gain.new_zeros(num_filters, gain.shape[-1])
        weighed = weight + gain
        increment = weighed.logsumexp(1)
        total = total + increment
        # Where all weights are 0 the estimate is 0, and stays so.
        alive = increment.isfinite()[:, None]
        weight = torch.where(alive, weighed - increment[:, None], weight)
        ess = (-(2 * weight).logsumexp(1)).exp()
        again = ess < threshold * num_particles
        if step + 1 == steps:
            again = torch.zeros_like(again)
        elif mask is not None:
            again = again & mask[:, step + 1]
        if threshold > 0 and step + 1 < steps:
            chosen = _systematic(weight.detach().exp())
            chosen = torch.where(again[:, None], chosen, _unchanged(chosen))
            z = _choose(z, chosen)
            weight = torch.where(again[:, None], -math.log(num_particles), weight)
        all_ess.append(ess.detach())
        all_resampled.append(again)
    assert total is not None
    return Filtered(total, torch.stack(all_ess), torch.stack(all_resampled))


def _advance(
    sites: ChainSites, step: int, before: Tensor | None, count: int
) -> tuple[Tensor, Tensor]:
    """Draw z_t (R · S, N, D), and weigh it: log v_t, (R · S, N), 0 where there is no step."""
    mask = sites.posterior.present
    num_data = len(sites.emissions[0][1])
    proposal = sites.posterior.step(step, before).expand((count, num_data))
    z = proposal.rsample() if proposal.has_rsample else proposal.sample()
    gain = sites.prior.step(step, before).log_prob(z) - proposal.log_prob(z)
    for emissions, value in sites.emissions:
        gain = gain + emissions.step_log_prob(step, z, value)
    if mask is not None:
        gain = torch.where(mask[:, step], gain, 0.0)
        z = torch.where(mask[:, step, None], z, 0.0)
    return z, gain


def _systematic(weights: Tensor) -> Tensor:
    """Draw S particles by their weights (R, S, N), with one random number for each filter.

    Particle s is drawn ⌊S W⌋ or ⌈S W⌉ times, S W on average.
    """
    num_filters, count, num_data = weights.shape
    cumulated = weights.movedim(1, -1).cumsum(-1)
    cumulated = cumulated / cumulated[..., -1:]  # its rounding would favour the last one
    start = torch.rand(num_filters, num_data, 1, dtype=weights.dtype, device=weights.device)
    places = (torch.arange(count, device=weights.device) + start) / count
    return torch.searchsorted(cumulated, places).clamp(max=count - 1).movedim(-1, 1)


def _unchanged(chosen: Tensor) -> Tensor:
    own = torch.arange(chosen.shape[1], device=chosen.device)
    return own[:, None].expand_as(chosen)


def _choose(z: Tensor, chosen: Tensor) -> Tensor:
    """The chosen particles (R, S, N) of z (R · S, N, D)."""
    grouped = z.unflatten(0, chosen.shape[:2])
    return grouped.gather(1, chosen[..., None].expand_as(grouped)).flatten(0, 1)


def check_filter(num_particles: Any, threshold: float) -> None:
    """Refuse settings of a particle filter that are out of range.

    Raises:
        ValueError: with the setting.
    """
    if not isinstance(num_particles, int) or num_particles < 2:
        raise ValueError(f"num_particles must be a whole number of at least 2, got {num_particles}")
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative, got {threshold}")
