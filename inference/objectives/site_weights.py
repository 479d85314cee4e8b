"""A weight of the latent sites: one for all of them, or one for each by its name."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..common.lookup import list_names
from .schedules import Constant, Schedule, Weight

SiteValue = float | Schedule | Mapping[str, float | Schedule]
"""A weight of all latent sites, or of each by its name; each a number or a schedule."""


class SiteWeights:
    """A weight of the latent sites: one for all of them, or one for each by its name.

    Args:
        name: its name in an error.
        value: a number or a :class:`Schedule` for all sites, or a mapping from sites to these.
        otherwise: the weight of a site that the mapping does not name.

    Raises:
        ValueError: if a weight is negative, NaN or infinite, or the mapping is empty.

    >>> from latente.inference import Warmup
    >>> weights = SiteWeights("beta", {"z1": Warmup(10)}, otherwise=1.0)
    >>> weights.of("z1").item(), weights.of("z2").item()
    (0.0, 1.0)
    """

    def __init__(self, name: str, value: SiteValue, *, otherwise: float):
        self.name, self.value = name, value
        self.by_site: dict[str, Weight] = {}
        if isinstance(value, Mapping):
            if not value:
                raise ValueError(f"{name} has no site: give a number, or a number for each site")
            self.by_site = {site: Weight(f"{name}_{site}", one) for site, one in value.items()}
        shared = otherwise if isinstance(value, Mapping) else value
        self.shared = Weight(name, shared)

    @property
    def weights(self) -> list[Weight]:
        """All of them."""
        return [*self.by_site.values()] or [self.shared]

    def of(self, site: str) -> Tensor:
        """The weight of a site, a tensor that a schedule changes in place."""
        return self.by_site.get(site, self.shared).tensor

    def is_always(self, value: float) -> bool:
        """Whether it is one number for all sites at all times."""
        return all(weight.schedule == Constant(value) for weight in (*self.weights, self.shared))

    def check_names(self, sites: Iterable[str]) -> None:
        """Refuse a mapping that names a site that the pair does not have.

        Raises:
            ValueError: with the sites that there are.
        """
        known = [*sites]
        for site in self.by_site:
            if site not in known:
                raise ValueError(
                    f"{self.name} has a weight of {site!r}, which is no latent site of the data "
                    f"plate: {list_names(site, known)}"
                )

    def __repr__(self) -> str:
        value = dict(self.value) if isinstance(self.value, Mapping) else self.value
        return f"{self.name}={value}"
