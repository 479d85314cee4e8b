"""Path of annealed importance sampling: temperatures, Hamiltonian transitions, step sizes."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..common.arguments import check_least
from ..common.progress import Advance
from ..execution.recorded import Recorded
from ..pairs.latent_space import LatentSpace, hold_idle
from ..pairs.programs import Program
from .pareto_smoothing import summarize_weights
from .per_datum import PerDatum

TARGET_ACCEPTANCE = 0.65
"""Acceptance rate that step sizes are adapted to; the optimum of Hamiltonian transitions."""


@dataclass(frozen=True)
class Annealed(PerDatum):
    """Annealed importance sampling of N data by C chains each, in nats; float64, on CPU."""

    log_px: Tensor
    """log p̂(x) = log 1/C Σ w, (N,): a lower bound on average."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, by the delta method, (N,)."""
    ess: Tensor
    """Effective number of chains, (Σ w)² / Σ w², (N,)."""
    acceptance: Tensor
    """Fraction of the transitions that were accepted, (N,)."""
    log_weight: Tensor = field(repr=False)
    """log w, (C, N). For an upper bound the weights have the mean 1 / p(x)."""
    num_temperatures: int
    """T."""
    set_rows: int = 0
    """Rows of the data set, where it is one datum as latent variables are global; else 0."""


@dataclass(frozen=True)
class AnnealingSettings:
    """Settings of an annealing path; see :func:`annealed_evidence`.

    Raises:
        ValueError: if a number is too small.
    """

    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: Program | None

    def __post_init__(self) -> None:
        check_least(
            {
                "num_temperatures": (self.num_temperatures, 2),
                "num_chains": (self.num_chains, 2),
                "num_leapfrog": (self.num_leapfrog, 1),
            }
        )


