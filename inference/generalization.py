"""How well a pair foretells data: those held out, or each from the others, where some is shared."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .checks import check_least, check_reach, check_support, name_rows
from .data import Data, held_out
from .evidence import log_evidence, weigh
from .pairs import Program, evaluating, place_all
from .progress import progress
from .rows import BLOCK, as_rows
from .terms import (
    Structure,
    Terms,
    base_law,
    draw,
    in_data_plate,
    inspect_pair,
    latent_sites,
    score,
    sum_sites,
)

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

TAIL_DRAWS = 25
"""With fewer draws of the shared variables no tail can be fitted to their weights."""


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
    >>> held_out = torch.tensor([0.0, 2.0])
    >>> exact = dist.Normal(0.5, 1.25**0.5).log_prob(held_out)
    >>> found = log_predictive_density(model, guide, held_out)
    >>> bool(((found.log_density - exact).abs() < 4 * found.standard_error).all())
    True
    """
    check_least({"num_samples": (num_samples, 2), "inner_samples": (inner_samples, 1)})
    rows = held_out(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure = _inspect(model, guide, args)
        if not structure.global_latents:
            draws = num_samples * inner_samples
            found = log_evidence(
                model, guide, rows, num_samples=draws, seed=seed, show_progress=show_progress
            )
            of_data = found.log_px, found.standard_error, found.ess, found.khat
            return PredictiveDensity(*of_data, found.mean_standard_error, draws)
        _check_held_out(guide, args)
        log_px, _, _ = _draw_densities(
            model, guide, args, structure, num_samples, inner_samples, show_progress
        )
    _check_possible(log_px.max(0).values)
    figures = weigh(log_px)
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


def psis_loo(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 1000,
    inner_samples: int = 20,
    seed: int = 0,
    show_progress: bool = False,
) -> "ELPDData":
    """Leave-one-out predictive density of a pair with shared variables w, without fitting again.

    ::

        elpd = Σₙ log p(xₙ|x₋ₙ),   p(xₙ|x₋ₙ) ≈ Σₛ rₙₛ p̂(xₙ|wₛ) / Σₛ rₙₛ,   wₛ ~ q(w)
        rₙₛ  = p(wₛ) Πₘ p̂(xₘ|wₛ) / (q(wₛ) p̂(xₙ|wₛ)),   Pareto-smoothed

    p̂(x|w) is that of :func:`log_predictive_density`: local latent variables are summed out by
    importance sampling, so the figure is of the marginal density, the one that says how well a
    *new* datum is foretold. As p̂ is unbiased, and its draws are apart for each datum, the estimate
    tends to the exact one as S grows, whatever L; but the noise of the N logarithms enters the
    weights, and L should grow with N. k̂ shows all of it: an influential datum, a q(w) too narrow,
    and too small an L (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544; for draws from an
    approximate posterior, Magnusson et al. 2019, arXiv 1904.10679).

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: the x (N, *event_shape), or (x, *context), that the guide was fitted to; the training
            part, of what :func:`load_data` returns.
        num_samples: S, draws of w, at least 25; 2,200 or more for the full k̂ threshold of 0.7.
        inner_samples: L, draws of z for each of them.
        seed: of the draws.
        show_progress: show the draws done.

    Returns:
        ArviZ's ``ELPDData``, with ``elpd``, ``se`` and ``p`` of the whole data set in nats, and
        for each datum, along ``datum``, ``elpd_i`` and ``pareto_k``. ArviZ warns where one of
        those is above ``good_k``.

    Raises:
        ValueError: if S < 25, L < 1, N < 2, the data cannot be used, nothing is shared by the data
            (leaving one out then changes nothing), the guide puts a site on a point, a site is
            summed out, the data are not independent given w, or the guide does not reach
            all that a prior does.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    >>> def guide(x):
    ...     pyro.sample("w", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))
    >>> x = torch.linspace(-1, 2, 10)
    >>> without = (x.sum() - x) / 10  # the exact posterior's mean without each; its variance, 1/10
    >>> exact = dist.Normal(without, 1.1**0.5).log_prob(x).sum()
    >>> bool(abs(psis_loo(model, guide, x).elpd - exact.item()) < 0.1)
    True
    """
    check_least({"num_samples": (num_samples, TAIL_DRAWS), "inner_samples": (inner_samples, 1)})
    rows = as_rows(data.rows("train") if isinstance(data, Data) else data, "data")
    if len(rows[0]) < 2:
        raise ValueError("there is one datum only: leaving one out needs two or more")
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure = _inspect(model, guide, args)
        if not structure.global_latents:
            raise ValueError(
                "nothing is latent outside the plate 'data', so leaving one datum out changes "
                "nothing for it: use log_evidence on held-out data"
            )
        _check_spread(guide, args)
        log_px, log_p, log_q = _draw_densities(
            model, guide, args, structure, num_samples, inner_samples, show_progress
        )
    return _loo(log_px, log_p + log_px.sum(1), log_q)


def _loo(log_px: Tensor, log_p: Tensor, log_q: Tensor) -> "ELPDData":
    """ArviZ's leave-one-out of log densities (S, N), and of log p and log q, (S,)."""
    # Slow to import.
    from arviz_base import from_dict
    from arviz_stats import loo_approximate_posterior  # pyright: ignore[reportPrivateImportUsage]

    _check_possible(log_px.sum(0))
    if not (log_p - log_q).isfinite().any() or (log_p - log_q).isnan().any():
        raise ValueError("the shared variables' densities are NaN, or zero at all draws")
    densities = {"log_likelihood": {"x": log_px.numpy()[None]}}
    tree = from_dict(densities, dims={"x": ["datum"]})
    return loo_approximate_posterior(tree, log_p.numpy(), log_q.numpy(), pointwise=True)


def _check_possible(log_px: Tensor) -> None:
    impossible = (~log_px.isfinite()).nonzero().flatten()
    if len(impossible):
        raise ValueError(
            "the shared variables' draws give no finite density to the data in "
            f"{name_rows(impossible.numpy())}"
        )


def shared_latents(trace: Trace) -> Trace:
    """The latent sites of a trace outside the data plate: what all data share."""
    shared = Trace()
    for name, site in latent_sites(trace).items():
        if not in_data_plate(site) and not site["infer"].get("was_observed"):
            shared.add_node(name, **site)
    return shared


def inspect_drawn(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    """The facts of a pair whose latent sites are all drawn.

    Raises:
        ValueError: as :func:`inspect_pair` does, and if a site is summed out.
    """
    structure = inspect_pair(model, guide, args)
    if structure.enumerated:
        raise ValueError(
            f"the latent site {structure.enumerated[0]!r} is enumerated, and the guide has no such "
            "site to draw it from: give the guide one (ExactPosterior, for a mixture)"
        )
    return structure


def _inspect(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    for start in range(0, len(args[0]), BLOCK):
        block = tuple(part[start : start + BLOCK] for part in args)
        check_support(model, guide, block, "data", start)
    head = tuple(part[:BLOCK] for part in args)
    check_reach(model, guide, head)
    structure = inspect_drawn(model, guide, head)
    if structure.points:
        raise ValueError(
            f"the guide puts all of {structure.points[0]!r} on one point: importance sampling "
            "needs a posterior with a density"
        )
    return structure


def _check_held_out(guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a guide that finds shared variables from the data that it is given."""
    shared = shared_latents(poutine.trace(guide).get_trace(*args))
    fewer = tuple(part[:1] for part in args)
    again = poutine.trace(poutine.replay(guide, trace=shared)).get_trace(*fewer)
    before, after = (_log_density(trace, args[0]) for trace in (shared, shared_latents(again)))
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        name = next(iter(latent_sites(shared)))
        raise ValueError(
            f"the guide finds its posterior of {name!r} from the data it is given, so held-out "
            "data would inform it: let it keep what it found in training"
        )


def _log_density(shared: Trace, like: Tensor) -> Tensor:
    return sum_sites(latent_sites(shared).values(), (1, len(like)), False, like)[1]


def _check_spread(guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a point for shared variables, which has no density to be corrected by."""
    sites = latent_sites(shared_latents(poutine.trace(guide).get_trace(*args)))
    # An autoguide of several sites draws one vector; the sites then follow from it as points.
    if any(site["infer"].get("is_auxiliary") for site in sites.values()):
        return
    for name, site in sites.items():
        if isinstance(base_law(site["fn"]), Delta):
            raise ValueError(
                f"the guide puts all of {name!r} on one point: leave-one-out needs a posterior "
                "with a density"
            )


def _draw_densities(
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
            given = poutine.replay(guide, trace=shared_latents(draws.trace))
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
