"""What an encoder loses against posteriors that are fitted to each datum by itself."""

import math
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor

from ..common.arguments import check_least
from ..common.progress import Advance, progress
from ..data.datasets import evaluation_rows
from ..evidence.importance_sampling import inspect_local
from ..evidence.pareto_smoothing import summarize_weights
from ..pairs.latent_space import latent_space
from ..pairs.log_terms import draw, score, sum_sites, trace_model
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import DRAWS_AT_ONCE, Scorer
from ..pairs.sites import latent_sites
from ..pairs.structure import Structure
from .local_posteriors import LocalPosterior, check_flat, full_rank, own_family

KHAT_GOOD = 0.7
"""Pareto k̂ up to which the error of an estimate can be trusted."""


@dataclass(frozen=True)
class InferenceGap:
    """log p(x) − ELBO of N data in two parts, in nats; every tensor is (N,), float64, on CPU."""

    log_px: Tensor
    """log p(x) by importance sampling; the proposal is, of encoder and local posteriors, the
    one with the least error whose k̂ is good."""
    log_px_error: Tensor
    """Its Monte Carlo standard error."""
    khat: Tensor
    """Pareto k̂ of its weights."""
    elbo: Tensor
    """The encoder's ELBO."""
    elbo_local: Tensor
    """The best ELBO found in the guide's own family; NaN where the family cannot be refined."""
    elbo_full_rank: Tensor
    """The best found among full-rank normals of the unconstrained latent variables."""
    elbo_error: Tensor
    """Monte Carlo standard error of ``elbo``; ``elbo_local``'s is about the same."""
    local: LocalPosterior | None = field(repr=False)
    """The posteriors of ``elbo_local``, a guide for these data."""
    full_rank: LocalPosterior = field(repr=False)
    """The posteriors of ``elbo_full_rank``, a guide for these data: nearest to the posterior in z.

    What climbs the ELBO is fined for draws outside the posterior, and hardly for a tail left out,
    so as proposals local posteriors can have a worse k̂ than the encoder, with more effective draws.
    """

    def __repr__(self) -> str:
        return (
            f"InferenceGap(total={self.total.mean():.3f} nats, approximation="
            f"{self.approximation.mean():.3f}, amortization={self.amortization.mean():.3f}, "
            f"N={len(self.elbo)})"
        )

    @property
    def approximation(self) -> Tensor:
        """log p(x) − the best ELBO of the family: what the family cannot do."""
        return self.log_px - self.elbo_local

    @property
    def amortization(self) -> Tensor:
        """The best ELBO of the family − the encoder's: what the encoder does not do."""
        return self.elbo_local - self.elbo

    @property
    def total(self) -> Tensor:
        """log p(x) − ELBO."""
        return self.log_px - self.elbo


