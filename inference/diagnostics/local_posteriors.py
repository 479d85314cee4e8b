"""Posteriors that have parameters for each datum, made from a guide's family or full-rank."""

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import transform_to, transforms

from ..pairs.coordinates import OpenCircle, direction
from ..pairs.latent_space import Coordinate, LatentSpace
from ..pairs.programs import Program
from ..pairs.scoring import REPEATED_ROWS
from ..pairs.sites import DATA_PLATE, in_data_plate, latent_sites, rows_dim

EQUIVALENT_PARAMETERS = (
    ("scale_tril", ("covariance_matrix", "precision_matrix")),
    ("logits", ("probs",)),
)
"""Parameters of a distribution that are functions of another one."""


JOINT_SITE = "latente_full_rank"
"""The auxiliary site of a full-rank normal over sites with plates of their own."""


Sampler = Callable[[Sequence[Tensor]], None]
"""Samples the local latent sites, given rows of each parameter, (n, …)."""


@runtime_checkable
class Amortizing(Protocol):
    """A guide of one site: features of x, and a family of distributions that they choose from."""

    def features(self, x: Tensor, *context: Tensor) -> Tensor:
        """Features (N, width) of data."""
        ...

    def family(self, features: Tensor) -> Any:
        """The distribution of the site at features (…, width)."""
        ...


@runtime_checkable
class AmortizingSites(Protocol):
    """A guide of several sites that says which numbers a datum may have of its own."""

    def local_parameters(self, x: Tensor, *context: Tensor) -> Sequence[Tensor]:
        """These numbers as the guide has them for data, unconstrained, each (N, …)."""
        ...

    def run_local(self, parameters: Sequence[Tensor]) -> Any:
        """Run the guide with numbers of each datum's own, for any N."""
        ...


class LocalPosterior:
    """A guide with parameters of its own for each of the N data that it was fitted to.

    It is a Pyro program ``guide(x, *context)`` of those data, in any order and any part, and serves
    wherever an amortized guide does: ``log_evidence(model, local, data)``.

    Raises:
        ValueError: when run on a datum that it was not fitted to.
    """

    def __init__(self, args: tuple[Tensor, ...], parameters: Sequence[Tensor], sampler: Sampler):
        self.parameters = tuple(parameters)
        """Unconstrained, each (N, …)."""
        self.sampler = sampler
        """The program, given rows of the parameters."""
        self._args = args
        self._rows = {key: row for row, key in enumerate(_keys(args))}

    def __call__(self, *args: Tensor) -> None:
        """Run the program on some of its data."""
        same = len(args) == len(self._args) and all(map(operator.is_, args, self._args))
        chosen = self.parameters if same else [value[self._find(args)] for value in self.parameters]
        self.sampler(chosen)

    def with_parameters(self, parameters: Sequence[Tensor]) -> "LocalPosterior":
        """The same family at other parameters."""
        other = copy(self)
        other.parameters = tuple(parameters)
        return other

    def _find(self, args: tuple[Tensor, ...]) -> Tensor:
        found = [self._rows.get(key, -1) for key in _keys(args)]
        if min(found) < 0:
            raise ValueError(
                f"row {found.index(-1)}, counted from 0, is none of the {len(self._args[0])} data "
                "that this posterior was fitted to"
            )
        return torch.tensor(found, device=args[0].device)

    def __repr__(self) -> str:
        return f"LocalPosterior(N={len(self._args[0])})"


def _keys(args: tuple[Tensor, ...]) -> list[bytes]:
    """A key for each datum with its context, the same for equal data."""
    parts = [value.detach().cpu().contiguous().flatten(1).numpy() if value.dim() > 1
             else value.detach().cpu().numpy()[:, None] for value in args]  # fmt: skip
    return [b"|".join(part[row].tobytes() for part in parts) for row in range(len(args[0]))]


