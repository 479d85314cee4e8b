"""The facts of a pair that decide how it is run."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """The facts of a pair that decide how it is run; see :func:`inspect_pair`."""

    nesting: int
    """Number of batch dimensions of its plates, counted from the right."""
    vectorized: bool
    """Whether it runs under a plate of samples to the left of its own plates."""
    global_latents: tuple[str, ...]
    """Latent sites outside the data plate."""
    observed_outside: tuple[str, ...] = ()
    """Observed sites, and factors, outside the data plate."""
    enumerated: tuple[str, ...] = ()
    """Latent sites of the model that the guide does not have, and that are summed out."""
    points: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide puts on one point, without a density."""
    point_masses: tuple[str, ...] = ()
    """Latent sites in the data plate with a discrete prior that the guide puts on one value. That
    is a mass of 1, log q(z|x) = 0, and no lack of a density: the ELBO is a bound."""
    enumerated_outside: tuple[str, ...] = ()
    """Of these, those outside the data plate."""
    local_latents: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide draws."""
    local_values: int = 0
    """How many numbers those of one datum hold; 0: not known."""
    num_steps: int = 1
    """The steps of its longest latent chain; 1 where there is none."""
    repeatable: bool = True
    """Whether it can be run on data repeated sample by sample, where it is not vectorized. A data
    set that is one datum cannot: each sample is then a run of its own."""
    keeps_rows: bool = False
    """Whether the guide keeps a posterior for each datum, and so runs on all of them only."""
    drawn_together: tuple[str, ...] = ()
    """Latent sites in the data plate that follow from an auxiliary site of all data."""
    auxiliary: tuple[str, ...] = ()
    """Sites of the guide that the model does not have, such as those that autoguides draw."""
    all_values: tuple[tuple[str, int], ...] = ()
    """Discrete sites in the data plate that the guide marks to be enumerated, and how many values
    each has. Objectives and evidence take all of them, in place of a draw."""
    data_plate: str = "the plate 'data'"
    """The data plate in words, by the name that its user gave it."""

    @property
    def num_values(self) -> int:
        """C: how many values the sites that the guide enumerates have together; 1 without any."""
        return math.prod(size for _, size in self.all_values)

    @property
    def global_sites(self) -> tuple[str, ...]:
        """The global latent sites as their user knows them: without auxiliary ones."""
        named = tuple(name for name in self.global_latents if name not in self.auxiliary)
        return named or self.global_latents

    @property
    def globals_stand_outside(self) -> str:
        """The clause of an error that the global latent sites stand outside the data plate."""
        names = ", ".join(map(repr, self.global_sites))
        many = len(self.global_sites) > 1
        what = f"latent sites {names} stand" if many else f"latent site {names} stands"
        return f"the {what} outside {self.data_plate}"

    @property
    def told_apart(self) -> tuple[str, ...]:
        """The latent sites of the data plate whose KLs are told apart: where there are several.

        There are none where a KL belongs to no single site: of sites that are summed out, on a
        point, or made from auxiliary ones.
        """
        known = not (self.enumerated or self.points or self.auxiliary)
        return self.local_latents if known and len(self.local_latents) > 1 else ()

    def plated(self, num_samples: int) -> bool:
        """Whether so many samples lie along a dimension of their own."""
        return num_samples > 1 and (self.vectorized or not self.repeatable)

    @property
    def apart(self) -> bool:
        """Whether each sample is a run of its own."""
        return not self.vectorized and not self.repeatable


def check_drawn_apart(structure: Structure) -> None:
    """Refuse a guide that draws local latent sites of all data together.

    Raises:
        ValueError: naming the site.
    """
    for name in structure.drawn_together:
        raise ValueError(
            f"the guide draws {name!r} of all data together, in an auxiliary site outside "
            f"{structure.data_plate}, so its density of one datum is not known: use a guide that "
            f"draws {name!r} inside that plate, such as AutoNormal"
        )
