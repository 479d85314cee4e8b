"""Evidence of sequences by particle filters, with the guide as proposal."""

import math
from dataclasses import dataclass, field
from typing import Any, Never

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..common.arguments import check_least, refuse_more
from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.rows import BLOCK_ROWS
from ..data.whole_set import open_posterior
from ..pairs.checks import check_support
from ..pairs.parameters import place, placement
from ..pairs.particles import ChainSites, Filtered, chain_sites, check_filter, filter_particles
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import DRAWS_AT_ONCE
from ..pairs.structure import Structure
from .importance_sampling import inspect_local
from .per_datum import PerDatum


@dataclass(frozen=True)
class FilteredEvidence(PerDatum):
    """Evidence of N sequences by particle filters, in nats; tensors are float64, on the CPU."""

    log_px: Tensor
    """log p̂(x), (N,): the logarithm of the mean of p̂ over the R filters."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, (N,), from the spread of p̂ over the R filters, by
    the delta method. It has R − 1 degrees of freedom."""
    ess: Tensor
    """Effective sample size of the S particles after each step, before they are resampled, averaged
    over the filters, (N, T); NaN after the end of a sequence."""
    resampled: Tensor
    """Fraction of the filters that resampled after each step, (N, T); NaN after the end."""
    lengths: Tensor = field(repr=False)
    """The lengths of the sequences, (N,), int64."""
    num_particles: int
    """S."""
    num_filters: int
    """R."""

    @property
    def per_step(self) -> float:
        """Σ log p̂(x) / Σ T over all sequences: nats per step."""
        return (self.log_px.sum() / self.lengths.sum()).item()

    @property
    def min_ess(self) -> Tensor:
        """The smallest effective sample size of each sequence, (N,)."""
        return self.ess.nan_to_num(nan=math.inf).min(-1).values

    def __repr__(self) -> str:
        return (
            f"FilteredEvidence(mean={self.mean:.3f} ± {self.mean_standard_error:.3f} nats, "
            f"{self.per_step:.3f} a step, N={len(self.log_px)}, S={self.num_particles}, "
            f"R={self.num_filters}, smallest ESS {self.min_ess.min().item():.1f})"
        )


