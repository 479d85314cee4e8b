"""Log predictive density of held-out data."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.arguments import check_least, name_rows
from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.rows import BLOCK_ROWS
from ..evidence.importance_sampling import log_evidence
from ..evidence.pareto_smoothing import summarize_weights
from ..pairs.checks import check_guide_covers_prior, check_prior_covers_guide, check_support
from ..pairs.inspection import inspect_drawn, is_vectorized
from ..pairs.kept_rows import check_rows, rows_kept
from ..pairs.log_terms import Draws, Terms, draw, read_terms, score, sum_sites, trace_model
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.sites import global_latent_sites, in_data_plate, latent_sites, sample_sites
from ..pairs.structure import Structure, check_drawn_apart


@dataclass(frozen=True)
class PredictiveDensity:
    """Log predictive density of N data, in nats; every tensor is (N,), float64, on CPU."""

    log_density: Tensor
    """log p̂(x | the fitted posterior)."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_density``, by the delta method."""
    ess: Tensor
    """Effective number of averaged draws, between 1 and S."""
    khat: Tensor
    """Pareto k̂ of the averaged densities: above 0.7 a few draws dominate, and the standard error
    is unreliable too."""
    mean_standard_error: float
    """Monte Carlo standard error of :attr:`mean`, given the data."""
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
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> PredictiveDensity:
    """Estimate the log predictive density of held-out data under the posterior of global latents w.

    ::

        log p̂(xₙ) = log 1/S Σₛ p̂(xₙ|wₛ),                        wₛ ~ q(w)
        p̂(xₙ|w)   = 1/L Σₗ p(xₙ|zₗ, w) p(zₗ|w) / q(zₗ|xₙ, w),   zₗ ~ q(z|xₙ, w)

    w are the latent variables outside the data plate, z those inside. p̂(xₙ) is unbiased for
    E_q(w)[p(xₙ|w)], for every L; its logarithm is biased downwards by about half the squared
    standard error. All data share the same draws of w, and ``mean_standard_error`` accounts for
    that. Without w there is nothing to average over: the density is then that of
    :func:`log_evidence`, with S · L draws. x is all that the model observes of a datum, values of
    conditioned sites included.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: held-out x (N, *event_shape), or (x, *context); of what :func:`load_data` returns,
            the test part is used.
        num_samples: S, draws of w, at least 2.
        inner_samples: L, draws of z for each draw of w.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the draws done.

    Raises:
        ValueError: if S < 2 or L < 1; if the data cannot be used; if the guide infers w from the
            data that it is given (held-out data would then inform it); if the guide puts a site of
            the data plate on a point, or its support is smaller than a prior's; if a site outside
            the data plate is summed out; or if the data are not independent given w.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    >>> def guide(x):
    ...     pyro.sample("w", dist.Normal(0.5, 0.5))
    >>> held_out = torch.tensor([0.0, 2.0])
    >>> exact = dist.Normal(0.5, 1.25**0.5).log_prob(held_out)
    >>> found = log_predictive_density(model, guide, held_out)
    >>> bool(((found.log_density - exact).abs() < 4 * found.standard_error).all())
    True
    """
    check_least({"num_samples": (num_samples, 2), "inner_samples": (inner_samples, 1)})
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        structure = inspect_with_density(model, guide, args)
        if not structure.global_latents:
            draws = num_samples * inner_samples
            found = log_evidence(
                model, guide, rows, num_samples=draws, seed=seed, show_progress=show_progress
            )
            per_datum = found.log_px, found.standard_error, found.ess, found.khat
            return PredictiveDensity(*per_datum, found.mean_standard_error, draws)
        _check_posterior_is_kept(guide, args)
        log_px, *_ = densities_at_global_draws(
            model, guide, args, structure, num_samples, inner_samples, show_progress
        )
    check_finite_density(log_px.max(0).values)
    figures = summarize_weights(log_px)
    # One draw of w changes all data at once, so errors are summed before they are squared.
    together = (log_px - figures["log_px"]).exp().mean(1)
    return PredictiveDensity(
        figures["log_px"],
        figures["standard_error"],
        figures["ess"],
        figures["khat"],
        (together.std() / math.sqrt(num_samples)).item(),
        num_samples,
    )


def check_finite_density(log_px: Tensor) -> None:
    """Refuse data whose density is not finite at the draws of the global latent variables."""
    nonfinite = (~log_px.isfinite()).nonzero().flatten()
    if len(nonfinite):
        raise ValueError(
            "the global latent variables' draws give no finite density to the data in "
            f"{name_rows(nonfinite.numpy())}"
        )


def inspect_with_density(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    """Inspect a pair, check its data, and refuse a guide without a density."""
    check_rows(guide, args)
    size = rows_kept(guide) or BLOCK_ROWS
    for start in range(0, len(args[0]), size):
        block = tuple(part[start : start + size] for part in args)
        check_support(model, guide, block, "data", start)
    head = tuple(part[: rows_kept(guide) or BLOCK_ROWS] for part in args)
    check_guide_covers_prior(model, guide, head)
    check_prior_covers_guide(model, guide, head)
    structure = inspect_drawn(model, guide, head)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: importance sampling "
            "needs a posterior with a density"
        )
    if structure.point_masses:
        raise ValueError(
            f"the guide puts a mass of 1 on one value of {structure.point_masses[0]!r}: no other "
            "value would ever be drawn, so importance sampling does not estimate this density"
        )
    return structure


