"""Check that an objective's loss is −ELBO, computed from the log terms of a pair."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.seeding import set_seed
from ..pairs.cached_flows import log_prob_of
from ..pairs.log_terms import draw, trace_model
from ..pairs.minibatch_scaling import hand_scale, plate_scale
from ..pairs.programs import Program, attributes_kept
from ..pairs.sites import is_deterministic, sample_sites
from ..pairs.structure import Structure
from .beta import Beta_ELBO
from .pyro_objectives import LossFunction

SAME_DRAWS = 4
"""Draws of which each must agree to rounding, so that no more are compared."""

FEW_DRAWS, FEW_LIMIT = 16, 4.0
"""Draws of the first check, and the limit in standard errors above which it is repeated."""

LEAST_DRAWS, SURE_LIMIT = 6, 1.0
"""Draws from which on a mean within so many standard errors ends the first check. A normal D whose
mean is 1 of its standard deviations is then found at 52.0 % of the seeds, of 52.3 % by all 16."""

MANY_DRAWS, MANY_LIMIT = 1000, 6.0
"""Draws of the second check, and the limit in standard errors above which it fails."""

ROUNDING_EPSILONS = 1_000
"""A difference of so many ε, times the sum of the absolute terms, is taken for rounding."""


def check_against_elbo(
    objective: ELBO | LossFunction,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    *,
    seed: int = 0,
) -> None:
    """Refuse an objective whose loss should be −ELBO of a pair, and is not, on a batch of data.

    ::

        D = loss + Σₙ [log p(xₙ|z) + log p(z) − log q(z|xₙ)] + log p(w) − log q(w)

    has mean 0 where the loss is −ELBO: z and w, the local and global latent variables, are drawn
    from the guide. Four draws of D that are all 0 but for rounding are enough. Otherwise the mean
    of 16 draws is compared with 4 of its standard errors, or of 6 or more, if it is within one; if
    it is larger, the mean of 1000 further draws is compared with 6. An objective is refused if both
    means are too large. If D is normal, a
    correct objective is refused once in 10¹¹ calls; if D is as skewed as one χ² variable, less than
    once in 10⁶. The global random state and the modules' attributes are left as they were.

    The check applies to objectives of which :func:`claims_elbo` is true, on pairs that do not
    weigh their own terms.

    Args:
        objective: as chosen for the pair.
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments.
        args: the batch.
        structure: the facts of the pair.
        seed: of the draws.

    Raises:
        ValueError: with both figures and the error of their difference.

    >>> import pyro, pyro.distributions as dist
    >>> from latente.inference.pairs.inspection import inspect_pair
    >>> def model(x):
    ...     w = pyro.sample("w", dist.Gamma(2.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    >>> def guide(x):  # w = exp(u), with the Jacobian in the log-density of the Delta
    ...     u = pyro.sample("u", dist.Normal(1.0, 0.5), infer={"is_auxiliary": True})
    ...     pyro.sample("w", dist.Delta(u.exp(), log_density=-u))
    >>> pair = model, guide, (torch.ones(5),)
    >>> check_against_elbo(Trace_ELBO(), *pair, inspect_pair(*pair))
    >>> check_against_elbo(TraceMeanField_ELBO(), *pair, inspect_pair(*pair))
    Traceback (most recent call last):
    ValueError: TraceMeanField_ELBO gives this pair a loss of ...
    """
    if not claims_elbo(objective) or structure.enumerated:
        return
    with (
        torch.no_grad(),
        attributes_kept(model, guide),
        torch.random.fork_rng(),
        # Data outside a support are refused elsewhere, with a better message.
        pyro.validation_enabled(False),
    ):
        if _weighs_own_terms(model, guide, args, structure):
            return
        draw_once = partial(_loss_and_elbo, objective, model, guide, args, structure)
        found = [draw_once(number) for number in range(seed, seed + SAME_DRAWS)]
        if all(abs(loss + elbo) <= rounding for loss, elbo, rounding in found):
            return
        for number in range(seed + SAME_DRAWS, seed + FEW_DRAWS):
            found.append(draw_once(number))
            if len(found) >= LEAST_DRAWS and not _compare(found).is_beyond(SURE_LIMIT):
                return
        if not _compare(found).is_beyond(FEW_LIMIT):
            return
        if not _agree(found[0], draw_once(seed)):
            return  # a pair with a state of its own is another one at each draw
        many = range(seed + FEW_DRAWS, seed + FEW_DRAWS + MANY_DRAWS)
        found = _compare([draw_once(number) for number in many])
    if found.is_beyond(MANY_LIMIT):
        raise ValueError(
            f"{type(objective).__name__} gives this pair a loss of {found.loss:.6g} on a batch "
            f"whose ELBO is {found.elbo:.6g}: their sum should be 0, and is "
            f"{found.loss + found.elbo:.3g} ± {found.error:.2g}; use Trace_ELBO()"
        )


def claims_elbo(objective: ELBO | LossFunction) -> bool:
    """Whether the mean of an objective's loss is −ELBO: for three of Pyro's, and ours at β = 1.

    >>> claims_elbo(Trace_ELBO()), claims_elbo(Beta_ELBO(4.0))
    (True, False)
    """
    if isinstance(objective, Beta_ELBO) and type(objective) is Beta_ELBO:
        return objective.is_elbo
    return type(objective) in (Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO)


@dataclass(frozen=True)
class _Comparison:
    """Means over some draws, in nats."""

    loss: float
    elbo: float
    error: float
    """Standard error of loss + ELBO."""
    rounding: float
    """The largest difference that rounding may cause."""

    def is_beyond(self, limit: float) -> bool:
        """Whether loss and ELBO differ by more than so many standard errors.

        False if one is not finite: the fit reports that itself.
        """
        return abs(self.loss + self.elbo) > limit * self.error + self.rounding


def _compare(found: list[tuple[float, float, float]]) -> _Comparison:
    """Means of loss, ELBO and rounding over draws."""
    loss, elbo, rounding = torch.tensor(found, dtype=torch.float64).unbind(1)
    error = (loss + elbo).std() / math.sqrt(len(found))
    return _Comparison(loss.mean().item(), elbo.mean().item(), error.item(), rounding.mean().item())


def _agree(first: tuple[float, float, float], again: tuple[float, float, float]) -> bool:
    """Whether the same random numbers gave the same loss and ELBO again, to rounding."""
    *values, rounding = zip(first, again, strict=True)
    return all(abs(before - after) <= max(rounding) for before, after in values)


def _weighs_own_terms(
    model: Program, guide: Program, args: tuple[Any, ...], structure: Structure
) -> bool:
    """Whether the loss has terms that are not in the ELBO: scales, or factors in the guide."""
    draws = draw(guide, args, 1, structure)
    in_guide, in_model = (sample_sites(trace) for trace in (draws.trace, trace_model(model, draws)))
    scales = [hand_scale(site) for site in (*in_guide.values(), *in_model.values())]
    weighed = any(not torch.allclose(scale, torch.ones_like(scale)) for scale in scales)
    factors = [s for s in in_guide.values() if s["is_observed"] and not is_deterministic(s)]
    return weighed or bool(factors)


def _loss_and_elbo(
    objective: ELBO | LossFunction,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    seed: int,
) -> tuple[float, float, float]:
    """Loss, ELBO and the size of their rounding errors, from the same random numbers."""
    set_seed(seed)
    loss = float(objective.loss(model, guide, *args))  # pyright: ignore
    set_seed(seed)
    draws = draw(guide, args, 1, structure)
    log_p = _log_densities(trace_model(model, draws))
    log_q = _log_densities(draws.trace)
    terms = torch.cat([log_p, -log_q])
    absolute = terms.abs().sum().item()
    return (
        loss,
        terms.double().sum().item(),
        ROUNDING_EPSILONS * torch.finfo(terms.dtype).eps * absolute,
    )


def _log_densities(trace: Trace) -> Tensor:
    """Log densities of the sites of a trace, each with the scale of its plates."""
    found = [torch.zeros(0)]
    for site in sample_sites(trace).values():
        log_prob = scale_and_mask(log_prob_of(site), plate_scale(site), site["mask"])
        found.append(log_prob.flatten())
    return torch.cat(found)