def inference_gap(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_steps: int = 300,
    num_draws: int = 8,
    learning_rate: float = 0.05,
    num_samples: int = 1000,
    seed: int = 0,
    show_progress: bool = False,
) -> InferenceGap:
    """Split log p(x) − ELBO of each datum (Cremer, Li and Duvenaud 2018, arXiv 1801.03558).

    ::

        log p(x) − ELBO(q) = [log p(x) − max_{q′ in family} ELBO(q′)] + [max ELBO(q′) − ELBO(q)]
                           =   approximation gap                      +  amortization gap

    The model held fixed, each datum gets parameters of its own, found by Adam from where the guide
    puts it: once in the guide's own family, and from there as a full-rank normal of the
    unconstrained latent variables. The family of a guide with methods ``features`` and ``family``,
    as ours, is that of all features; of any other guide, that of its distributions' parameters. A
    family cannot be refined where a distribution has none that PyTorch knows of (a flow), or one
    that depends on other draws: then the two parts are NaN, and the total is known still.

    Args:
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``. Cost grows
            with N: some hundred data say enough.
        num_steps: gradient steps; the rate falls to zero over them.
        num_draws: draws of each posterior in a step.
        learning_rate: Adam's, at first.
        num_samples: draws by which the ELBOs and log p(x) are then measured.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, a latent site is discrete, or inside a plate of its
            own, or log p(x) of one datum is not defined (see :func:`log_evidence`).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.inference import log_evidence
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> x = torch.randn(3, 5)
    >>> gap = inference_gap(model, guide, x)
    >>> bool(((gap.log_px - model.log_prob(x)).abs() < 0.01).all())
    True
    >>> evidence = log_evidence(model, gap.full_rank, x)  # the local posteriors, as a guide
    """
    check_least(
        {
            "num_steps": (num_steps, 1),
            "num_draws": (num_draws, 1),
            "num_samples": (num_samples, 2),
        }
    )
    rows = evaluation_rows(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        structure = inspect_local(model, guide, args)
        fitting = _Fitting(model, args, structure, num_steps, num_draws, learning_rate)
        with progress("local posteriors", 2 * num_steps, show=show_progress) as advance:
            space = latent_space(model, guide, args, structure)
            check_flat(space)
            encoder = _measure(model, guide, args, structure, num_samples)
            local = own = own_family(guide, args)
            if own is not None:
                local = fitting.best(own, advance)
            wide = fitting.best(full_rank(space, local or guide, num_samples), advance)
        measured = _measure(model, local, args, structure, num_samples) if local else None
        richest = _measure(model, wide, args, structure, num_samples)
    unknown = torch.full_like(encoder["elbo"], torch.nan)
    trusted = _most_trusted([richest, encoder, *([measured] if measured else [])])
    return InferenceGap(
        log_px=trusted["log_px"],
        log_px_error=trusted["standard_error"],
        khat=trusted["khat"],
        elbo=encoder["elbo"],
        elbo_local=measured["elbo"] if measured else unknown,
        elbo_full_rank=richest["elbo"],
        elbo_error=encoder["error"],
        local=local,
        full_rank=wide,
    )


@dataclass(frozen=True)
class _Fitting:
    """How parameters of each datum's own are found."""

    model: Program
    args: tuple[Tensor, ...]
    structure: Structure
    num_steps: int
    num_draws: int
    learning_rate: float

    def best(self, start: LocalPosterior, advance: Advance) -> LocalPosterior:
        """The posterior whose parameters make each datum's ELBO largest, from a start."""
        leaves = [value.detach().clone().requires_grad_() for value in start.parameters]
        # Adam's step of one parameter knows nothing of others': each datum goes its own way.
        optimizer = torch.optim.Adam(leaves, self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps)
        for step in range(self.num_steps):
            with torch.enable_grad():
                bound = self._bound(start, leaves)
                # A datum whose draws have run off keeps still, and does not stop the others.
                loss = -bound[bound.isfinite()].sum()
                # Not backward(): the pair's own parameters are to get no gradient.
                slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
            for leaf, slope in zip(leaves, slopes, strict=True):
                leaf.grad = None if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)
            optimizer.step()
            schedule.step()
            advance(1, f"step {step + 1} of {self.num_steps}")
        found = [leaf.detach() for leaf in leaves]
        return LocalPosterior(self.args, found, start.sampler)

    def _bound(self, start: LocalPosterior, leaves: list[Tensor]) -> Tensor:
        """log p(x, z) − log q(z), with no gradient but through z: quiet where q is the truth.

        Source: Roeder, Wu and Duvenaud 2017 (arXiv 1703.09194).
        """
        draws = draw(start.with_parameters(leaves), self.args, self.num_draws, self.structure)
        still = start.with_parameters([leaf.detach() for leaf in leaves])
        sites = latent_sites(trace_model(still, draws)).values()
        shape = draws.num_samples, draws.num_data
        log_posterior, _ = sum_sites(sites, shape, draws.plated, draws.log_posterior)
        terms = score(self.model, draws)
        return (terms.log_likelihood + terms.log_prior - log_posterior).mean(0)


def _measure(
    model: Program, guide: Program, args: tuple[Tensor, ...], structure: Structure, num_samples: int
) -> dict[str, Tensor]:
    """Evidence and ELBO of each datum by S draws, with their errors, each (N,)."""
    blocks, scorer = [], Scorer(model, guide, structure, compile="plain")
    step = max(1, DRAWS_AT_ONCE // num_samples)
    for begin in range(0, len(args[0]), step):
        block = tuple(value[begin : begin + step] for value in args)
        terms = scorer.terms(block, num_samples)
        log_weight = torch.cat([part.log_weight.double() for part in terms]).cpu()
        error = log_weight.std(0) / math.sqrt(num_samples)
        blocks.append({**summarize_weights(log_weight), "elbo": log_weight.mean(0), "error": error})
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _most_trusted(measured: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each datum, the figures of the proposal whose error is least, among those of good k̂."""
    scores = []
    for one in measured:
        khat = one["khat"].nan_to_num(math.inf, math.inf, -math.inf)
        # An error that k̂ does not vouch for may be far too small: then k̂ itself decides.
        scores.append(torch.where(khat <= KHAT_GOOD, one["standard_error"], 1e6 * (1 + khat.abs())))
    best = torch.stack(scores).argmin(0, keepdim=True)
    return {
        name: torch.stack([one[name] for one in measured]).gather(0, best)[0]
        for name in measured[0]
    }
