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
    """Latent sites of the model that the guide does not have, and an objective sums out."""
    points: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide puts on one point, without a density."""
    keeps_rows: bool = False
    """Whether the guide keeps a posterior for each datum, and so runs on all of them only."""
    drawn_together: tuple[str, ...] = ()
    """Latent sites in the data plate that follow from an auxiliary site of all data."""


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