@dataclass(frozen=True)
class _State:
    """The points of all chains, and the log densities and gradients there."""

    points: Tensor
    """u, (C, N, K)."""
    log_start: Tensor
    """log π₀(u), (C, N)."""
    log_ratio: Tensor
    """log p(x, u) − log π₀(u), (C, N)."""
    grad_start: Tensor
    """Gradient of ``log_start``, (C, N, K)."""
    grad_ratio: Tensor
    """Gradient of ``log_ratio``, (C, N, K)."""

    def potential(self, beta: float) -> Tensor:
        """Potential energy −log f_β, (C, N)."""
        # At β = 0 the product could be 0 · ∞: a draw of π₀ may have no density under the model.
        return -self.log_start - (beta * self.log_ratio if beta else 0.0)

    def gradient(self, beta: float) -> Tensor:
        """Gradient of log f_β, (C, N, K)."""
        return self.grad_start + beta * self.grad_ratio

    def where(self, chosen: Tensor, other: "_State") -> "_State":
        """This state for the chosen chains, (C, N), and the other state for the rest."""
        return _State(
            *(
                torch.where(chosen if own.dim() == 2 else chosen[..., None], own, others)
                for own, others in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )


@dataclass(frozen=True)
class _TemperatureLadder:
    """Inverse temperatures, and the step sizes of the transitions at each of them."""

    betas: list[float]
    """β₀ … β_T."""
    step_sizes: Tensor
    """(T + 1, N)."""

    @classmethod
    def equally_spread(
        cls, betas: Tensor, log_sizes: Tensor, spreads: Tensor
    ) -> "_TemperatureLadder":
        """As many temperatures as were explored, placed an equal part of ∫ σ dβ apart."""
        width = max(1, len(betas) // 20)
        padded = nn.functional.pad(spreads[None, None], (width, width), mode="replicate")
        smooth = nn.functional.avg_pool1d(padded, 2 * width + 1, stride=1)[0, 0]
        # Never zero, so that temperatures stay apart where all chains agree.
        smooth = smooth + 1e-3 * smooth.mean() + 1e-12
        length = torch.cumulative_trapezoid(smooth, betas).numpy()
        length = np.concatenate([[0.0], length / length[-1]])
        chosen = np.interp(np.linspace(0, 1, len(betas)), length, betas.numpy())
        nearest = np.searchsorted(betas.numpy(), chosen).clip(0, len(betas) - 1)
        return cls(chosen.tolist(), log_sizes[torch.from_numpy(nearest)].exp())


def _spread(log_ratio: Tensor) -> float:
    """Standard deviation over the chains, averaged over the data as a variance."""
    finite = log_ratio.double().nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return finite.var(0).mean().sqrt().item()


class AnnealingPath:
    """The annealing path between π₀ and the posterior, for one block of data."""

    def __init__(self, space: LatentSpace, settings: AnnealingSettings, advance: Advance):
        self.space, self.settings, self.advance = space, settings, advance
        self._recorded = Recorded(self._terms)

    def adapt(self) -> "_TemperatureLadder":
        """Find temperatures and step sizes by a run with a quarter of the chains.

        The run uses as many temperatures as the path will have, denser near β = 0, where the path
        changes fastest. From β to β + dβ the log weights vary by σ(β) dβ, where σ(β) is the
        standard deviation of log p(x, z) − log π₀(z). The temperatures are placed so that all
        steps have an equal part of ∫ σ dβ: their sum then varies least (Gelman and Meng 1998).
        """
        num = self.settings.num_temperatures
        betas = torch.linspace(0, 1, num + 1, dtype=torch.float64) ** 4
        state = self._start_chains(max(2, self.settings.num_chains // 4))
        log_size = torch.full_like(state.points[0, :, 0], math.log(0.3))
        log_sizes, spreads = [log_size], [_spread(state.log_ratio)]
        for beta in betas[1:].tolist():
            state, accepted = self._transition(state, beta, log_size.exp())
            log_size = log_size + 0.2 * (accepted.mean(0) - TARGET_ACCEPTANCE)
            log_sizes.append(log_size)
            spreads.append(_spread(state.log_ratio))
            self.advance(1, "finding temperatures and step sizes")
        return _TemperatureLadder.equally_spread(
            betas, torch.stack(log_sizes), torch.tensor(spreads)
        )

    def forward(self, ladder: "_TemperatureLadder") -> Annealed:
        """Anneal from π₀ to the posterior: weights whose mean is p(x)."""
        return self._anneal(self._start_chains(self.settings.num_chains), ladder, 1)

    def backward(self, ladder: "_TemperatureLadder", drawn: Tensor) -> Annealed:
        """Anneal from posterior draws u (1, N, K) to π₀: weights whose mean is 1 / p(x)."""
        points = drawn.expand(self.settings.num_chains, -1, -1)
        return self._anneal(self._evaluate(points), ladder, -1)

    def particles(self, ladder: "_TemperatureLadder") -> tuple[Tensor, Tensor]:
        """Points u of chains annealed to the posterior (C, N, K), and their log weights (C, N)."""
        state, log_weight, _ = self._move(self._start_chains(self.settings.num_chains), ladder, 1)
        return state.points, log_weight

    def _start_chains(self, num_chains: int) -> _State:
        """Draws of π₀.

        Raises:
            ValueError: if it is a prior that has no draws.
        """
        if self.settings.start is None and self.space.flat:
            raise ValueError(
                f"the prior of {self.space.flat[0]!r} is masked, so it has no draws to anneal "
                "from: give start=guide"
            )
        program = self.settings.start or self.space.model
        return self._evaluate(self.space.near(self.space.draw(program, num_chains)[0]))

    def _anneal(self, state: _State, ladder: "_TemperatureLadder", sign: int) -> Annealed:
        last = self.settings.num_temperatures
        _, log_weight, accepted = self._move(state, ladder, sign)
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

    def _move(
        self, state: _State, ladder: "_TemperatureLadder", sign: int
    ) -> tuple[_State, Tensor, Tensor]:
        """The chains at the end of the path, their log weights, and how often each moved."""
        betas, last = ladder.betas, self.settings.num_temperatures
        order = range(1, last + 1) if sign > 0 else range(last - 1, -1, -1)
        log_weight = torch.zeros_like(state.log_start, dtype=torch.float64)
        accepted = torch.zeros_like(log_weight)
        for step in order:
            beta = betas[step]
            log_weight += (beta - betas[step - sign]) * state.log_ratio.double()
            if 0 < step < last:  # the weights need no transition at either end
                state, moved = self._transition(state, beta, ladder.step_sizes[step])
                accepted += moved
            self.advance(1, f"temperature {step} of {last}")
        return state, log_weight, accepted

    def _evaluate(self, points: Tensor) -> _State:
        terms = self._recorded(points)
        if self._recorded.stays:  # in memory that the next call writes to
            terms = [term.clone() for term in terms]
        return _State(*terms)

    def _terms(self, points: Tensor) -> tuple[Tensor, ...]:
        """The points, log π₀, log p(x, z) − log π₀, and the gradients of these."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            log_likelihood, log_prior = self.space.log_joint(points)
            rest = hold_idle(self.space, points)  # in both ends of the path, so in no weight
            log_prior = log_prior + rest
            log_start, log_ratio = log_prior, log_likelihood
            if self.settings.start is not None:
                log_start = self.space.log_density(self.settings.start, points) + rest
                log_ratio = log_likelihood + log_prior - log_start
            (grad_start,) = torch.autograd.grad(log_start.sum(), points, retain_graph=True)
            (grad_ratio,) = torch.autograd.grad(log_ratio.sum(), points)
        terms = (points, log_start, log_ratio, grad_start, grad_ratio)
        return tuple(term.detach() for term in terms)

    def _transition(self, state: _State, beta: float, size: Tensor) -> tuple[_State, Tensor]:
        """Make one Hamiltonian transition that leaves f_β invariant.

        Returns:
            the new state, and which chains moved, (C, N), as 0 or 1.
        """
        # Random lengths: with a fixed one, some dimensions would return to where they started.
        size = size[:, None] * torch.empty_like(state.log_start[..., None]).uniform_(0.8, 1.2)
        momentum = torch.randn_like(state.points)
        before = state.potential(beta) + 0.5 * momentum.square().sum(-1)
        new = state
        momentum = momentum + 0.5 * size * new.gradient(beta)
        for step in range(self.settings.num_leapfrog):
            new = self._evaluate(new.points + size * momentum)
            half = 0.5 if step == self.settings.num_leapfrog - 1 else 1.0
            momentum = momentum + half * size * new.gradient(beta)
        after = new.potential(beta) + 0.5 * momentum.square().sum(-1)
        # A chain that diverged to NaN or infinity is not moved.
        moved = torch.rand_like(before) < (before - after).exp().nan_to_num(0.0, posinf=1.0)
        return new.where(moved, state), moved.to(state.points.dtype)