def own_family(guide: Program, args: tuple[Tensor, ...]) -> LocalPosterior | str:
    """The guide's own family with parameters for each datum; or why it cannot be taken apart."""
    sites, again = (
        {
            name: site
            for name, site in latent_sites(poutine.trace(guide).get_trace(*args)).items()
            if in_data_plate(site)
        }
        for _ in range(2)
    )
    if isinstance(guide, Amortizing) and len(sites) == 1:
        ((name, site),) = sites.items()

        def sample(parameters: Sequence[Tensor]) -> None:
            distribution = guide.family(parameters[0])
            _Plates(len(parameters[0])).sample(name, site["cond_indep_stack"], distribution)

        return LocalPosterior(args, [guide.features(*args)], sample)
    if isinstance(guide, AmortizingSites):
        return _own_numbers(guide, args)
    distributions: dict[str, _OpenDistribution] = {}
    for name, site in sites.items():
        distribution, other = (
            _open(fn, len(fn.batch_shape) + rows_dim(site))
            for fn in (site["fn"], again[name]["fn"])
        )
        if isinstance(distribution, str) or isinstance(other, str):
            why = distribution if isinstance(distribution, str) else other
            return f"in the guide's distribution of {name!r}, {why}"
        if not _same(distribution.parameters, other.parameters):
            return f"the guide's parameters of {name!r} depend on what is drawn before it"
        distributions[name] = distribution

    def sample_all(parameters: Sequence[Tensor]) -> None:
        rest, plates = list(parameters), _Plates(len(parameters[0]))
        for name, distribution in distributions.items():
            own, rest = rest[: len(distribution.parameters)], rest[len(distribution.parameters) :]
            plates.sample(name, sites[name]["cond_indep_stack"], distribution.close(own))

    return LocalPosterior(
        args,
        [p for distribution in distributions.values() for p in distribution.parameters],
        sample_all,
    )


def _own_numbers(guide: AmortizingSites, args: tuple[Tensor, ...]) -> LocalPosterior | str:
    """A guide with the numbers of each datum that it names; or why it cannot be fitted so."""

    def sample(parameters: Sequence[Tensor]) -> None:
        guide.run_local(parameters)

    numbers = guide.local_parameters(*args)
    if not all(value.is_floating_point() for value in numbers):
        return "the encoder of a level reads whole numbers"
    local = LocalPosterior(args, numbers, sample)
    sites = latent_sites(poutine.trace(local).get_trace(*args))
    for name, site in sites.items():
        if not site["fn"].has_rsample:
            return f"in the guide's distribution of {name!r}, draws have no gradient"
    return local


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class _Plates:
    """The plates of one run of a program, each made once."""

    def __init__(self, num_data: int):
        self.num_data = num_data
        self.made: dict[str, Any] = {}

    def sample(self, name: str, frames: Sequence[Any], distribution: Any) -> Tensor:
        """Sample a site in plates like those that another program had it in."""
        with ExitStack() as stack:
            for frame in frames:
                if frame.name not in self.made:
                    size = self.num_data if frame.name == DATA_PLATE else frame.size
                    self.made[frame.name] = pyro.plate(frame.name, size, dim=frame.dim)
                stack.enter_context(self.made[frame.name])
            return pyro.sample(name, distribution)


@dataclass(frozen=True)
class _OpenDistribution:
    """A distribution taken apart into unconstrained parameters, each (N, …)."""

    parameters: list[Tensor]
    close: Callable[[Sequence[Tensor]], Any]
    """The distribution of given parameters."""


