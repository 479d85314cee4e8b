"""Importance-sampled evidence: estimate log p(x) of each datum, with the guide as proposal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never

import pyro
import torch
from torch import Tensor

from ..common.arguments import refuse_more
from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.rows import BLOCK_ROWS
from ..data.whole_set import open_posterior, rows_of_set
from ..execution.precision import Precision
from ..execution.recorded import Compile
from ..pairs.all_values import is_known
from ..pairs.checks import (
    check_guide_covers_prior,
    check_prior_covers_guide,
    check_support,
    explain_nonfinite,
    explaining_support,
)
from ..pairs.inspection import check_summed_within_data, inspect_pair
from ..pairs.kept_rows import rows_kept
from ..pairs.log_terms import Terms, draw
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import DRAWS_AT_ONCE, Scorer
from ..pairs.structure import Structure, check_drawn_apart
from .pareto_smoothing import KHAT_MIN_SAMPLES, summarize_weights
from .per_datum import PerDatum

PER_DATUM_FIELDS = (
    "log_px", "standard_error", "ess", "khat", "log_px_smoothed", "reconstruction", "kl"
)  # fmt: skip
"""The fields of :class:`Evidence` that hold one number for each datum."""


KHAT_FULL_SAMPLES = 2_155
"""Fewest draws with which the threshold of k̂ reaches its largest value, 0.7."""


@dataclass(frozen=True)
class Evidence(PerDatum):
    """Importance-sampled evidence of N data, in nats; every tensor is (N,), float64, on CPU."""

    log_px: Tensor
    """log p̂(x) = log 1/S Σₛ wₛ, with wₛ = p(x, zₛ) / q(zₛ|x) and zₛ ~ q(z|x)."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, by the delta method."""
    ess: Tensor
    """Effective sample size, (Σ wₛ)² / Σ wₛ², between 1 and S."""
    khat: Tensor
    """Pareto k̂ of the weights (Vehtari et al. 2024): bad above :attr:`khat_threshold`."""
    log_px_smoothed: Tensor
    """log of the mean of the Pareto-smoothed weights: the largest weights are replaced by quantiles
    of the generalized Pareto distribution fitted to them. One draw matters less than in ``log_px``,
    at the cost of a small bias (ibid.)."""
    reconstruction: Tensor
    """E_q[log p(x|z)], from the same draws."""
    kl: Tensor
    """E_q[log q(z|x) − log p(z)], from the same draws."""
    num_samples: int
    """S."""
    note: str = ""
    """Why the pair could not be recorded and ran plainly; empty otherwise."""
    set_rows: int = 0
    """How many rows the data set has, where it is one datum, as latent variables are global; else
    0. All numbers are then of the whole data set, and N = 1."""
    exact: bool = False
    """Whether nothing is drawn, as all latent sites are summed out: then ``log_px`` is log p(x)
    itself, all weights are equal, and ``standard_error`` is 0."""
    kl_by_site: Mapping[str, Tensor] = field(default_factory=dict)
    """E_q[log q(z|x) − log p(z)] of each latent site, (N,), where there are several: they sum to
    :attr:`kl`. Empty where there is one, or a KL belongs to no single site."""
    point_masses: tuple[str, ...] = ()
    """Discrete sites that the guide puts on one value each, a mass of 1. No other value is ever
    drawn, so ``log_px`` is no estimate of log p(x) but a lower bound, the ELBO where there are no
    other sites; ``khat`` and ``standard_error`` are ∞. See :func:`enumerated_evidence`."""

    labelled: Tensor | None = None
    """Whether all discrete sites y that the guide marks to be enumerated are known in a row, (N,)
    of bool; ``None`` where it marks none. ``log_px`` is log p(x, y) of these rows, as y is data
    too, and log p(x) of the others, the sum over y taken exactly within each draw."""

    @property
    def elbo(self) -> float:
        """Mean ELBO from the same draws: never above :attr:`mean`."""
        return (self.reconstruction - self.kl).mean().item()

    @property
    def khat_threshold(self) -> float:
        """min(1 − 1 / log₁₀ S, 0.7): above it, S draws are too few (Vehtari et al. 2024)."""
        return min(1 - 1 / math.log10(self.num_samples), 0.7)

    @property
    def sample_size_warning(self) -> str:
        """A sentence that says how S limits k̂, if S is below 2,155; empty otherwise."""
        if self.num_samples >= KHAT_FULL_SAMPLES:
            return ""
        if self.num_samples < KHAT_MIN_SAMPLES:
            return (
                f"S = {self.num_samples} is too small for Pareto k̂, which would show whether these "
                f"weights can be trusted: take num_samples=2200, or at least {KHAT_MIN_SAMPLES}."
            )
        return (
            f"With S = {self.num_samples:,} the threshold of k̂ is {self.khat_threshold:.2f}; with "
            "2,200 samples it is 0.70."
        )

    @property
    def khat_bad_fraction(self) -> float:
        """Fraction of the data whose k̂ is above :attr:`khat_threshold` or NaN."""
        return 1 - (self.khat <= self.khat_threshold).double().mean().item()

    def __repr__(self) -> str:
        bad = f"k̂ bad for {self.khat_bad_fraction:.1%}"
        of = f"N={len(self.log_px)}"
        if self.set_rows:
            of = f"one datum: the whole data set of {self.set_rows:,} rows"
        figure = f"mean={self.mean:.3f} ± {self.mean_standard_error:.3f} nats"
        if self.point_masses:
            figure = f"mean ≥ {self.mean:.3f} nats, a bound"
        if self.labelled is not None:
            count = int(self.labelled.sum())
            of += f": log p(x, y) of {count}, log p(x) of {len(self.log_px) - count}"
        return (
            f"Evidence({figure}, "
            f"elbo={self.elbo:.3f}, {of}, S={self.num_samples}, "
            f"{bad if self.num_samples >= KHAT_MIN_SAMPLES else 'no k̂'})"
        )


