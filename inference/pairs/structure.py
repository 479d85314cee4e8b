"""The facts of a pair that decide how it is run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """The facts of a pair that decide how it is run; see :func:`inspect_pair`."""

    nesting: int
    """How many batch dimensions its plates take, counted from the right."""
    vectorized: bool
    """Whether it runs under a plate of samples left of its own."""
    global_latents: tuple[str, ...]
    """Latent sites outside the data plate."""
    observed_outside: tuple[str, ...] = ()
    """Observed sites, and factors, outside the data plate."""
    enumerated: tuple[str, ...] = ()
    """Latent sites of the model that an objective sums out, and the guide does not have."""
    points: tuple[str, ...] = ()
    """Latent sites in the data plate that the guide puts on one point, without a density."""
