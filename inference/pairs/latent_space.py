"""The latent sites of a pair's data plate as one vector of unconstrained numbers a datum."""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Size, Tensor
from torch.distributions import Transform, biject_to, constraints, identity_transform

from .auxiliary import AuxiliarySite, find_auxiliary
from .kl import is_delta
from .log_terms import Draws, draw, log_density_at, score
from .programs import Program, plain_errors
from .sites import in_data_plate, latent_sites, rows_dim
from .structure import Structure


@dataclass(frozen=True)
class Coordinate:
    """The coordinates of one latent site, within the vector of a datum's coordinates."""

    name: str
    transform: Transform
    """From unconstrained numbers to the site's support."""
    inner: Size
    """Sizes of the site's batch dimensions apart from samples and data."""
    rows_dim: int
    """The batch dimension of its data, counted from the right."""
    free_event: Size
    """Event shape of the unconstrained numbers."""
    dtype: torch.dtype
    """Of the site's values."""

    @property
    def size(self) -> int:
        """How many coordinates the site has."""
        return math.prod((*self.inner, *self.free_event))


@dataclass(frozen=True)
class LatentSpace:
    """Unconstrained coordinates u of the local latent variables z of N data.

    Each site's support is that of its prior; u ↦ z is PyTorch's ``biject_to`` of it, the identity
    where z is any real number. Densities are with respect to u: log p(x, z) + log |dz/du|. Points
    are (S, N, K): S for each of N data. Gradients flow through all of it.
    """

    model: Program
    guide: Program
    args: tuple[Any, ...]
    structure: Structure
    sites: tuple[Coordinate, ...]
    auxiliary: tuple[AuxiliarySite, ...] = ()
    """The sites that the guide draws in place of those of the model, which it makes from them."""

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.args[0])

    @property
    def size(self) -> int:
        """K, how many coordinates a datum has."""
        return sum(site.size for site in self.sites)

    @property
    def names(self) -> list[str]:
        """The names of the coordinates: the site's, with an index where it has several.

        A simplex of J parts has J − 1 coordinates.
        """
        return [
            site.name if site.size == 1 else f"{site.name}[{index}]"
            for site in self.sites
            for index in range(site.size)
        ]

    def draw(self, program: Program, num_samples: int) -> tuple[Tensor, Tensor]:
        """S draws of a program's local latent sites: u (S, N, K), log density of u (S, N).

        The guide gives draws of q(z|x), the model of its prior.
        """
        draws = draw(program, self.args, num_samples, self.structure)
        return self.read(draws)

    def read(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """The coordinates of draws (S, N, K), and their log density (S, N)."""
        found = latent_sites(draws.trace)
        parts, log_det = [], torch.zeros_like(draws.log_posterior)
        for site in self.sites:
            value = found[site.name]["value"]
            free: Any = site.transform.inv(value)
            parts.append(
                self._flat(site, free, len(site.free_event), draws.num_samples, draws.plated)
            )
            jacobian = site.transform.log_abs_det_jacobian(free, value)
            log_det = log_det + self._flat(site, jacobian, 0, draws.num_samples, draws.plated).sum(
                -1
            )
        points = torch.cat(parts, dim=-1).to(draws.log_posterior.dtype)
        return points, draws.log_posterior + log_det

    def locate(self, values: Mapping[str, Tensor]) -> Tensor:
        """The coordinates u (1, N, K) of values z that the sites have in a run on the data."""
        parts = []
        for site in self.sites:
            free: Any = site.transform.inv(values[site.name])
            parts.append(self._flat(site, free, len(site.free_event), 1, plated=False))
        return torch.cat(parts, dim=-1)

    def at(self, points: Tensor, program: Program | None = None) -> tuple[Draws, Tensor]:
        """Points u (S, N, K) as draws to replay a program at, and log |dz/du|, (S, N).

        Args:
            program: the program; the model, if not given. The guide may have auxiliary sites.
        """
        num_samples = len(points)
        plated = self.structure.plated(num_samples)
        log_det = points.new_zeros(points.shape[:2])
        trace = Trace()
        start = 0
        for site in self.sites:
            flat = points[..., start : start + site.size]
            start += site.size
            if plated:  # (samples, as many plates as the pair has, data, event)
                missing = (1,) * (self.structure.nesting - 1 - len(site.inner))
                free = flat.reshape(*points.shape[:2], *missing, *site.inner, *site.free_event)
                free = free.movedim(1, self.structure.nesting + 1 + site.rows_dim)
            else:  # (its own plates, samples and data together, event)
                free = flat.reshape(-1, *site.inner, *site.free_event)
                free = free.movedim(0, len(site.inner) + 1 + site.rows_dim)
            value = _values(site, free)
            jacobian = site.transform.log_abs_det_jacobian(free, value)
            log_det = log_det + self._flat(site, jacobian, 0, num_samples, plated).sum(-1)
            node = {"type": "sample", "is_observed": False, "infer": {}, "fn": None}
            trace.add_node(site.name, **node, value=value)
        if self.auxiliary and program == self.guide:
            trace = self._auxiliary_trace(trace, num_samples, plated)
        nothing = points.new_zeros(points.shape[:2])
        beyond = points.new_zeros(num_samples)
        apart = plated and self.structure.apart
        draws = Draws(trace, self.args, nothing, beyond, self.structure.nesting, plated, apart)
        return draws, log_det

    def _auxiliary_trace(self, latents: Trace, num_samples: int, plated: bool) -> Trace:
        """The guide's auxiliary sites, in place of the latent sites that it makes from them."""
        trace = Trace()
        values = {name: site["value"] for name, site in latent_sites(latents).items()}
        shape = (num_samples,) * plated + (1,) * self.structure.nesting
        node = {"type": "sample", "is_observed": False, "infer": {}, "fn": None}
        made = {name for site in self.auxiliary for name, _ in site.parts}
        for name in values.keys() - made:
            trace.add_node(name, **node, value=values[name])
        for site in self.auxiliary:
            trace.add_node(site.name, **node, value=site.locate(values, shape))
        return trace

    def log_joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z) + log |dz/du| at points (S, N, K), each (S, N)."""
        draws, log_det = self.at(points)
        with plain_errors():
            terms = score(self.model, draws)
        return terms.log_likelihood, terms.log_prior + log_det

    def log_density(self, program: Program, points: Tensor) -> Tensor:
        """log q(z|x) + log |dz/du| of a program's latent sites at points (S, N, K): (S, N)."""
        draws, log_det = self.at(points, program)
        return log_density_at(program, draws) + log_det

    def values(self, points: Tensor) -> dict[str, Tensor]:
        """The values z of points u (S, N, K), by site: (S, N, *plates, *event)."""
        found, start = {}, 0
        for site in self.sites:
            flat = points[..., start : start + site.size]
            start += site.size
            free = flat.reshape(*points.shape[:2], *site.inner, *site.free_event)
            found[site.name] = _values(site, free)
        return found

    def _flat(
        self, site: Coordinate, value: Tensor, event_dims: int, num_samples: int, plated: bool
    ) -> Tensor:
        """The numbers of a site, from the layout of a trace to (S, N, numbers)."""
        data = value.dim() - event_dims + site.rows_dim
        if plated:
            return value.movedim(data, 1).reshape(num_samples, self.num_data, -1)
        return value.movedim(data, 0).reshape(num_samples, self.num_data, -1)


