"""Annealed importance sampling: log p(x) from below, and for simulated data also from above."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from .checks import check_least
from .data import held_out
from .evidence import inspect_local, weigh
from .latent import LatentSpace, latent_space
from .pairs import Program, evaluating, place, placement
from .progress import Advance, progress
from .simulation import simulate
from .terms import Structure

ROWS = 2_000
"""Chains times data that are run together."""

TARGET = 0.65
"""Acceptance rate to which step sizes are adapted (the optimum of Hamiltonian transitions)."""


@dataclass(frozen=True)
class Annealed:
    """Annealed importance sampling of N data by C chains each, in nats; float64, on CPU."""

    log_px: Tensor
    """log p̂(x) = log 1/C Σ w, (N,): a lower bound on average."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, by the delta method, (N,)."""
    ess: Tensor
    """Effective number of chains, (Σ w)² / Σ w², (N,)."""
    acceptance: Tensor
    """Share of the transitions that were accepted, (N,)."""
    log_weight: Tensor = field(repr=False)
    """log w, (C, N); of an upper bound, of weights whose mean is 1 / p(x)."""
    num_temperatures: int
    """T."""

    @property
    def mean(self) -> float:
        """Mean of ``log_px`` over the data: nats per datum."""
        return self.log_px.mean().item()

    @property
    def mean_standard_error(self) -> float:
        """Monte Carlo standard error of :attr:`mean` (the data taken as given)."""
        return (self.standard_error.square().sum().sqrt() / len(self.log_px)).item()


@dataclass(frozen=True)
class Sandwich:
    """log p(x) of simulated data between two bounds (bidirectional Monte Carlo), in nats."""

    lower: Annealed
    """Annealed from the start to the posterior: a lower bound on average."""
    upper: Annealed
    """From the posterior, of which the latent variables that made x are a draw, back to the start:
    ``log_px`` is an upper bound on average. Its standard errors are those of the chains, the draw
    that all of them begin at taken as given."""
    data: tuple[Tensor, ...] = field(repr=False)
    """The simulated x, and the contexts it was given."""

    @property
    def gap(self) -> float:
        """Mean of upper − lower: by how much the annealing can be off, on average."""
        return self.upper.mean - self.lower.mean


