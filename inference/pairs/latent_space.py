"""The latent sites of a pair's data plate as one vector of unconstrained numbers a datum."""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Size, Tensor
from torch.distributions import Transform, constraints, identity_transform
from torch.distributions.transforms import IndependentTransform

from .auxiliary import AuxiliarySite, find_auxiliary, in_place_of
from .coordinates import coordinates, is_circular
from .edges import continued, nearest_told_apart
from .kl import counted, is_delta
from .log_terms import Draws, draw, log_density_at, read_terms, score, trace_model
from .programs import Program, plain_errors
from .sites import in_data_plate, latent_sites, rows_dim
from .structure import Structure


class VaryingSupportError(ValueError):
    """A site's support differs between data or draws, so that it has no fixed coordinates."""


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
    discrete: bool = False
    """Whether the site's values are discrete; they are then its coordinates."""
    circular: bool = False
    """Whether the values are angles. Any real number is then a coordinate, modulo 2π."""

    @property
    def size(self) -> int:
        """How many coordinates the site has."""
        return math.prod((*self.inner, *self.free_event))

    def flatten(self, value: Tensor, event_dims: int, num_samples: int, plated: bool) -> Tensor:
        """The numbers of the site, from the layout of a trace to (S, N, numbers)."""
        data = value.dim() - event_dims + self.rows_dim
        num_data = value.shape[data] if plated else value.shape[data] // num_samples
        return value.movedim(data, int(plated)).reshape(num_samples, num_data, -1)

    def lay_out(self, flat: Tensor, plated: bool, nesting: int) -> Tensor:
        """The numbers (S, N, size) of the site in the layout of a trace.

        Args:
            nesting: the number of batch dimensions of the pair's plates.
        """
        if plated:  # (samples, as many plates as the pair has, data, event)
            missing = (1,) * (nesting - 1 - len(self.inner))
            free = flat.reshape(*flat.shape[:2], *missing, *self.inner, *self.free_event)
            return free.movedim(1, nesting + 1 + self.rows_dim)
        # (its own plates, samples and data together, event)
        free = flat.reshape(-1, *self.inner, *self.free_event)
        return free.movedim(0, len(self.inner) + 1 + self.rows_dim)


@dataclass(frozen=True)
class LatentSpace:
    """Unconstrained coordinates u of the local latent variables z of N data.

    Each site's support is that of its prior; u ↦ z is PyTorch's ``biject_to`` of it, the identity
    where z is any real number; :class:`LogRatios` for a simplex, and u modulo 2π for angles.
    Densities are with respect to u: log p(x, z) + log |dz/du|. Points are (S, N, K): S for each of
    N data. Gradients flow through all of it.
    """

    model: Program
    guide: Program
    args: tuple[Any, ...]
    structure: Structure
    sites: tuple[Coordinate, ...]
    idle: Tensor | None = None
    """Coordinates that are masked in the model, and on which nothing depends, (N, K); ``None`` if
    there are none. The pair says nothing about them."""
    flat: tuple[str, ...] = ()
    """Sites whose prior is masked where the likelihood depends on them: draws of the masked
    distribution are no draws of their prior."""
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
    def has_discrete(self) -> bool:
        """Whether some of the sites are discrete."""
        return any(site.discrete for site in self.sites)

    @property
    def names(self) -> list[str]:
        """The names of the coordinates: the site's, with an index where it has several."""
        return [
            site.name if site.size == 1 else f"{site.name}[{index}]"
            for site in self.sites
            for index in range(site.size)
        ]

    @property
    def circular(self) -> Tensor:
        """Which coordinates are angles, (K,)."""
        return torch.tensor([site.circular for site in self.sites for _ in range(site.size)])

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
            layout = draws.num_samples, draws.plated
            parts.append(site.flatten(free, len(site.free_event), *layout))
            jacobian = site.transform.log_abs_det_jacobian(free, value)
            log_det = log_det + site.flatten(jacobian, 0, *layout).sum(-1)
        points = torch.cat(parts, dim=-1).to(draws.log_posterior.dtype)
        return points, draws.log_posterior + log_det

    def locate(self, values: Mapping[str, Tensor]) -> Tensor:
        """The coordinates u (1, N, K) of values z that the sites have in a run on the data."""
        parts = []
        for site in self.sites:
            free: Any = site.transform.inv(values[site.name])
            parts.append(site.flatten(free, len(site.free_event), 1, plated=False))
        return torch.cat(parts, dim=-1)

    def at(self, points: Tensor, program: Program | None = None) -> tuple[Draws, Tensor]:
        """Points u (S, N, K) as draws to replay a program at (the model, if not given), and
        log |dz/du|, (S, N)."""
        return _points_as_draws(self, points, program)

    def near(self, points: Tensor) -> Tensor:
        """The nearest points u (S, N, K) whose values differ from the edges of the supports.

        See :func:`nearest_told_apart`. The points themselves, not a copy, if there are no edges.
        """
        return _near(self.sites, points)

    def log_joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z) + log |dz/du| at points (S, N, K), each (S, N).

        Beyond :meth:`near`, each is continued in a straight line.
        """
        likelihood, prior = continued(points, self.near(points), self._log_joint)
        return likelihood, prior

    def _log_joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        draws, log_det = self.at(points)
        with pyro.validation_enabled(False), plain_errors():
            terms = score(self.model, draws)
        return terms.log_likelihood, terms.log_prior + log_det

    def log_density(self, program: Program, points: Tensor) -> Tensor:
        """log q(z|x) + log |dz/du| of a program's latent sites at points (S, N, K): (S, N)."""

        def density(points: Tensor) -> tuple[Tensor]:
            draws, log_det = self.at(points, program)
            with pyro.validation_enabled(False):  # there may be no density at these points
                return (log_density_at(program, draws) + log_det,)

        return continued(points, self.near(points), density)[0]

    def values(self, points: Tensor) -> dict[str, Tensor]:
        """The values z of points u (S, N, K), by site: (S, N, *plates, *event)."""
        found, start = {}, 0
        for site in self.sites:
            flat = points[..., start : start + site.size]
            start += site.size
            free = flat.reshape(*points.shape[:2], *site.inner, *site.free_event)
            found[site.name] = _values(site, free)
        return found