def _values(site: Coordinate, free: Tensor) -> Tensor:
    value: Any = site.transform(free)
    return value.to(site.dtype)


def latent_space(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
    *,
    discrete: bool = False,
) -> LatentSpace:
    """Find the unconstrained coordinates of a pair's local latent variables on a batch of data.

    Args:
        discrete: allow discrete sites, whose values are then the coordinates, without a gradient.

    Raises:
        ValueError: if a latent site is discrete and ``discrete`` is not set; if the guide puts it
            on a point, makes it from an auxiliary site, or draws it where its prior has no mass; if
            its support differs between data, or PyTorch has no bijection to it; or if no site of
            the data plate is latent.
    """
    with plain_errors():
        in_guide = latent_sites(poutine.trace(guide).get_trace(*args))
        # Drawn from the prior, for the support is the model's.
        in_model, again = (latent_sites(poutine.trace(model).get_trace(*args)) for _ in range(2))
    supports = {name: support_of(site["fn"]) for name, site in in_model.items()}
    auxiliary: tuple[AuxiliarySite, ...] | None = ()
    if in_guide.keys() - in_model.keys():
        auxiliary = find_auxiliary(in_guide, supports, one_datum=len(args[0]) == 1)
    sites = []
    for name, q in in_guide.items():
        if name not in in_model or not in_data_plate(q):
            continue
        p = in_model[name]
        support = _fixed(name, support_of(p["fn"]), support_of(again[name]["fn"]))
        if support.is_discrete and not discrete:
            raise ValueError(f"the latent site {name!r} is discrete, and this needs real numbers")
        if name in structure.points:
            raise ValueError(
                f"the guide puts {name!r} on one point, which is not a posterior to judge"
            )
        if is_delta(q["fn"]) and not auxiliary:
            raise ValueError(
                f"the guide makes {name!r} from an auxiliary site, so its density is known only at "
                "the guide's own draws: give the guide a distribution of that site, such as a "
                "TransformedDistribution"
            )
        if not support.check(q["value"]).all():
            raise ValueError(
                f"the guide draws {name!r} where its prior has no mass: give the guide a "
                "distribution with the prior's support"
            )
        event_dim, value = p["fn"].event_dim, p["value"]
        transform = identity_transform if support.is_discrete else _bijection(name, support)
        batch = value.shape[: value.dim() - event_dim]
        dim, free = rows_dim(q), transform.inverse_shape(value.shape)
        inner = Size(size for at, size in enumerate(batch, -len(batch)) if at != dim)
        event = Size(free[len(batch) :])
        sites.append(Coordinate(name, transform, inner, dim, event, value.dtype))
    if not sites:
        raise ValueError("nothing is latent in the plate 'data': there is no posterior to judge")
    return LatentSpace(model, guide, args, structure, tuple(sites), auxiliary or ())