def _open(distribution: Any, data_dim: int) -> _OpenDistribution | str:
    """Take a distribution apart; or why that cannot be done."""
    is_expanded = isinstance(distribution, dist.ExpandedDistribution)
    own_name = type(distribution.base_dist if is_expanded else distribution).__name__
    unknown = f"{own_name} has no parameters that PyTorch knows, or more than those"
    if isinstance(distribution, torch.distributions.Independent):
        inside = _open(distribution.base_dist, data_dim)
        if isinstance(inside, str):
            return inside
        ndims = distribution.reinterpreted_batch_ndims
        return _OpenDistribution(
            inside.parameters, lambda given: inside.close(given).to_event(ndims)
        )
    try:
        known: dict[str, Any] = dict(distribution.arg_constraints)
        for name, others in EQUIVALENT_PARAMETERS:
            if name in known:
                known = {n: constraint for n, constraint in known.items() if n not in others}
        if not known:
            return unknown
        if not distribution.has_rsample:
            return f"draws of {own_name} have no gradient"
        if _moves(distribution.support):
            return f"the support of {own_name} moves with its parameters"
        maps = {name: transform_to(constraint) for name, constraint in known.items()}
        parameters = [
            maps[name]
            .inv(_spread(getattr(distribution, name), distribution, constraint.event_dim))
            .movedim(data_dim, 0)
            for name, constraint in known.items()
        ]

        def close(given: Sequence[Tensor]) -> Any:
            moved = (value.movedim(0, data_dim) for value in given)
            return type(distribution)(**{n: maps[n](v) for n, v in zip(known, moved, strict=True)})

        # A distribution that has more than its parameters, such as a temperature, fails here.
        value = distribution.sample()
        if not torch.allclose(
            close(parameters).log_prob(value), distribution.log_prob(value), rtol=1e-3, atol=1e-3
        ):
            return unknown
    except (NotImplementedError, AttributeError, RuntimeError, TypeError, ValueError):
        return unknown
    return _OpenDistribution(parameters, close)


def _moves(support: Any) -> bool:
    """Whether a support depends on parameters: gradients through draws miss that dependence."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return any(isinstance(value, Tensor) for value in vars(support).values())


def _spread(value: Tensor, distribution: Any, event_dim: int) -> Tensor:
    """A distribution's parameter, one for each element of its batch."""
    return value.expand(distribution.batch_shape + value.shape[value.dim() - event_dim :])


def check_flat(space: LatentSpace) -> None:
    """Refuse latent sites of which there is no full-rank normal.

    Raises:
        ValueError: if one stands in a plate of its own within the data, or is masked for some.
    """
    if space.idle is not None:
        names = [site.name for site in space.sites for _ in range(site.size)]
        name = names[int(space.idle.any(0).nonzero()[0])]
        raise ValueError(
            f"the latent site {name!r} is masked for some of these data: there is no posterior to "
            "be fitted to them"
        )
    for site in space.sites:
        if math.prod(site.inner) > 1 and len(site.inner) != -site.rows_dim - 1:
            raise ValueError(
                f"the latent site {site.name!r} stands in a plate of its own to the left of the "
                "data: there is no full-rank normal over it"
            )


