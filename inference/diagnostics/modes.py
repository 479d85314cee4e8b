"""Posteriors with several modes: where chains that started apart stay, and who else goes there."""

from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

from ..common.progress import Advance
from ..evidence.annealing_path import AnnealingPath, AnnealingSettings
from ..pairs.coordinates import cut_opposite
from ..pairs.latent_space import LatentSpace

PARTICLES = 128
"""Annealed chains of each datum, by which modes are found and weighed."""


NUM_LEAPFROG = 5
"""Leapfrog steps of a Hamiltonian transition of theirs."""


PLAUSIBLE_SHARE = 0.1
"""Share of an equal weight that a particle must have for a Markov chain to start there."""


CENTRAL = 0.01, 0.99
"""Quantiles of a chain between which it stays."""


@dataclass(frozen=True)
class Particles:
    """Draws of the posteriors of M data by annealing from the prior, with weights."""

    points: Tensor
    """u, (P, M, K)."""
    weight: Tensor
    """Of each datum's particles, with the sum 1: (P, M)."""

    @property
    def likely(self) -> Tensor:
        """As many points, drawn by weight: the particles of which each stands for 1/P."""
        chosen = self.weight.T.multinomial(len(self.points), replacement=True).T
        return self.points.gather(0, chosen[..., None].expand_as(self.points))


def annealed_particles(
    space: LatentSpace, num_temperatures: int, advance: Advance
) -> Particles | None:
    """Anneal particles from the prior to the posteriors; ``None`` where the prior has no draws."""
    if num_temperatures < 2 or space.flat:
        return None
    settings = AnnealingSettings(num_temperatures, PARTICLES, NUM_LEAPFROG, None)
    path = AnnealingPath(space, settings, advance)
    points, log_weight = path.particles(path.adapt())
    log_weight = log_weight.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    if not (log_weight.isfinite().any(0).all() and points.isfinite().all()):
        return None
    return Particles(points, log_weight.softmax(0).to(points))


def start_apart(starts: Tensor, particles: Particles | None, circular: Tensor) -> Tensor:
    """Move every second of the starting points (C, M, K) to a particle far from those before it.

    Guide's draws alone would leave a mode that the guide misses unseen.
    """
    if particles is None:
        return starts
    starts = starts.clone()
    places = particles.points
    scale = places.std(0) + 1e-12
    plausible = particles.weight * len(places) >= PLAUSIBLE_SHARE
    rows = torch.arange(starts.shape[1])
    for chain in range(1, len(starts), 2):
        apart = places - starts[:chain, None]  # (chains before, particles, M, K)
        apart = torch.where(circular, cut_opposite(apart, torch.zeros_like(apart)), apart)
        nearest = (apart / scale).square().sum(-1).amin(0)
        chosen = torch.where(plausible, nearest, -1.0).argmax(0)
        starts[chain] = places[chosen, rows]
    return starts


@dataclass(frozen=True)
class Modes:
    """Coordinates in which chains that started apart stay in different modes.

    A mode is where one chain stays; a draw belongs to the chain whose mean is nearest, in standard
    deviations of that chain. Tensors are on CPU.
    """

    apart: Tensor
    """Whether the central 98 % of two chains' draws do not overlap: (M, K)."""
    guide_share: Tensor
    """Share of the guide's draws in the mode of each chain, (C, M, K)."""
    annealed_share: Tensor
    """The same of the annealed particles; NaN where there are none."""
    error: Tensor
    """The largest standard error of the particles' shares, (M,); NaN where there are none."""

    def missed(self, *, tolerance: float = 0.1, level: float = 0.95) -> Tensor:
        """Where guide and particles differ by more than ``tolerance`` in the share of a mode.

        That is beyond noise: for an exact guide, the probability that any coordinate is marked is
        at most 1 − ``level`` (Bonferroni).

        Returns:
            Booleans (M, K).
        """
        quantile = float(norm.isf((1 - level) / (2 * self.guide_share.numel())))
        off = (self.guide_share - self.annealed_share).abs()
        return self.apart & (off > tolerance + quantile * self.error[:, None]).any(0)


def find_modes(
    draws: Tensor, guide_draws: Tensor, particles: Particles | None, judged: Tensor
) -> Modes:
    """Compare the shares of guide and particles in the modes of the chains.

    Args:
        draws: of the chains, (C, S, M, K).
        guide_draws: (S′, M, K).
        particles: of the same data, if there are any.
        judged: the coordinates that have a posterior, (M, K).
    """
    centre, sd = draws.mean(1), draws.std(1) + 1e-12
    low, high = (draws.quantile(share, dim=1) for share in CENTRAL)
    apart = judged & (low.amax(0) > high.amin(0))

    def share(points: Tensor, weight: Tensor) -> Tensor:
        nearest = ((points - centre[:, None]) / sd[:, None]).abs().argmin(0)
        chosen = torch.stack([nearest == chain for chain in range(len(centre))])
        return (chosen * weight[..., None]).sum(1)

    alike = torch.full(guide_draws.shape[:2], 1 / len(guide_draws)).to(guide_draws)
    of_guide = share(guide_draws, alike)
    if particles is None:
        unknown = torch.full_like(of_guide, torch.nan)
        return Modes(apart, of_guide, unknown, unknown[0, :, 0])
    # The most that a share can vary, with as many particles as the weights are worth.
    error = 0.5 * particles.weight.square().sum(0).sqrt()
    return Modes(apart, of_guide, share(particles.points, particles.weight), error)