def annealed_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Program | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Annealed:
    """Log p(x) of each datum by annealed importance sampling (Neal 2001; Wu et al. 2017).

    Each of C chains goes from a draw of π₀(z) to the posterior, by Hamiltonian transitions that
    leave each f_t as it is::

        f_t(z) = π₀(z)^{1 − β_t} p(x, z)^{β_t},   0 = β₀ < β₁ < … < β_T = 1
        log w = Σ_t (β_t − β_{t−1}) (log p(x, z_{t−1}) − log π₀(z_{t−1}))

    E[w] = p(x) whatever T is, so log 1/C Σ w is biased downwards, the less so the more
    temperatures. Unlike importance sampling it does not need a good proposal: with π₀ the prior,
    the guide has no part in it. Step sizes, one for each temperature and datum, are adapted in a
    run of their own, and fixed in the one that counts: otherwise E[w] would not be p(x).

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``.
        num_temperatures: T. The cost is T · (1 + num_leapfrog) gradients of C · N log joints.
        num_chains: C, at least 2.
        num_leapfrog: steps of a Hamiltonian transition.
        start: a program whose law π₀ is: the guide, say, from which the way is shorter, but modes
            that it misses may stay missed. The model's prior, if not given.
        seed: of all draws.
        show_progress: show the steps done.

    Raises:
        ValueError: if a number is too small, a latent site is discrete, or log p(x) of one datum is
            not defined (see :func:`log_evidence`).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> x = torch.randn(3, 5)
    >>> annealed = annealed_evidence(model, guide, x, num_temperatures=100)
    >>> bool(((annealed.log_px - model.log_prob(x)).abs() < 0.5).all())
    True
    """
    _check(num_temperatures, num_chains, num_leapfrog)
    rows = held_out(data)
    settings = _Settings(num_temperatures, num_chains, num_leapfrog, start)
    block = max(1, ROWS // num_chains)
    total = 2 * num_temperatures * -(-len(rows[0]) // block)
    parts: list[Annealed] = []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure: Structure | None = None
        with progress("annealing", total, show=show_progress) as advance:
            for begin in range(0, len(rows[0]), block):
                part = tuple(part[begin : begin + block] for part in rows)
                args = place(part, *placement(model, guide))
                structure = structure or inspect_local(model, guide, args)
                path = _Path(latent_space(model, guide, args, structure), settings, advance)
                with pyro.validation_enabled(False):
                    parts.append(path.forward(path.explore()))
    return _join(parts)


def bidirectional_evidence(
    model: Program,
    guide: Program,
    like: Any,
    *,
    num_data: int = 16,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Program | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Sandwich:
    """Log p(x) of data drawn from the model, between a lower and an upper bound.

    Of x ~ p(x|z), z ~ p(z), the z that made it is one exact draw of p(z|x). Annealed from there to
    π₀, the weights are an unbiased estimate of 1 / p(x), so minus the logarithm of their mean is an
    upper bound on average (Grosse, Ghahramani and Adams 2015, arXiv 1511.02543). How far the
    two are apart says how far annealing with these settings can be trusted on this model, where the
    real data are like the model's own.

    Args:
        like: data whose shape, and contexts, the simulated ones take.
        num_data: how many are simulated.

    The other arguments, and what is raised, are those of :func:`annealed_evidence`; a ValueError
    also tells if the model observes more, or other things, than x.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2)
    >>> sandwich = bidirectional_evidence(model, guide, torch.zeros(1, 5), num_temperatures=100)
    >>> exact = model.log_prob(sandwich.data[0]).mean().item()
    >>> sandwich.lower.mean - 0.1 < exact < sandwich.upper.mean + 0.1
    True
    """
    _check(num_temperatures, num_chains, num_leapfrog)
    args, latents = simulate(model, guide, like, num_data, seed=seed)
    settings = _Settings(num_temperatures, num_chains, num_leapfrog, start)
    block = max(1, ROWS // num_chains)
    total = 3 * num_temperatures * -(-num_data // block)
    lower, upper = [], []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        structure = inspect_local(model, guide, args)
        drawn = latent_space(model, guide, args, structure).locate(latents)
        with progress("annealing both ways", total, show=show_progress) as advance:
            for begin in range(0, num_data, block):
                part = tuple(value[begin : begin + block] for value in args)
                path = _Path(latent_space(model, guide, part, structure), settings, advance)
                with pyro.validation_enabled(False):
                    schedule = path.explore()
                    lower.append(path.forward(schedule))
                    upper.append(path.backward(schedule, drawn[:, begin : begin + block]))
    return Sandwich(_join(lower), _join(upper), args)


@dataclass(frozen=True)
class _Settings:
    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: Program | None


@dataclass(frozen=True)
class _State:
    """Where chains are, and what the densities there are."""

    points: Tensor
    """u, (C, N, K)."""
    log_start: Tensor
    """log π₀(u), (C, N)."""
    log_ratio: Tensor
    """log p(x, u) − log π₀(u), (C, N)."""
    slope_start: Tensor
    slope_ratio: Tensor
    """Their gradients, (C, N, K)."""

    def energy(self, beta: float) -> Tensor:
        """−log f_β, (C, N)."""
        # 0 · ∞ at the start, where a draw of π₀ may have no density under the model.
        return -self.log_start - (beta * self.log_ratio if beta else 0.0)

    def slope(self, beta: float) -> Tensor:
        """The gradient of log f_β, (C, N, K)."""
        return self.slope_start + beta * self.slope_ratio

    def where(self, chosen: Tensor, other: "_State") -> "_State":
        """This state for the chains chosen, (C, N), and another for the rest."""
        return _State(
            *(
                torch.where(chosen if own.dim() == 2 else chosen[..., None], own, others)
                for own, others in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )


@dataclass(frozen=True)
class _Schedule:
    betas: list[float]
    """β₀ … β_T."""
    sizes: Tensor
    """Step sizes of transitions, (T + 1, N)."""

    @classmethod
    def even(cls, betas: Tensor, log_sizes: Tensor, spreads: Tensor) -> "_Schedule":
        """As many temperatures as were explored, an equal share of ∫ σ dβ apart."""
        width = max(1, len(betas) // 20)
        padded = nn.functional.pad(spreads[None, None], (width, width), mode="replicate")
        smooth = nn.functional.avg_pool1d(padded, 2 * width + 1, stride=1)[0, 0]
        # Nowhere nothing, so that temperatures stay apart where all chains agree.
        smooth = smooth + 1e-3 * smooth.mean() + 1e-12
        length = torch.cumulative_trapezoid(smooth, betas).numpy()
        length = np.concatenate([[0.0], length / length[-1]])
        chosen = np.interp(np.linspace(0, 1, len(betas)), length, betas.numpy())
        nearest = np.searchsorted(betas.numpy(), chosen).clip(0, len(betas) - 1)
        return cls(chosen.tolist(), log_sizes[torch.from_numpy(nearest)].exp())


def _spread(log_ratio: Tensor) -> float:
    """Standard deviation over the chains, a mean over the data."""
    finite = log_ratio.double().nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return finite.var(0).mean().sqrt().item()


class _Path:
    """The way between π₀ and the posterior, for one block of data."""

    def __init__(self, space: LatentSpace, settings: _Settings, advance: Advance):
        self.space, self.settings, self.advance = space, settings, advance

    def explore(self) -> "_Schedule":
        """Temperatures and step sizes, found by a run with a quarter of the chains.

        It takes as many temperatures, crowded at the start as the way from a prior to a posterior
        asks for. What log weights vary by in a step from β to β + dβ is σ(β) dβ, with σ(β) the
        standard deviation of log p(x, z) − log π₀(z) there: the temperatures are put where all
        steps have an equal share of ∫ σ dβ, so that their sum varies least (Gelman and Meng 1998).
        """
        num = self.settings.num_temperatures
        betas = torch.linspace(0, 1, num + 1, dtype=torch.float64) ** 4
        state = self._begin(max(2, self.settings.num_chains // 4))
        log_size = torch.full_like(state.points[0, :, 0], math.log(0.3))
        sizes, spreads = [log_size], [_spread(state.log_ratio)]
        for beta in betas[1:].tolist():
            state, accepted = self._move(state, beta, log_size.exp())
            log_size = log_size + 0.2 * (accepted.mean(0) - TARGET)
            sizes.append(log_size)
            spreads.append(_spread(state.log_ratio))
            self.advance(1, "finding temperatures and step sizes")
        return _Schedule.even(betas, torch.stack(sizes), torch.tensor(spreads))

    def forward(self, schedule: "_Schedule") -> Annealed:
        """From π₀ to the posterior: weights whose mean is p(x)."""
        return self._anneal(self._begin(self.settings.num_chains), schedule, 1)

    def backward(self, schedule: "_Schedule", drawn: Tensor) -> Annealed:
        """From draws of the posterior u (1, N, K) to π₀: weights whose mean is 1 / p(x)."""
        points = drawn.expand(self.settings.num_chains, -1, -1)
        return self._anneal(self._evaluate(points), schedule, -1)

    def _begin(self, num_chains: int) -> _State:
        program = self.settings.start or self.space.model
        return self._evaluate(self.space.draw(program, num_chains)[0])

    def _anneal(self, state: _State, schedule: "_Schedule", sign: int) -> Annealed:
        betas, last = schedule.betas, self.settings.num_temperatures
        order = range(1, last + 1) if sign > 0 else range(last - 1, -1, -1)
        log_weight = torch.zeros_like(state.log_start, dtype=torch.float64)
        accepted = torch.zeros_like(log_weight)
        for step in order:
            beta = betas[step]
            log_weight += (beta - betas[step - sign]) * state.log_ratio.double()
            if 0 < step < last:  # at both ends the weights are complete
                state, moved = self._move(state, beta, schedule.sizes[step])
                accepted += moved
            self.advance(1, f"temperature {step} of {last}")
        figures = weigh(log_weight.cpu())
        log_px = figures["log_px"] if sign > 0 else -figures["log_px"]
        return Annealed(
            log_px,
            figures["standard_error"],
            figures["ess"],
            (accepted.mean(0) / max(1, last - 1)).cpu(),
            log_weight.cpu(),
            last,
        )

    def _evaluate(self, points: Tensor) -> _State:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            log_likelihood, log_prior = self.space.log_joint(points)
            log_start, log_ratio = log_prior, log_likelihood
            if self.settings.start is not None:
                log_start = self.space.log_density(self.settings.start, points)
                log_ratio = log_likelihood + log_prior - log_start
            (slope_start,) = torch.autograd.grad(log_start.sum(), points, retain_graph=True)
            (slope_ratio,) = torch.autograd.grad(log_ratio.sum(), points)
        terms = (points, log_start, log_ratio, slope_start, slope_ratio)
        return _State(*(term.detach() for term in terms))

    def _move(self, state: _State, beta: float, size: Tensor) -> tuple[_State, Tensor]:
        """One Hamiltonian transition that leaves f_β as it is; and which chains it moved."""
        # Steps of one length would bring some dimensions back to where they came from.
        size = size[:, None] * torch.empty_like(state.log_start[..., None]).uniform_(0.8, 1.2)
        momentum = torch.randn_like(state.points)
        before = state.energy(beta) + 0.5 * momentum.square().sum(-1)
        new = state
        momentum = momentum + 0.5 * size * new.slope(beta)
        for step in range(self.settings.num_leapfrog):
            new = self._evaluate(new.points + size * momentum)
            half = 0.5 if step == self.settings.num_leapfrog - 1 else 1.0
            momentum = momentum + half * size * new.slope(beta)
        after = new.energy(beta) + 0.5 * momentum.square().sum(-1)
        # A chain that has run off, to NaN or infinity, is not moved.
        moved = torch.rand_like(before) < (before - after).exp().nan_to_num(0.0, posinf=1.0)
        return new.where(moved, state), moved.to(state.points.dtype)


def _join(parts: list[Annealed]) -> Annealed:
    """The data of several blocks as one."""
    names = ("log_px", "standard_error", "ess", "acceptance", "log_weight")
    joined = {name: torch.cat([vars(part)[name] for part in parts], dim=-1) for name in names}
    return Annealed(**joined, num_temperatures=parts[0].num_temperatures)


def _check(num_temperatures: int, num_chains: int, num_leapfrog: int) -> None:
    check_least(
        {
            "num_temperatures": (num_temperatures, 2),
            "num_chains": (num_chains, 2),
            "num_leapfrog": (num_leapfrog, 1),
        }
    )
