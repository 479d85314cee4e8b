"""Exact evidence of a discrete latent variable: the sum over all of its values."""

from dataclasses import dataclass
from typing import Any, Never, Protocol, runtime_checkable

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.arguments import refuse_more
from ..common.progress import progress
from ..data.whole_set import open_posterior
from ..pairs.checks import check_support
from ..pairs.log_terms import Draws, draw, score
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.sites import base_distribution, latent_sites, rows_dim
from ..pairs.structure import Structure
from .importance_sampling import inspect_local

MOST_VALUES = 2**20
"""The most values that are summed over, unless more are allowed."""


MASS_TOLERANCE = 1e-3
"""How far from 1 the masses of a prior's values may add up: float32 rounds each of them."""


SCORED_AT_ONCE = 2**14
"""Pairs of a value and a datum that the model scores at once."""


@runtime_checkable
class ListsValues(Protocol):
    """A discrete distribution that can list its values a part at a time."""

    @property
    def num_values(self) -> int:
        """How many values have mass."""
        ...

    def values_at(self, numbers: Tensor) -> Tensor:
        """The values by their numbers from 0 on: (S,) to (S, *event_shape)."""
        ...


@dataclass(frozen=True)
class EnumeratedEvidence:
    """Exact evidence of N data, in nats; every tensor is (N,), float64, on CPU."""

    log_px: Tensor
    """log p(x) = log Σ_z p(x|z) p(z), over all values of z."""
    bound: Tensor
    """log p(x, z) − log q(z|x) at one draw of the guide: of a guide that puts a mass of 1 on one
    value its ELBO, and then ``log_px − bound`` = KL(q ‖ p(z|x)) = −log p(z(x)|x)."""
    num_values: int
    """How many values z has."""

    @property
    def mean(self) -> float:
        """Mean of ``log_px`` over the data: nats per datum."""
        return self.log_px.mean().item()

    @property
    def gap(self) -> float:
        """Mean of ``log_px − bound`` over the data: nats per datum."""
        return (self.log_px - self.bound).mean().item()

    def __repr__(self) -> str:
        return (
            f"EnumeratedEvidence(mean={self.mean:.3f} nats, gap={self.gap:.3f}, "
            f"N={len(self.log_px)}, {self.num_values:,} values)"
        )