def full_rank(space: LatentSpace, program: Program, num_draws: int) -> LocalPosterior:
    """A normal of full covariance of all unconstrained latent variables of each datum.

    It starts at the moments of a program's draws. Several sites are drawn in turn, each given those
    before it: with u = m + L ε, the first coordinates of u are known by the first of ε. A circle is
    opened opposite to the mean direction of the draws, see :class:`OpenCircle`.
    """
    dim = space.size
    # A guide that is run on repeated data takes memory for each repetition.
    size = num_draws if space.structure.vectorized else max(1, REPEATED_ROWS // space.num_data)
    count = max(num_draws, 10 * dim)
    points = torch.cat([space.draw(program, size)[0] for _ in range(-(-count // size))])
    points = space.near(points).clamp(-100.0, 100.0)  # draws at the very edge of a support
    turned, turn = space.circular, direction(points)
    if turned.any():
        points = torch.where(turned, OpenCircle(turn).inv(points), points)  # pyright: ignore
    mean = points.mean(0)
    centred = points - mean
    covariance = torch.einsum("snk,snl->nkl", centred, centred) / (len(points) - 1)
    least = 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    covariance = covariance + least * torch.eye(dim).to(covariance)
    scale_tril = torch.linalg.cholesky(covariance)
    rows, columns = torch.tril_indices(dim, dim, -1)
    diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
    parameters = [mean, diagonal.log(), scale_tril[:, rows, columns]]
    parameters += [turn] if turned.any() else []
    if any(math.prod(site.inner) > 1 for site in space.sites):
        return LocalPosterior(space.args, parameters[:3], partial(_sample_together, space.sites))

    def sample(given: Sequence[Tensor]) -> None:
        mean, log_diagonal, below, *rest = given
        lower = torch.diag_embed(log_diagonal.exp())
        lower[:, rows, columns] = below
        noise = mean.new_zeros(*mean.shape[:-1], 0)
        dim_of_data = space.sites[0].rows_dim
        start, plate = 0, pyro.plate(DATA_PLATE, len(mean), dim=dim_of_data)
        beside = (1,) * (-dim_of_data - 1)  # plates within the data, to the right of them
        for site in space.sites:
            part = slice(start, start + site.size)
            centre = mean[:, part] + (lower[:, part, :start] @ noise[..., None]).squeeze(-1)
            tril = lower[:, part, part]
            distribution = dist.MultivariateNormal(
                centre.reshape(*centre.shape[:-1], *beside, site.size),
                scale_tril=tril.reshape(-1, *beside, site.size, site.size),
            )
            with plate:
                # Not fitted: the mean says as much.
                turn = rest[0][:, part].detach() if site.circular else mean[:, part]
                closed = _in_support(
                    distribution, site, turn.reshape(-1, *beside, *site.free_event)
                )
                value = pyro.sample(site.name, closed)
            start += site.size
            if start < dim:  # ε of this site, for those after it
                free: Any = value
                for transform in reversed(closed.transforms):
                    free = transform.inv(free)
                batch = free.shape[: free.dim() - 1 - len(beside)]
                free = free.reshape(*batch, site.size)
                away = (free - centre)[..., None]
                own = torch.linalg.solve_triangular(tril, away, upper=False)
                own = own.squeeze(-1)
                noise = torch.cat([noise.expand(*own.shape[:-1], noise.shape[-1]), own], dim=-1)

    return LocalPosterior(space.args, parameters, sample)


def _sample_together(sites: Sequence[Coordinate], given: Sequence[Tensor]) -> None:
    """Sample all sites from one normal vector, where sites have plates of their own.

    No distribution of a site has numbers that vary together across its plate. So the vector is an
    auxiliary site, and each site is a point that follows from it, as in Pyro's autoguides.
    """
    mean, log_diagonal, below = given
    dim, data_dim = mean.shape[-1], sites[0].rows_dim
    rows, columns = torch.tril_indices(dim, dim, -1)
    lower = torch.diag_embed(log_diagonal.exp())
    lower[:, rows, columns] = below
    beside = (1,) * (-data_dim - 1)
    normal = dist.MultivariateNormal(
        mean.reshape(-1, *beside, dim), scale_tril=lower.reshape(-1, *beside, dim, dim)
    )
    with pyro.plate(DATA_PLATE, len(mean), dim=data_dim):
        together = pyro.sample(JOINT_SITE, normal, infer={"is_auxiliary": True})
        lead, start = together.shape[: together.dim() - 1 - len(beside)], 0
        for site in sites:
            flat = together[..., start : start + site.size]
            start += site.size
            free = flat.reshape(*lead, *site.inner, *site.free_event)
            value: Any = site.transform(free)
            log_density = -site.transform.log_abs_det_jacobian(free, value)
            event_dim = value.dim() - len(lead) - len(site.inner)
            with ExitStack() as stack:
                for place, size in enumerate(site.inner, -len(site.inner)):
                    if size > 1:
                        name = f"{JOINT_SITE} {place}"
                        stack.enter_context(pyro.plate(name, size, dim=place))
                pyro.sample(site.name, dist.Delta(value, log_density, event_dim))


def _in_support(distribution: Any, site: Coordinate, turn: Tensor) -> Any:
    """A distribution of a site's unconstrained numbers, flat, as one of its values.

    Args:
        turn: where a circle is not opened, (N, *free_event).
    """
    parts: list[Any] = []
    if site.free_event != distribution.event_shape:
        parts.append(transforms.ReshapeTransform(distribution.event_shape, site.free_event))
    parts.append(OpenCircle(turn) if site.circular else site.transform)
    return dist.TransformedDistribution(distribution, parts)
