"""Where a model is idle: what each latent dimension carries, and all of them together."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.datasets import evaluation_rows
from ..evaluation.metrics import ACTIVE_VARIANCE
from ..objectives.reading import Reading, closed_forms
from ..pairs.inspection import inspect_pair
from ..pairs.latent_space import LatentSpace, latent_space
from ..pairs.log_terms import draw, trace_model
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.scoring import SCORED_AT_ONCE
from ..simulation.predictive import posterior_means

MAX_PAIRS = 4_000_000
"""Numbers held together where each draw is scored under each datum's posterior."""


IDLE_KL, IDLE_SHARE = 0.01, 0.99
"""A dimension is idle whose KL is below 0.01 nats for 99 % of the data (Lucas et al. 2019)."""


@dataclass(frozen=True)
class LatentInformation:
    """What the latent variables of a pair say of N data, in nats."""

    names: tuple[str, ...]
    """The J parts that the KL splits into: dimensions, where it does, else sites."""
    kl: Tensor
    """KL(q(z|x) ‖ p(z)) of each datum and part, (N, J)."""
    mean_variance: dict[str, Tensor]
    """Variance over the data of the posterior mean of each latent dimension, by site; NaN of one
    datum."""
    mutual_information: float
    """I(x; z) = E[log q(z|x) − log q(z)], q(z) the posterior averaged over the N data; at most
    log N. NaN where there is a global latent variable."""
    mutual_information_error: float
    """Its standard error."""
    marginal_kl: float
    """KL(q(z) ‖ p(z)); NaN where the prior is another for each datum."""
    marginal_kl_error: float
    """Its standard error."""

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.kl)

    @property
    def limit(self) -> float:
        """log N, which I(x; z) cannot exceed when estimated from N data."""
        return math.log(self.num_data)

    @property
    def idle(self) -> tuple[str, ...]:
        """The parts whose KL is below 0.01 nats for 99 % of the data or more."""
        share = (self.kl < IDLE_KL).double().mean(0)
        return tuple(name for name, one in zip(self.names, share, strict=True) if one >= IDLE_SHARE)

    @property
    def active_units(self) -> int:
        """How many dimensions' posterior means vary by more than 0.01 over the data."""
        return sum(int((one > ACTIVE_VARIANCE).sum()) for one in self.mean_variance.values())

    @property
    def latent_dim(self) -> int:
        """How many latent dimensions there are."""
        return sum(one.numel() for one in self.mean_variance.values())

    @property
    def collapsed(self) -> bool:
        """Whether the posterior is the prior, whatever the datum: every part is idle."""
        return len(self.idle) == len(self.names) and self.num_data > 1


def latent_information(
    model: Program, guide: Program, data: Any, *, num_draws: int = 10, seed: int = 0
) -> LatentInformation:
    """KL by dimension, active units, mutual information and the aggregated posterior's KL.

    ::

        mean KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)),   q(z) = 1/N Σₙ q(z|xₙ)

    (Hoffman and Johnson 2016). The first term is what z says of x, the second how far the draws
    that the decoder was trained on are from those of the prior. The KL of a dimension is in closed
    form where there is one.

    Args:
        data: x (N, *event_shape), or a tuple (x, *context); the test part of a ``Data``. Cost grows
            with N²: some thousand data say enough.
        num_draws: draws of each posterior for the KL.
        seed: of all draws.

    Raises:
        ValueError: if a number is too small, the data cannot be used, the guide is a point, which
            has no KL, or draws a site where its prior has no mass.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> idle = latent_information(PPCA(5, 2), DiagonalNormal(mlp(5, out=4), 2), torch.randn(50, 5))
    >>> idle.names, idle.kl.shape
    (('z[0]', 'z[1]'), torch.Size([50, 2]))
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    rows = evaluation_rows(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        structure = inspect_pair(model, guide, args)
        if structure.points:
            raise ValueError(f"the guide puts {structure.points[0]!r} on one point: it has no KL")
        step = max(1, SCORED_AT_ONCE // num_draws)
        blocks = [
            tuple(part[start : start + step] for part in args)
            for start in range(0, len(args[0]), step)
        ]
        # With a global latent variable all data are seen at once, as the guide may look at them.
        blocks = [args] if structure.global_latents else blocks
        found = [
            _kl_by_dimension(_read(model, guide, some, num_draws, structure)) for some in blocks
        ]
        names, kl = found[0][0], torch.cat([part for _, part in found])
        carried = marginal = torch.full((2,), math.nan, dtype=torch.float64)
        if not structure.global_latents and not structure.enumerated:
            carried, marginal = _split(latent_space(model, guide, args, structure, discrete=True))
        means = posterior_means(model, guide, args)
    return LatentInformation(
        names=names,
        kl=kl,
        mean_variance={name: _variance(value.double()) for name, value in means.items()},
        mutual_information=carried.mean().item(),
        mutual_information_error=_error(carried),
        marginal_kl=marginal.mean().item(),
        marginal_kl_error=_error(marginal),
    )


def _variance(values: Tensor) -> Tensor:
    """Over the first dimension; NaN of one value, of which PyTorch warns."""
    return values.var(0) if len(values) > 1 else torch.full_like(values[0], math.nan)


def _error(values: Tensor) -> float:
    return (_variance(values) / len(values)).sqrt().item()


def _read(model: Program, guide: Program, args: Any, num_draws: int, structure: Any) -> Reading:
    draws = draw(guide, args, num_draws, structure)
    trace = trace_model(model, draws)
    reading = Reading(model, guide, draws, trace, structure, frozenset(), 1.0)
    return replace(reading, closed=closed_forms(reading))


def _kl_by_dimension(reading: Reading) -> tuple[tuple[str, ...], Tensor]:
    """Names of the parts, and KL of each datum and part, (N, J)."""
    names: list[str] = []
    parts = []
    for name, kl in zip(reading.local_sites(), reading.kl_by_dimension(), strict=True):
        size = kl.shape[-1]
        names += [name] if size == 1 else [f"{name}[{index}]" for index in range(size)]
        parts.append(kl.double().mean(0).cpu())
    if not parts:
        raise ValueError("nothing is latent in the plate 'data': there is no z to be idle")
    return tuple(names), torch.cat(parts, dim=-1)


def _split(space: LatentSpace) -> tuple[Tensor, Tensor]:
    """log q(z|x) − log q(z) and log q(z) − log p(z) at one draw of each posterior, each (N,)."""
    num_data = space.num_data
    points, log_posterior = space.draw(space.guide, 1)
    log_prior = space.log_joint(points)[1][0].double()
    block = max(1, MAX_PAIRS // (num_data * space.size))
    log_aggregated = torch.cat(
        [
            space.log_density(space.guide, some[:, None].expand(-1, num_data, -1))
            .double()
            .logsumexp(1)
            for some in points[0].split(block)
        ]
    ) - math.log(num_data)
    # One point under the prior of each datum: a conditional prior has no one KL to q(z).
    shared = space.log_joint(points[:, :1].expand(-1, num_data, -1))[1][0]
    marginal = log_aggregated - log_prior
    if not torch.allclose(shared, shared[:1], rtol=1e-4, atol=1e-4):
        marginal = torch.full_like(marginal, math.nan)
    return (log_posterior[0].double() - log_aggregated).cpu(), marginal.cpu()