def _check_posterior_is_kept(guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a guide that infers global latent variables from the data that it is given."""
    drawn = global_latent_sites(poutine.trace(guide).get_trace(*args))
    one_row = tuple(part[:1] for part in args)
    again = global_latent_sites(
        poutine.trace(poutine.replay(guide, trace=drawn)).get_trace(*one_row)
    )
    before, after = (_log_density(trace, args[0]) for trace in (drawn, again))
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        name = next(iter(latent_sites(drawn)))
        raise ValueError(
            f"the guide infers its posterior of {name!r} from the data it is given, so held-out "
            "data would inform it: let it keep the posterior it found in training"
        )


def _log_density(drawn: Trace, like: Tensor) -> Tensor:
    """log q of global latent sites, summed over the sites."""
    return sum_sites(latent_sites(drawn).values(), (1, len(like)), False, like)[1]


def densities_at_global_draws(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    structure: Structure,
    num_samples: int,
    inner_samples: int,
    show_progress: bool,
    held: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw w from the guide S times, and estimate log p̂(x|w) at each draw.

    Args:
        held: observed sites of the data plate whose values are no data.

    Returns:
        log p̂(x|w), (S, N), log p(w), (S,), log q(w), (S,), and the part of the first that is the
        density of the sites in ``held``, (S, N); float64, on CPU.

    Raises:
        ValueError: if a site outside the data plate, or one of ``held``, depends on latent
            variables inside the plate.
    """
    num_data = len(args[0])
    check_drawn_apart(structure)
    log_px, log_held = (torch.zeros(num_samples, num_data, dtype=torch.float64) for _ in range(2))
    log_p, log_q = (torch.empty(num_samples, dtype=torch.float64) for _ in range(2))
    plated, inner_structure = False, structure
    step = num_data if structure.keeps_rows else max(1, BLOCK_ROWS // inner_samples)
    with (
        pyro.validation_enabled(False),
        progress("global latent variables", num_samples, show=show_progress) as advance,
    ):
        for sample in range(num_samples):
            # Drawn on the data as they are: on repeated data a guide might give another q(w).
            draws = draw(guide, args, 1, structure)
            trace = trace_model(model, draws)
            terms = read_terms(trace, draws)
            log_held[sample] = _sum_held(trace, held, draws)
            log_p[sample] = terms.log_prior_global.item()
            log_q[sample] = terms.log_posterior_global.item()
            given = poutine.replay(guide, trace=global_latent_sites(draws.trace))
            if not any(map(in_data_plate, latent_sites(draws.trace).values())):
                log_px[sample] = terms.log_likelihood[0].double().cpu()
            else:
                if sample == 0:
                    others = draw(given, args, 1, structure)
                    again = trace_model(model, others)
                    _check_global_prior(read_terms(again, others), terms, structure)
                    _check_held(_sum_held(again, held, others), log_held[0], held)
                    plated = structure.keeps_rows and is_vectorized(
                        *_given_globals(model, guide, draws), args, structure.nesting,
                        structure.enumerated,
                    )  # fmt: skip
                    inner_structure = replace(structure, vectorized=plated)
                # Where each datum's posterior is kept, a run for each inner draw would be slow.
                own = _given_globals(model, guide, draws) if plated else (model, given)
                for start in range(0, num_data, step):
                    block = tuple(part[start : start + step] for part in args)
                    inner = score(own[0], draw(own[1], block, inner_samples, inner_structure))
                    log_weight = inner.log_weight.double().cpu()
                    log_mean = log_weight.logsumexp(0) - math.log(inner_samples)
                    log_px[sample, start : start + step] = log_mean
            advance(1, f"{sample + 1} of {num_samples} draws")
    return log_px, log_p, log_q, log_held


def _given_globals(model: Program, guide: Program, draws: Draws) -> tuple[Program, Program]:
    """A pair given the global latent variables of one draw: what it draws is local."""
    values = {
        name: site["value"] for name, site in latent_sites(global_latent_sites(draws.trace)).items()
    }
    return poutine.condition(model, data=values), poutine.condition(guide, data=values)


def _sum_held(trace: Trace, held: tuple[str, ...], draws: Draws) -> Tensor:
    """The log density of some sites of each datum, (N,), at one draw."""
    sites = [site for name, site in sample_sites(trace).items() if name in held]
    shape = 1, draws.num_data
    return sum_sites(sites, shape, draws.plated, draws.log_posterior)[0][0].double().cpu()


def _check_held(again: Tensor, before: Tensor, held: tuple[str, ...]) -> None:
    """Refuse held sites that depend on local latent variables: their density is not known alone."""
    if not torch.allclose(again, before, rtol=1e-5, atol=1e-5):
        raise ValueError(
            f"the density of {' and '.join(map(repr, held))}, held at a value, depends on latent "
            "variables of its datum, so that of x alone is not known: give the value to the model "
            "as an argument, to be data like x"
        )


def _check_global_prior(again: Terms, terms: Terms, structure: Structure) -> None:
    """Refuse global sites that depend on local ones: two draws of these give other densities."""
    if not torch.allclose(again.log_prior_global, terms.log_prior_global, rtol=1e-5, atol=1e-5):
        name = (*structure.observed_outside, *structure.global_sites)[0]
        raise ValueError(
            f"the site {name!r} outside {structure.data_plate} depends on latent variables inside "
            "it, so the data are not independent given the global latent variables"
        )