def particle_filter(
    model: Program,
    guide: Program,
    data: Any,
    *more: Never,
    num_particles: int = 200,
    num_filters: int = 10,
    threshold: float = 0.5,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> FilteredEvidence:
    """Estimate log p(x) of each sequence by particle filters, with the guide as proposal.

    ::

        z_t ~ q(z_t | z_{t−1}, x),   v_t = p(x_t|z_t) p(z_t | z_{t−1}) / q(z_t | z_{t−1}, x)
        p̂(x) = ∏ₜ Σₛ W_{t−1,s} v_{t,s},   W_t ∝ W_{t−1} v_t

    Particles whose weights fall behind are replaced by others (systematic resampling, where the
    effective sample size is below ``threshold`` · S; Doucet and Johansen 2009). The weights of
    importance sampling multiply over T steps, and their variance grows exponentially with T; that
    of a particle filter grows linearly. p̂(x) is unbiased, so that log p̂(x) is biased downwards, by
    about half its squared standard error.

    A guide that is the exact posterior makes importance sampling exact, and not the filter: weights
    up to step t do not know the future that the guide has read.

    The error comes from R independent filters. With few of them it is itself uncertain: a t
    distribution of R − 1 degrees of freedom.

    Args:
        model: Pyro program ``model(x, *context)``, whose one latent site is a Markov chain, and
            which observes steps that are independent given it, such as
            :class:`latente.models.StateSpaceModel`.
        guide: Pyro program of the same arguments, whose posterior is such a chain, as
            :class:`latente.guides.SequencePosterior`.
        data: x (N, T, …), or a tuple (x, lengths); of what :func:`load_data` returns, the test
            part is used.
        more: none: the data of programs of several arguments are one tuple or dict.
        num_particles: S, at least 2.
        num_filters: R, at least 2.
        threshold: 0 never resamples, which is importance sampling; above 1 it is done each step.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the data done.

    Raises:
        ValueError: if a number is out of range, the pair is no chain, or log p(x) is not defined
            (see :func:`log_evidence`), or all particles of a sequence have weight 0 or NaN.

    >>> from latente.guides import DiagonalNormal, SequencePosterior
    >>> from latente.models import (
    ...     Combiner, LinearTransition, Normal, RecurrentReader, StateSpaceModel, mlp)
    >>> model = StateSpaceModel(LinearTransition(2), mlp(2, out=3), Normal((3,)))
    >>> family = DiagonalNormal(Combiner(8, 2, out=4), latent_dim=2)
    >>> guide = SequencePosterior(RecurrentReader(3, 8), family)
    >>> evidence = particle_filter(model, guide, torch.randn(4, 5, 3))
    >>> evidence.log_px.shape, evidence.ess.shape
    (torch.Size([4]), torch.Size([4, 5]))
    """
    refuse_more("particle_filter", more)
    check_filter(num_particles, threshold)
    check_least({"num_filters": (num_filters, 2)})
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    num_rows, where = len(rows[0]), placement(model, guide)
    block = max(1, DRAWS_AT_ONCE // (num_particles * num_filters))
    parts: list[tuple[Tensor, ...]] = []
    structure: Structure | None = None
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        for start in range(0, num_rows, BLOCK_ROWS):
            checked = place(tuple(part[start : start + BLOCK_ROWS] for part in rows), *where)
            check_support(model, guide, checked, "data", start)
        with progress("particle filter", num_rows, show=show_progress) as advance:
            for start in range(0, num_rows, block):
                args = place(tuple(part[start : start + block] for part in rows), *where)
                structure = structure or _inspect(model, guide, args)
                with pyro.validation_enabled(False):
                    sites = _sites(model, guide, args)
                    lengths = _lengths(sites)
                    filtered = filter_particles(
                        sites,
                        num_particles,
                        num_filters=num_filters,
                        num_steps=int(lengths.max()),
                        threshold=threshold,
                        dtype=torch.float64,
                    )
                parts.append(_summarize(filtered, lengths, sites.posterior.num_steps, start))
                advance(len(args[0]), f"{start + len(args[0])} of {num_rows} data")
    joined = [torch.cat(one) for one in zip(*parts, strict=True)]
    return FilteredEvidence(*joined, num_particles=num_particles, num_filters=num_filters)


def _inspect(model: Program, guide: Program, args: tuple[Any, ...]) -> Structure:
    """Check a pair as :func:`log_evidence` does, and that it takes several particles at once."""
    structure = inspect_local(model, guide, args)
    _sites(model, guide, args)
    if not structure.vectorized:
        raise ValueError(
            "a network of the pair takes z of one shape (N, …) alone, and a particle filter has "
            "several particles at once, (S, N, …): use networks that take any leading shape"
        )
    return structure


def _sites(model: Program, guide: Program, args: tuple[Any, ...]) -> ChainSites:
    guide_trace = poutine.trace(guide).get_trace(*args)
    return chain_sites(
        guide_trace, poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    )


def _lengths(sites: ChainSites) -> Tensor:
    mask, num_data = sites.posterior.present, len(sites.emissions[0][1])
    if mask is None:
        return torch.full((num_data,), sites.posterior.num_steps)
    return mask.sum(-1).cpu()


def _summarize(
    filtered: Filtered, lengths: Tensor, num_steps: int, first_row: int
) -> tuple[Tensor, ...]:
    """The fields of :class:`FilteredEvidence` of one block."""
    log_px = filtered.log_px.cpu()
    peak = log_px.max(0).values
    if not peak.isfinite().all():
        row = first_row + int((~peak.isfinite()).nonzero()[0])
        raise ValueError(
            f"all particles of sequence {row} have weights that are 0 or NaN: the guide draws "
            "where the model has no mass, or the densities are not finite"
        )
    relative = (log_px - peak).exp()
    mean = relative.mean(0)
    error = (relative / mean).std(0) / math.sqrt(len(log_px))
    by_step = []
    for figure in (filtered.ess, filtered.resampled.double()):
        figure = figure.double().mean(1).T.cpu()
        whole = torch.full((len(lengths), num_steps), math.nan, dtype=torch.float64)
        whole[:, : figure.shape[1]] = figure
        by_step.append(whole.masked_fill(torch.arange(num_steps) >= lengths[:, None], math.nan))
    return peak + mean.log(), error, *by_step, lengths
