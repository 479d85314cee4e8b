"""The path of annealed importance sampling: temperatures, Hamiltonian transitions, step sizes."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..common.progress import Advance
from ..pairs.latent_space import LatentSpace
from ..pairs.programs import Program
from .pareto_smoothing import summarize_weights

TARGET_ACCEPTANCE = 0.65
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
class AnnealingSettings:
    """The numbers of a path: temperatures, chains of each datum, leapfrog steps."""

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


class AnnealingPath:
    """The way between π₀ and the posterior, for one block of data."""

    def __init__(self, space: LatentSpace, settings: AnnealingSettings, advance: Advance):
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
            log_size = log_size + 0.2 * (accepted.mean(0) - TARGET_ACCEPTANCE)
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
        figures = summarize_weights(log_weight.cpu())
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
