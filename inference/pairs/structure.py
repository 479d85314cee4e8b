"""The facts of a pair that decide how it is run."""

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
    enumerated_outside: tuple[str, ...] = ()
    """Of these, those outside the data plate."""
    local_latents: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide draws."""
    repeatable: bool = True
    """Whether it can be run on data repeated sample by sample, where it is not vectorized. A data
    set that is one datum cannot: each sample is then a run of its own."""
    keeps_rows: bool = False
    """Whether the guide keeps a posterior for each datum, and so runs on all of them only."""
    drawn_together: tuple[str, ...] = ()
    """Latent sites in the data plate that follow from an auxiliary site of all data."""

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
            f"the guide draws {name!r} of all data together, in an auxiliary site outside the "
            "plate 'data', so its density of one datum is not known: use a guide that draws "
            f"{name!r} inside that plate, such as AutoNormal"
        )
