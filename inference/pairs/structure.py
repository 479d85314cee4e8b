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
