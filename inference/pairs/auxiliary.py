"""Guides that make the latent sites from auxiliary ones, as Pyro's autoguides do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Transform, biject_to

from .kl import is_delta
from .sites import latent_sites


@dataclass(frozen=True)
class AuxiliarySite:
    """An auxiliary site that holds the unconstrained numbers of latent sites."""

    name: str
    parts: tuple[tuple[str, Transform], ...]
    """The latent sites, in its order, and the transform from its numbers to the values of each."""
    joined: bool
    """Whether it is one vector of all of them; if not, it has the layout of its one site."""

    def locate(self, values: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """The value of the auxiliary site at which the guide makes these values.

        Args:
            values: by latent site.
            shape: the batch shape of the auxiliary site, where it is one vector.
        """
        free: list[Any] = [transform.inv(values[name]) for name, transform in self.parts]
        if not self.joined:
            return free[0]
        return torch.cat([part.reshape(*shape, -1) for part in free], dim=-1)


def find_auxiliary(
    in_guide: Mapping[str, Any], supports: Mapping[str, Any], *, one_datum: bool
) -> tuple[AuxiliarySite, ...] | None:
    """Find how a guide makes its latent sites from auxiliary ones, so that its density is known.

    A guide that sets a latent site to a point given an auxiliary site, with the log density of the
    change of variables in a ``Delta``, has a density where that change can be undone. Of Pyro's
    autoguides it can: the auxiliary numbers are the unconstrained ones of the latent sites.

    Args:
        in_guide: the latent sites of one run of the guide, by name.
        supports: the support of each latent site of the model.
        one_datum: whether there is one datum, so that one vector may hold several sites.

    Returns:
        The auxiliary sites; ``None`` if a latent site on a point is not found among them.
    """
    made: dict[str, tuple[Transform, Any]] = {}
    for name in [name for name in in_guide if name in supports and is_delta(in_guide[name]["fn"])]:
        try:
            transform = biject_to(supports[name])
        except NotImplementedError:
            return None
        made[name] = transform, transform.inv(in_guide[name]["value"])
    found: list[AuxiliarySite] = []
    for name in [name for name in in_guide if name not in supports]:
        value = in_guide[name]["value"]
        own = [n for n, (_, free) in made.items() if _same(free, value)]
        if own:
            found.append(AuxiliarySite(name, ((own[0], made[own[0]][0]),), joined=False))
        elif one_datum and made and _same(_join(made.values()), value.flatten()):
            parts = tuple((n, transform) for n, (transform, _) in made.items())
            found.append(AuxiliarySite(name, parts, joined=True))
        else:
            return None
    covered = {name for site in found for name, _ in site.parts}
    return tuple(found) if covered == made.keys() else None


def in_place_of(latents: Trace, auxiliary: Iterable[AuxiliarySite], shape: Any) -> Trace:
    """A trace of auxiliary sites, in place of the latent sites that the guide makes from them.

    Args:
        shape: the batch shape of a vector of several sites.
    """
    trace = Trace()
    values = {name: site["value"] for name, site in latent_sites(latents).items()}
    made = {name for site in auxiliary for name, _ in site.parts}
    node = {"type": "sample", "is_observed": False, "infer": {}, "fn": None}
    for name in [name for name in values if name not in made]:
        trace.add_node(name, **node, value=values[name])
    for site in auxiliary:
        trace.add_node(site.name, **node, value=site.locate(values, shape))
    return trace


def _join(made: Iterable[tuple[Transform, Any]]) -> Tensor:
    return torch.cat([free.flatten() for _, free in made])


def _same(free: Any, value: Tensor) -> bool:
    if free.shape != value.shape:
        return False
    return torch.allclose(free.to(value.dtype), value, rtol=1e-3, atol=1e-3)