def enumerated_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *more: Never,
    max_values: int = MOST_VALUES,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> EnumeratedEvidence:
    """Compute log p(x) of each datum exactly, by the sum over all values of a discrete site.

    ::

        log p(x) = log Σ_z p(x|z) p(z)

    The site's prior lists its values a part at a time (:class:`ListsValues`), as
    :class:`latente.models.UniformCodes` and ``AutoregressiveCodes`` do; so memory does not grow
    with their number. Time does: the decoder runs for each pair of a value and a datum. Sums are
    taken in float64. A discrete site that the guide does not have, and that the model marks to be
    enumerated, is summed out by
    :func:`log_evidence`.

    Args:
        model: Pyro program ``model(x, *context)`` with one latent site in its data plate.
        guide: Pyro program of the same arguments and latent site.
        data: as for :func:`log_evidence`.
        more: none: the data of programs of several arguments are one tuple or dict.
        max_values: the most values that are summed over.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the guide's draw.
        show_progress: whether to show the data done.

    Raises:
        ValueError: as :func:`log_evidence` does; if there is more than one latent site, its prior
            does not list its values, has more than ``max_values`` of them, or masses that do not
            add up to 1.

    >>> from latente.guides import FiniteScalar
    >>> from latente.models import VAE, Bernoulli, UniformCodes, mlp
    >>> vae = VAE(UniformCodes((4, 4)), mlp(2, 8, out=5), Bernoulli((5,)))
    >>> guide = FiniteScalar(mlp(5, 8, out=2), (4, 4))
    >>> exact = enumerated_evidence(vae, guide, torch.ones(3, 5))
    >>> exact.num_values, bool((exact.bound <= exact.log_px).all())
    (16, True)
    """
    refuse_more("enumerated_evidence", more)
    model, guide, rows = open_posterior(model, guide, data, data_plate=data_plate)
    num_rows = len(rows[0])
    found: list[tuple[Tensor, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        first = place(tuple(part[:2] for part in rows), *placement(model, guide))
        structure = inspect_local(model, guide, first)
        values = _listing(model, first, structure, max_values)
        size = max(1, SCORED_AT_ONCE // values.num_values)
        with progress("evidence", num_rows, show=show_progress) as advance:
            for start in range(0, num_rows, size):
                block = tuple(part[start : start + size] for part in rows)
                args = place(block, *placement(model, guide))
                check_support(model, guide, args, "data", start)
                with pyro.validation_enabled(False):
                    found.append(_sum_over(model, guide, args, structure, values))
                advance(len(args[0]), f"{start + len(args[0])} of {num_rows} data")
    log_px, bound = (torch.cat(parts) for parts in zip(*found, strict=True))
    return EnumeratedEvidence(log_px, bound, values.num_values)


def _listing(
    model: Program, args: tuple[Tensor, ...], structure: Structure, max_values: int
) -> ListsValues:
    """The prior of the only latent site, if it lists its values and they are not too many."""
    if structure.enumerated or len(structure.local_latents) != 1:
        names = ", ".join(map(repr, (*structure.local_latents, *structure.enumerated))) or "none"
        raise ValueError(
            f"enumerated_evidence sums over the values of one latent site, and these are latent: "
            f"{names}"
        )
    site = latent_sites(draw(model, args, 1, structure).trace)[structure.local_latents[0]]
    prior = base_distribution(site["fn"])
    if not isinstance(prior, ListsValues):
        raise ValueError(
            f"the prior of {site['name']!r}, {type(prior).__name__}, does not list its values: use "
            "UniformCodes; or leave the site out of the guide, mark it infer={'enumerate': "
            "'parallel'}, and log_evidence sums it out"
        )
    if prior.num_values > max_values:
        raise ValueError(
            f"{site['name']!r} has {prior.num_values:,} values, and the sum is over at most "
            f"max_values={max_values:,}: take fewer positions or levels, or log_evidence for the "
            "bound"
        )
    return prior


def _sum_over(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    structure: Structure,
    values: ListsValues,
) -> tuple[Tensor, Tensor]:
    """log p(x) and the guide's bound of some data, each (N,)."""
    drawn = draw(guide, args, 1, structure)
    bound = score(model, drawn).log_weight[0].double().cpu()
    step = max(1, SCORED_AT_ONCE // len(args[0]))
    total = mass = torch.full_like(bound, -torch.inf)
    for start in range(0, values.num_values, step):
        numbers = torch.arange(start, min(start + step, values.num_values), device=args[0].device)
        terms = score(model, _at_values(drawn, values.values_at(numbers), structure))
        log_prior = terms.log_prior.double().cpu()
        total = total.logaddexp((terms.log_likelihood.double().cpu() + log_prior).logsumexp(0))
        mass = mass.logaddexp(log_prior.logsumexp(0))
    _check_mass(mass)
    return total, bound


def _check_mass(log_mass: Tensor) -> None:
    """Refuse a prior whose masses of all values do not add up to 1 for each datum.

    Raises:
        ValueError: with what they add up to.
    """
    wrong = (log_mass.exp() - 1).abs() > MASS_TOLERANCE
    if wrong.any():
        raise ValueError(
            f"the masses of the prior's values add up to {log_mass[wrong][0].exp().item():.4g}, "
            "and not to 1: where two vectors of a codebook are the same, a learned prior cannot "
            "tell them apart"
        )


def _at_values(drawn: Draws, values: Tensor, structure: Structure) -> Draws:
    """Values (S, *event_shape) of the latent site, the same for all data, as draws."""
    name = structure.local_latents[0]
    site = latent_sites(drawn.trace)[name]
    num_samples, num_data, event = len(values), drawn.num_data, values.shape[1:]
    plated = structure.plated(num_samples)
    batch = [1] * structure.nesting
    batch[rows_dim(site)] = num_data
    value = values.reshape(num_samples, *[1] * structure.nesting, *event)
    value = value.expand(num_samples, *batch, *event)
    if not plated:  # samples are part of the data plate
        batch[rows_dim(site)] *= num_samples
        value = value.reshape(*batch, *event)
    trace = Trace()
    trace.add_node(name, **{**site, "value": value})
    zeros = drawn.log_posterior.new_zeros(num_samples, num_data)
    return Draws(trace, drawn.args, zeros, zeros[:, 0], structure.nesting, plated)
