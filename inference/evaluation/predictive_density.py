"""The log predictive density of held-out data."""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.arguments import check_least, name_rows
from ..common.progress import progress
from ..data.datasets import evaluation_rows
from ..data.rows import BLOCK
from ..evidence.importance_sampling import log_evidence
from ..evidence.pareto_smoothing import summarize_weights
from ..pairs.checks import check_guide_covers_prior, check_support
from ..pairs.inspection import inspect_drawn
from ..pairs.log_terms import Terms, draw, score, sum_sites
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.sites import global_latent_sites, in_data_plate, latent_sites
from ..pairs.structure import Structure


@dataclass(frozen=True)
class PredictiveDensity:
    """Log predictive density of N data, in nats; every tensor is (N,), float64, on CPU."""

    log_density: Tensor
    """log p̂(x | the fitted posterior)."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_density``, by the delta method."""
    ess: Tensor
    """Effective number of the draws that the average rests on, between 1 and S."""
    khat: Tensor
    """Pareto k̂ of what is averaged: above 0.7 a few draws decide, and the error is not to be
    trusted either."""
    mean_standard_error: float
    """Monte Carlo standard error of :attr:`mean` (the data taken as given)."""
    num_samples: int
    """S."""

    @property
    def mean(self) -> float:
        """Mean of ``log_density`` over the data: nats per datum."""
        return self.log_density.mean().item()

    def __repr__(self) -> str:
        return (
            f"PredictiveDensity(mean={self.mean:.3f} ± {self.mean_standard_error:.3f} nats, "
            f"N={len(self.log_density)}, S={self.num_samples})"
        )