def _near(sites: tuple[Coordinate, ...], points: Tensor) -> Tensor:
    parts, start = [], 0
    for site in sites:
        own = points[..., start : start + site.size]
        start += site.size
        free = own.reshape(*own.shape[:-1], *site.inner, *site.free_event)
        parts.append((own, free, nearest_told_apart(site.transform, free, site.dtype)))
    if all(near is free for _, free, near in parts):
        return points
    # Not compared with the points: a recording cannot look at values.
    return torch.cat([near.reshape(own.shape) for own, _, near in parts], dim=-1)


def hold_idle(space: LatentSpace, points: Tensor) -> Tensor:
    """A log density of the idle coordinates, (S, N), so that a chain keeps them in place.

    It is that of a standard normal; zero where no coordinate is idle.
    """
    if space.idle is None:
        return points.new_zeros(points.shape[:2])
    return -0.5 * (points * space.idle).square().sum(-1)


def _values(site: Coordinate, free: Tensor) -> Tensor:
    value: Any = site.transform(free)
    return value.to(site.dtype)


def _points_as_draws(
    space: LatentSpace, points: Tensor, program: Program | None
) -> tuple[Draws, Tensor]:
    """Points u (S, N, K) as draws to replay a program at, and log |dz/du|, (S, N).

    Args:
        program: the program; the model, if not given. The guide may have auxiliary sites.
    """
    num_samples = len(points)
    plated = space.structure.plated(num_samples)
    log_det = points.new_zeros(points.shape[:2])
    trace = Trace()
    start = 0
    for site in space.sites:
        flat = points[..., start : start + site.size]
        start += site.size
        free = site.lay_out(flat, plated, space.structure.nesting)
        value = _values(site, free)
        jacobian = site.transform.log_abs_det_jacobian(free, value)
        log_det = log_det + site.flatten(jacobian, 0, num_samples, plated).sum(-1)
        node = {"type": "sample", "is_observed": False, "infer": {}, "fn": None}
        trace.add_node(site.name, **node, value=value)
    if space.auxiliary and program == space.guide:
        shape = (num_samples,) * plated + (1,) * space.structure.nesting
        trace = in_place_of(trace, space.auxiliary, shape)
    nothing = points.new_zeros(points.shape[:2])
    beyond = points.new_zeros(num_samples)
    nesting, summed = space.structure.nesting, space.structure.enumerated
    apart = plated and space.structure.apart
    draws = Draws(trace, space.args, nothing, beyond, nesting, plated, summed, apart)
    return draws, log_det


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
        circular = is_circular(p["fn"])
        if support.is_discrete and not discrete:
            raise ValueError(
                f"the latent site {name!r} is discrete, and this needs real numbers{_advice(p)}"
            )
        if name in (*structure.points, *structure.point_masses):
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
        transform = (
            IndependentTransform(identity_transform, event_dim)
            if support.is_discrete
            else _bijection(name, support, circular)
        )
        batch = value.shape[: value.dim() - event_dim]
        dim, free = rows_dim(q), transform.inverse_shape(value.shape)
        inner = Size(size for at, size in enumerate(batch, -len(batch)) if at != dim)
        event, kinds = Size(free[len(batch) :]), (support.is_discrete, circular)
        sites.append(Coordinate(name, transform, inner, dim, event, value.dtype, *kinds))
    if not sites and structure.enumerated:
        raise ValueError(
            f"{structure.enumerated[0]!r} is summed out, and the guide draws nothing in "
            f"{structure.data_plate}: there is no approximate posterior to judge"
        )
    if not sites:
        raise ValueError(
            f"nothing is latent in {structure.data_plate}: there is no posterior to judge"
        )
    space = LatentSpace(model, guide, args, structure, tuple(sites), auxiliary=auxiliary or ())
    masked = _masked(space, in_model)
    if not masked.any():
        return space
    idle = masked & ~_matters(space)
    names = [site.name for site in sites for _ in range(site.size)]
    flat = (masked & ~idle).any(0).tolist()
    found = dict.fromkeys(name for name, one in zip(names, flat, strict=True) if one)
    return replace(space, idle=idle if idle.any() else None, flat=tuple(found))


