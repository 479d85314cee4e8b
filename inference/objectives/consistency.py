"""Hold an objective's loss against the ELBO that the log terms of a pair give."""

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

from ..pairs.log_terms import draw, trace_model
from ..pairs.minibatch_scaling import hand_scale, plate_scale
from ..pairs.programs import Program, attributes_kept
from ..pairs.sites import sample_sites
from ..pairs.structure import Structure
from .beta import Beta_ELBO
from .schedules import Constant

FEW_DRAWS, FEW_LIMIT = 16, 4.0
"""Draws of the first look, and how many standard errors of their mean make it suspicious."""

MANY_DRAWS, MANY_LIMIT = 1000, 6.0
"""Draws that a suspicion is held against, and how many standard errors are a contradiction."""

ROUNDING = 1_000
"""Rounding errors of this many ε, relative to the terms' absolute sum, are no contradiction."""


def check_against_elbo(
    objective: ELBO,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    *,
    seed: int = 0,
) -> None:
    """Refuse an objective that should be −ELBO of a pair, and is not, on a batch of data.

    ::

        D = loss + Σₙ [log p(xₙ|z) + log p(z) − log q(z|xₙ)] + log p(w) − log q(w)

    has mean 0 where the loss is −ELBO: z and w, the local and global latent variables, are drawn
    from the guide. The mean of 16 draws of D is held against 4 of its standard errors; only if it
    is beyond them, the mean of 1000 further draws against 6. Both must be exceeded. Were D normal,
    a right objective would be refused once in 10¹¹ calls, and the skewed D of one χ² variable
    stays below once in 10⁶. Global random state and the modules' attributes are left as they were.

    Only what :func:`claims_elbo` is held to it, and only a pair that does not weigh its own terms.

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
        # Data outside a support are refused elsewhere, in words of their own.
        pyro.validation_enabled(False),
    ):
        if _weighs_own_terms(model, guide, args, structure):
            return
        compare = partial(_compare, objective, model, guide, args, structure)
        if not compare(range(seed, seed + FEW_DRAWS)).is_beyond(FEW_LIMIT):
            return
        found = compare(range(seed + FEW_DRAWS, seed + FEW_DRAWS + MANY_DRAWS))
    if found.is_beyond(MANY_LIMIT):
        raise ValueError(
            f"{type(objective).__name__} gives this pair a loss of {found.loss:.6g} on a batch "
            f"whose ELBO is {found.elbo:.6g}: their sum should be 0, and is "
            f"{found.loss + found.elbo:.3g} ± {found.error:.2g}; use Trace_ELBO()"
        )


def claims_elbo(objective: ELBO) -> bool:
    """Whether an objective's loss is −ELBO in the mean: Pyro's that are, and ours at β = 1.

    >>> claims_elbo(Trace_ELBO()), claims_elbo(Beta_ELBO(4.0))
    (True, False)
    """
    if type(objective) is Beta_ELBO:
        return objective.beta.schedule == Constant(1.0) and not objective.free_bits
    return type(objective) in (Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO)


@dataclass(frozen=True)
class _Comparison:
    """Means over some draws, in nats."""

    loss: float
    elbo: float
    error: float
    """Standard error of loss + ELBO."""
    rounding: float
    """What rounding may come to."""

    def is_beyond(self, limit: float) -> bool:
        """Whether loss and ELBO differ by more than so many standard errors.

        What is not finite is met and explained by the fit itself.
        """
        return abs(self.loss + self.elbo) > limit * self.error + self.rounding


def _compare(
    objective: ELBO,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    seeds: range,
) -> _Comparison:
    """Loss and ELBO, one of each for each seed."""
    found = [_loss_and_elbo(objective, model, guide, args, structure, seed) for seed in seeds]
    loss, elbo, rounding = torch.tensor(found, dtype=torch.float64).unbind(1)
    error = (loss + elbo).std() / math.sqrt(len(seeds))
    return _Comparison(loss.mean().item(), elbo.mean().item(), error.item(), rounding.mean().item())


def _weighs_own_terms(
    model: Program, guide: Program, args: tuple[Any, ...], structure: Structure
) -> bool:
    """Whether the loss has terms that are none of the ELBO: scales, or factors in the guide."""
    draws = draw(guide, args, 1, structure)
    in_guide, in_model = (sample_sites(trace) for trace in (draws.trace, trace_model(model, draws)))
    scales = [hand_scale(site) for site in (*in_guide.values(), *in_model.values())]
    weighed = any(not torch.allclose(scale, torch.ones_like(scale)) for scale in scales)
    return weighed or any(site["is_observed"] for site in in_guide.values())


def _loss_and_elbo(
    objective: ELBO,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    seed: int,
) -> tuple[float, float, float]:
    """Loss, ELBO and the size of their rounding errors, by the same random numbers."""
    torch.manual_seed(seed)
    loss = float(objective.loss(model, guide, *args))  # pyright: ignore
    torch.manual_seed(seed)
    draws = draw(guide, args, 1, structure)
    log_p = _log_densities(trace_model(model, draws))
    log_q = _log_densities(draws.trace)
    terms = torch.cat([log_p, -log_q])
    absolute = terms.abs().sum().item()
    return loss, terms.double().sum().item(), ROUNDING * torch.finfo(terms.dtype).eps * absolute


def _log_densities(trace: Trace) -> Tensor:
    """Log densities of the sites of a trace, each with the scale of its plates."""
    found = [torch.zeros(0)]
    for site in sample_sites(trace).values():
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_prob = scale_and_mask(log_prob, plate_scale(site), site["mask"])
        found.append(log_prob.flatten())
    return torch.cat(found)