def _bijection(name: str, support: Any) -> Transform:
    try:
        return biject_to(support)
    except NotImplementedError:
        raise ValueError(
            f"PyTorch has no bijection (biject_to) to the support of {name!r}, {support}: write "
            "the site as a transform of a real distribution"
        ) from None


def support_of(distribution: Any) -> Any:
    """The support of a distribution; all real numbers, if it does not define one."""
    try:
        return distribution.support
    except NotImplementedError:
        return constraints.independent(constraints.real, distribution.event_dim)


def _fixed(name: str, support: Any, again: Any) -> Any:
    """A support whose bounds are one number each, not one for each datum, as ``expand`` makes.

    Args:
        again: the support of the same site in another run.

    Raises:
        ValueError: if they differ from datum to datum, or from one run to the next.
    """
    if isinstance(support, constraints.independent):
        inside = _fixed(name, support.base_constraint, again.base_constraint)
        return constraints.independent(inside, support.reinterpreted_batch_ndims)
    if hasattr(support, "base_constraint"):  # of a mixture, that of its components
        return _fixed(name, support.base_constraint, again.base_constraint)
    bounds = {key: value for key, value in vars(support).items() if isinstance(value, Tensor)}
    for key, value in bounds.items():
        one = value.flatten()[0]
        if (value != one).any() or (getattr(again, key) != one).any():
            raise ValueError(
                f"the support of {name!r} is not the same for all data and dimensions: write the "
                "site as a transform of a fixed distribution"
            )
        support = copy(support)
        setattr(support, key, one)
    return support