def _masked(space: LatentSpace, in_model: dict[str, Any]) -> Tensor:
    """Which coordinates have no density in the model, by a mask: (N, K)."""
    masked = []
    for site in space.sites:
        found = in_model[site.name]
        event, free = found["fn"].event_shape, math.prod(site.free_event)
        counts = counted(found).to(space.args[0].device).movedim(site.rows_dim - len(event), 0)
        rows = counts.reshape(space.num_data, -1, math.prod(event))
        if rows.shape[-1] != free:  # K − 1 coordinates of a simplex, say
            rows = rows.all(-1, keepdim=True).expand(-1, -1, free)
        masked.append(~rows.flatten(1))
    return torch.cat(masked, dim=-1)


def _matters(space: LatentSpace) -> Tensor:
    """Which coordinates any density of the model depends on, by its gradient at two draws, (N, K).

    Under ``mask(False)`` a site has a flat prior, and the likelihood may use its values.
    """
    with torch.enable_grad(), plain_errors():
        points = space.draw(space.guide, 2)[0].detach().requires_grad_()
        draws, _ = space.at(points)
        terms = read_terms(trace_model(space.model, draws), draws)
        total = (terms.log_likelihood + terms.log_prior).sum()
        if not total.requires_grad:
            return torch.zeros_like(points[0], dtype=torch.bool)
        (slope,) = torch.autograd.grad(total, points, allow_unused=True)
    return torch.zeros_like(points[0], dtype=torch.bool) if slope is None else (slope != 0).any(0)


def _advice(site: Any) -> str:
    """How a discrete site is summed out, where it can be."""
    if not getattr(site["fn"], "has_enumerate_support", False):
        return ""
    return (
        ": mark it infer={'enumerate': 'parallel'} in the model, and leave it out of the guide, "
        "and it is summed out"
    )


def _bijection(name: str, support: Any, circular: bool) -> Transform:
    try:
        return coordinates(support, circular=circular)
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
        VaryingSupportError: if they differ from datum to datum, or from one run to the next.
    """
    if isinstance(support, constraints.independent):
        inside = _fixed(name, support.base_constraint, again.base_constraint)
        return constraints.independent(inside, support.reinterpreted_batch_ndims)
    if hasattr(support, "base_constraint"):  # of a mixture, that of its components
        return _fixed(name, support.base_constraint, again.base_constraint)
    bounds = {key: value for key, value in vars(support).items() if isinstance(value, Tensor)}
    for key, value in bounds.items():
        one = value.flatten()[0]
        other = getattr(again, key)
        if value.shape == other.shape and (value != other).any():
            raise VaryingSupportError(
                f"the support of {name!r} is not the same at two draws ({key} is "
                f"{one.item():.4g} at one draw and {other.flatten()[0].item():.4g} at another), "
                "and this needs fixed coordinates: write the site as a transform of a fixed "
                "distribution"
            )
        if (value != one).any() or (other != one).any():
            raise VaryingSupportError(
                f"the support of {name!r} is not the same for all data and dimensions ({key} goes "
                f"from {value.min().item():.4g} to {value.max().item():.4g}), and this needs fixed "
                "coordinates: write the site as a transform of a fixed distribution"
            )
        support = copy(support)
        setattr(support, key, one)
    return support