def log_predictive_density(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 500,
    inner_samples: int = 20,
    seed: int = 0,
    show_progress: bool = False,
) -> PredictiveDensity:
    """Log predictive density of held-out data, under the fitted posterior of shared variables w.

    ::

        log p̂(xₙ) = log 1/S Σₛ p̂(xₙ|wₛ),                        wₛ ~ q(w)
        p̂(xₙ|w)   = 1/L Σₗ p(xₙ|zₗ, w) p(zₗ|w) / q(zₗ|xₙ, w),   zₗ ~ q(z|xₙ, w)

    w are the latent variables outside the data plate, z those inside. p̂(xₙ) is unbiased for
    E_q(w)[p(xₙ|w)], whatever L; its logarithm is too low by about half the squared standard error.
    All data are given the same draws of w, which ``mean_standard_error`` accounts for. A pair
    without w has no posterior to average over: its density is that of :func:`log_evidence`, with
    S · L draws.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: held-out x (N, *event_shape), or (x, *context); the test part, of what
            :func:`load_data` returns.
        num_samples: S, draws of w, at least 2.
        inner_samples: L, draws of z for each of them.
        seed: of the draws.
        show_progress: show the draws done.

    Raises:
        ValueError: if S < 2 or L < 1, the data cannot be used, the guide finds w from the data
            that it is given (held-out data would tell it), the guide puts a site of the data plate
            on a point or does not reach all that a prior does, a site is summed out, or the data
            are not independent given w.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    >>> def guide(x):
    ...     pyro.sample("w", dist.Normal(0.5, 0.5))
    >>> evaluation_rows = torch.tensor([0.0, 2.0])
    >>> exact = dist.Normal(0.5, 1.25**0.5).log_prob(evaluation_rows)
    >>> found = log_predictive_density(model, guide, evaluation_rows)
    >>> bool(((found.log_density - exact).abs() < 4 * found.standard_error).all())
    True
    """
    check_least({"num_samples": (num_samples, 2), "inner_samples": (inner_samples, 1)})
    rows = evaluation_rows(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure = inspect_with_density(model, guide, args)
        if not structure.global_latents:
            draws = num_samples * inner_samples
            found = log_evidence(
                model, guide, rows, num_samples=draws, seed=seed, show_progress=show_progress
            )
            of_data = found.log_px, found.standard_error, found.ess, found.khat
            return PredictiveDensity(*of_data, found.mean_standard_error, draws)
        _check_held_out(guide, args)
        log_px, _, _ = draw_densities(
            model, guide, args, structure, num_samples, inner_samples, show_progress
        )
    check_possible(log_px.max(0).values)
    figures = summarize_weights(log_px)
    # One draw of w moves all data together, so errors are added up before they are squared.
    together = (log_px - figures["log_px"]).exp().mean(1)
    return PredictiveDensity(
        figures["log_px"],
        figures["standard_error"],
        figures["ess"],
        figures["khat"],
        (together.std() / math.sqrt(num_samples)).item(),
        num_samples,
    )


def check_possible(log_px: Tensor) -> None:
    """Refuse data to which the draws of the global latent variables give no finite density."""
    impossible = (~log_px.isfinite()).nonzero().flatten()
    if len(impossible):
        raise ValueError(
            "the shared variables' draws give no finite density to the data in "
            f"{name_rows(impossible.numpy())}"
        )


def inspect_with_density(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    """Check a pair and its data; refuse a guide that has no density."""
    for start in range(0, len(args[0]), BLOCK):
        block = tuple(part[start : start + BLOCK] for part in args)
        check_support(model, guide, block, "data", start)
    head = tuple(part[:BLOCK] for part in args)
    check_guide_covers_prior(model, guide, head)
    structure = inspect_drawn(model, guide, head)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: importance sampling "
            "needs a posterior with a density"
        )
    return structure


def _check_held_out(guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a guide that finds shared variables from the data that it is given."""
    shared = global_latent_sites(poutine.trace(guide).get_trace(*args))
    fewer = tuple(part[:1] for part in args)
    again = poutine.trace(poutine.replay(guide, trace=shared)).get_trace(*fewer)
    before, after = (_log_density(trace, args[0]) for trace in (shared, global_latent_sites(again)))
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        name = next(iter(latent_sites(shared)))
        raise ValueError(
            f"the guide finds its posterior of {name!r} from the data it is given, so held-out "
            "data would inform it: let it keep what it found in training"
        )


def _log_density(shared: Trace, like: Tensor) -> Tensor:
    return sum_sites(latent_sites(shared).values(), (1, len(like)), False, like)[1]


def draw_densities(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    structure: Structure,
    num_samples: int,
    inner_samples: int,
    show_progress: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """log p̂(x|w) (S, N) at draws of w from the guide, log p(w) and log q(w), (S,); float64, CPU."""
    num_data = len(args[0])
    log_px = torch.empty(num_samples, num_data, dtype=torch.float64)
    log_p, log_q = (torch.empty(num_samples, dtype=torch.float64) for _ in range(2))
    step = max(1, BLOCK // inner_samples)
    with (
        pyro.validation_enabled(False),
        progress("shared variables", num_samples, show=show_progress) as advance,
    ):
        for sample in range(num_samples):
            # Once by itself: on repeated data a guide might find another posterior of w.
            draws = draw(guide, args, 1, structure)
            terms = score(model, draws)
            log_p[sample] = terms.log_prior_global.item()
            log_q[sample] = terms.log_posterior_global.item()
            given = poutine.replay(guide, trace=global_latent_sites(draws.trace))
            if not any(map(in_data_plate, latent_sites(draws.trace).values())):
                log_px[sample] = terms.log_likelihood[0].double().cpu()
            else:
                if sample == 0:
                    _check_apart(score(model, draw(given, args, 1, structure)), terms, structure)
                for start in range(0, num_data, step):
                    block = tuple(part[start : start + step] for part in args)
                    inner = score(model, draw(given, block, inner_samples, structure))
                    log_weight = inner.log_weight.double().cpu()
                    log_mean = log_weight.logsumexp(0) - math.log(inner_samples)
                    log_px[sample, start : start + step] = log_mean
            advance(1, f"{sample + 1} of {num_samples} draws")
    return log_px, log_p, log_q


def _check_apart(again: Terms, terms: Terms, structure: Structure) -> None:
    """Refuse sites outside the data plate that follow from sites inside, of which both differ."""
    if not torch.allclose(again.log_prior_global, terms.log_prior_global, rtol=1e-5, atol=1e-5):
        name = (*structure.observed_outside, *structure.global_latents)[0]
        raise ValueError(
            f"the site {name!r} outside the plate 'data' depends on latent variables inside it, so "
            "the data are not independent given what they share"
        )
