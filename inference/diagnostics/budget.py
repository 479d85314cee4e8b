"""How many data, draws and steps each diagnostic takes."""

from dataclasses import dataclass
from numbers import Integral

from ..common.arguments import check_least

LEAST = {
    "num_data": 1,
    "annealed_sets": 1,
    "num_samples": 2,
    "temperatures": 2,
    "chains": 2,
    "gap_steps": 1,
    "draws": 1,
    "nuts_samples": 10,
    "nuts_warmup": 10,
    "tree_data": 1,
    "tree_samples": 1,
}
"""The smallest number that each field may be, where it is not 0."""


@dataclass(frozen=True)
class Budget:
    """How many data, draws and steps each diagnostic takes.

    A number of data means the first ones. With 0 for ``annealed_data``, ``gap_data``,
    ``simulations``, ``nuts_data`` or ``replications``, that diagnostic is left out. The defaults
    take some two minutes on two cores for a VAE on MNIST.

    Raises:
        ValueError: if a number is too small, or is no whole number.
    """

    num_data: int = 1000
    """Data for evidence, information and predictive checks, at most."""
    num_samples: int = 1000
    """Importance samples of each datum."""
    annealed_data: int = 16
    """Data that are annealed, and as many simulated ones."""
    annealed_sets: int = 2
    """Data sets that are simulated and annealed, where the whole data set is one datum, as latent
    variables are global."""
    temperatures: int = 300
    """Temperatures of the annealing path."""
    chains: int = 8
    """Annealed chains of each datum."""
    gap_data: int = 64
    """Data that get a posterior of their own."""
    gap_steps: int = 300
    """Gradient steps that fit each of these."""
    simulations: int = 1000
    """Data simulated for calibration."""
    set_simulations: int = 100
    """Whole data sets simulated for calibration, where latent variables are global."""
    draws: int = 300
    """Draws of the guide that each simulated value is ranked among."""
    nuts_data: int = 2
    """Data whose posterior is sampled by NUTS."""
    nuts_samples: int = 300
    """Draws of each of two chains."""
    nuts_warmup: int = 200
    """Steps of each chain before, in which NUTS adapts its step size and scales."""
    nuts_temperatures: int = 100
    """Temperatures at which starting points of the chains are annealed; with 0 all chains start at
    draws of the guide."""
    replications: int = 300
    """Replicated data sets of the predictive checks."""
    tree_data: int = 50
    """Data in the tree."""
    tree_samples: int = 100
    """Draws of each datum in the tree."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        check_least({name: (value, LEAST.get(name, 0)) for name, value in vars(self).items()})


DEFAULT_BUDGET = Budget()
"""Of a diagnosis for which none is given."""