def log_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *more: Never,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    compile: Compile = "recorded",
    precision: Precision = "float32",
    show_progress: bool = False,
) -> Evidence:
    """Estimate log p(x) of each datum by importance sampling, with the guide as proposal.

    ::

        log p̂(x) = log 1/S Σₛ p(x|zₛ) p(zₛ) / q(zₛ|x),   zₛ ~ q(z|x)

    The estimate of p(x) is unbiased, so that of log p(x) is biased downwards, by about half its
    squared standard error; with S = 1 its expectation is the ELBO (Burda et al. 2016, arXiv
    1509.00519). The guide draws many samples for a few data at once; the model scores them
    ``chunk_size`` at a time, and weights are summed in float64. So memory does not grow with S,
    and up to rounding the result is the same for every chunk size.

    Sites that the model marks ``infer={"enumerate": "parallel"}``, and that the guide does not
    have, are summed out exactly: p(x|z) p(z) is then Σ_k p(x, z, k). If the guide draws nothing,
    because all sites are summed out, the result is log p(x) itself.

    Sites y that the guide draws and marks so are summed out too, within each draw of the others::

        log p̂(x) = log 1/S Σₛ Σ_y p(x, y, z_{sy}) / q(z_{sy}|x, y),   z_{sy} ~ q(z|x, y)

    Where a mask says that y is known, as ``obs_mask`` of ``pyro.sample`` does, y is part of the
    data, and the row's figure is log p(x, y): see :attr:`Evidence.labelled`. ``elbo`` remains that
    of the pair, with log q(y|x).

    Where the guide puts a discrete site on one value, a mass of 1, as
    :class:`latente.guides.FiniteScalar` does, no other value is ever drawn, and ``log_px`` is a
    lower bound whatever S is, not an estimate: k̂ and the standard error are then ∞.

    **Global latent variables.** Where a latent site stands outside the data plate, the data are not
    independent, and log p(x) of one of them is not defined. Then the whole data set is one datum,
    and all latent variables are its own: z are the global and the local ones, and the result has
    one element (N = 1), log p of all rows together in nats. :attr:`Evidence.set_rows` is then the
    number of rows, and k̂ that of the joint weights. The guide has to be of this very data set: of
    a ``Data``, the training part is used.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x, a tensor or array (N, *event_shape), or a tuple (x, *context); of what
            :func:`load_data` returns, the test part is used.
        more: none: the data of programs of several arguments are one tuple or dict.
        num_samples: S, at least 2; 2,200 or more for the full k̂ threshold of 0.7.
        chunk_size: how many samples of each datum the model scores at once. By default as many as
            stay in a CPU's cache and fit into a quarter of the free memory.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        compile: how model and guide are run, as in :func:`fit`: ``"recorded"`` (plain until a
            recording pays), ``"inductor"`` or ``"plain"``.
        precision: precision of the networks' products: ``"float32"``, ``"medium"`` or
            ``"bfloat16"``.
        show_progress: whether to show the data done.

    Raises:
        ValueError: if S < 2, the data cannot be used, the guide is a point, or the model observes a
            site outside the data plate and all latent sites lie inside, so that log p(x) of one
            datum is not defined.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.9))
    >>> x = torch.tensor([0.0, 1.0])
    >>> exact = dist.Normal(0.0, math.sqrt(2)).log_prob(x)
    >>> evidence = log_evidence(model, guide, x, num_samples=4000)
    >>> bool(((evidence.log_px - exact).abs() < 4 * evidence.standard_error).all())
    True
    """
    refuse_more("log_evidence", more)
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 to estimate an error, got {num_samples}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    num_rows = len(rows[0])
    device, dtype = placement(model, guide)
    step = rows_kept(guide) or min(num_rows, max(1, DRAWS_AT_ONCE // num_samples))
    rows_checked = rows_kept(guide) or BLOCK_ROWS
    # Allocated first: small tensors kept among large temporary ones would fragment the memory,
    # and its peak would grow with S.
    figures = {name: torch.empty(num_rows, dtype=torch.float64) for name in PER_DATUM_FIELDS}
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        for start in range(0, num_rows, rows_checked):
            block = place(tuple(part[start : start + rows_checked] for part in rows), device, dtype)
            check_support(model, guide, block, "data", start)
        first = place(tuple(part[:step] for part in rows), device, dtype)
        structure = inspect_local(model, guide, first)
        scorer = Scorer(model, guide, structure, compile=compile, precision=precision)
        known: list[Tensor] = []
        by_site: dict[str, list[Tensor]] = {name: [] for name in scorer.told_apart}
        set_seed(seed)
        with progress("evidence", num_rows, show=show_progress) as advance:
            for start in range(0, num_rows, step):
                args = place(tuple(part[start : start + step] for part in rows), device, dtype)
                with pyro.validation_enabled(False):
                    terms = list(scorer.terms(args, num_samples, chunk_size))
                for name, values in _summarize(terms, (model, guide, args)).items():
                    figures[name][start : start + step] = values
                if structure.all_values:
                    known.append(is_known(draw(guide, args, 1, structure), structure).cpu())
                for name, parts in by_site.items():
                    kls = [one.kl_by_site[name].double() for one in terms]
                    parts.append(torch.cat(kls).mean(0).cpu())
                advance(len(args[0]), f"{start + len(args[0])} of {num_rows} data")
    if structure.point_masses:
        # All weights are equal as no other value is ever drawn, not as the posterior is met.
        for name in ("khat", "standard_error"):
            figures[name].fill_(math.inf)
    return Evidence(
        **figures,
        num_samples=num_samples,
        note=scorer.note,
        set_rows=rows_of_set(model, rows),
        exact=bool(structure.enumerated) and not structure.local_latents,
        point_masses=structure.point_masses,
        kl_by_site={name: torch.cat(parts) for name, parts in by_site.items()},
        labelled=torch.cat(known) if known else None,
    )


def inspect_local(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    """Inspect a pair, and check that log p(x) and the posterior of one datum are defined.

    Raises:
        ValueError: if they are not, or the guide's support is smaller than the prior's.
    """
    with explaining_support(model, guide, args):
        structure = inspect_pair(model, guide, args)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: importance sampling "
            "needs a posterior with a density, and so do log p(x) and codes with their k̂; "
            "posterior_means(model, guide, x) gives the points"
        )
    check_drawn_apart(structure)
    if structure.observed_outside:
        raise ValueError(
            f"the observed site {structure.observed_outside[0]!r} stands outside "
            f"{structure.data_plate}: it belongs to no single datum, so log p(x) of one datum is "
            "not defined"
        )
    if structure.global_latents:
        raise ValueError(
            f"{structure.globals_stand_outside}: the data are not independent without it, so "
            "log p(x) of one datum is not defined"
        )
    check_summed_within_data(structure)
    check_guide_covers_prior(model, guide, args)
    check_prior_covers_guide(model, guide, args)
    return structure


def _summarize(chunks: list[Terms], pair: tuple[Any, ...]) -> dict[str, Tensor]:
    """Reduce the terms of S draws for some data to the per-datum fields, each (N,), float64."""
    # In float32 the rounding of a sum of S weights would hide what the error estimate measures.
    log_weight = torch.cat([terms.log_weight.double() for terms in chunks]).cpu()
    reconstruction = torch.cat([terms.log_likelihood.double() for terms in chunks]).cpu()
    kl = torch.cat([(t.log_posterior - t.log_prior).double() for t in chunks]).cpu()
    # Where log p(x|z) is −∞, so is the weight, and their difference says nothing of the KL.
    differs = reconstruction.isfinite() & (chunks[0].log_summed_weight is None)
    kl = torch.where(differs, reconstruction - log_weight, kl)
    try:
        figures = summarize_weights(log_weight)
    except ValueError as error:
        raise ValueError(f"{error}: {explain_nonfinite(*pair)}") from error
    return {
        **figures,
        "reconstruction": reconstruction.mean(0),
        "kl": kl.mean(0),
    }
