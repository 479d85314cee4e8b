"""Auxiliary terms of a loss, beside any objective: of a classifier, of a codebook."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..common.lookup import list_names
from ..pairs.sites import deterministic_sites, in_data_plate, rows_dim
from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading
from .schedules import Schedule, Weight


class AuxiliaryLoss(Objective):
    """An objective, and weighted auxiliary terms of each datum that are minimized with it.

    ::

        minimize  −L + Σⱼ αⱼ Σₙ lⱼ(xₙ),   reported: L alone

    The programs compute the terms, in the data plate, with one number for each datum::

        pyro.deterministic("commitment", loss, event_dim=0)

    L is the bound of ``objective``, and remains one: the terms move the parameters, and enter into
    no figure. Each is of a datum, so its balance with L does not depend on the size of a batch.
    Examples are the error of a classifier on the labels that are known (Kingma et al. 2014, arXiv
    1406.5298) and the commitment to a codebook (van den Oord et al. 2017, arXiv 1711.00937).

    Args:
        objective: one of ours, such as :class:`Beta_ELBO`.
        weights: αⱼ ≥ 0 of each term by the name of its site, a number or a :class:`Schedule`.

    Raises:
        ValueError: if there is no term, a weight is negative, or the objective is one of Pyro's;
            when first run, if neither program has the site, or it is not of one number per datum.

    >>> from latente.inference import Beta_ELBO, Warmup
    >>> AuxiliaryLoss(Beta_ELBO(), {"commitment": 0.25})
    AuxiliaryLoss(Beta_ELBO(beta=1.0, free_bits=0.0), {'commitment': 0.25})
    """

    def __init__(self, objective: Objective, weights: Mapping[str, float | Schedule]):
        if not isinstance(objective, Objective):
            raise ValueError(
                f"AuxiliaryLoss takes an objective of latente, such as Beta_ELBO(), and not "
                f"{type(objective).__name__}"
            )
        if not weights:
            raise ValueError("AuxiliaryLoss needs the name and weight of a term")
        super().__init__(objective.num_particles)
        self.objective, self.settings = objective, dict(weights)
        self.terms = {name: Weight(name, value) for name, value in weights.items()}
        self.points_allowed, self.enumerates = objective.points_allowed, objective.enumerates

    @property
    def weights(self) -> list[Weight]:
        """Those of the objective, then those of the terms."""
        return [*self.objective.weights, *self.terms.values()]

    def bound(self, reading: Reading) -> Tensor:
        """That of the objective."""
        return self.objective.bound(reading)

    def surrogate(self, reading: Reading) -> Tensor:
        """The objective's, minus the weighted terms."""
        total = self.objective.surrogate(reading)
        if total is None:
            total = self.objective.bound(reading)
        for name, weight in self.terms.items():
            term = auxiliary_term(reading, name)
            total = total - weight.tensor * (term if total.dim() else term.mean())
        return total

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse what the objective refuses."""
        self.objective.check(sites, structure)

    def __repr__(self) -> str:
        return f"AuxiliaryLoss({self.objective!r}, {self.settings!r})"


def auxiliary_term(reading: Reading, name: str) -> Tensor:
    """The number of each datum at a site of ``pyro.deterministic``, averaged over draws: (N,).

    Numbers of plates within a datum are summed.

    Raises:
        ValueError: if neither program has the site in its data plate, or it holds vectors.
    """
    traces = reading.draws.trace, reading.model_trace
    found = {key: site for trace in traces for key, site in deterministic_sites(trace).items()}
    if name not in found:
        known = f": {list_names(name, found)}" if found else ", which have none"
        raise ValueError(
            f"{name!r} is no site of pyro.deterministic in the model or the guide{known}"
        )
    site = found[name]
    if not in_data_plate(site) or site["fn"].event_dim:
        plate = reading.structure.data_plate
        raise ValueError(
            f"the auxiliary term {name!r} needs one number for each datum: write "
            f'pyro.deterministic("{name}", value, event_dim=0) inside {plate}'
        )
    value = site["value"].expand(site["fn"].batch_shape).movedim(rows_dim(site), -1)
    first = 1 if reading.draws.plated else 0
    inner = tuple(range(first, value.dim() - 1))
    return reading.average((value.sum(inner) if inner else value).reshape(reading.shape))
