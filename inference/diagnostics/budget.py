"""How many data, draws and steps each diagnostic takes."""

from dataclasses import dataclass, fields, replace
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


NUMBERS_AT_ONCE = 5e7
"""Latent numbers that a diagnostic draws in all: data times draws times numbers of a datum. Those
of the defaults, for 50 numbers."""

MANY_NUMBERS = 250
"""Latent numbers of a datum above which defaults are made smaller."""

TOO_MANY_NUMBERS = 1_000
"""Latent numbers of a datum above which what needs a path, a chain or a matrix of them is left out:
annealing, posteriors of their own, and NUTS."""

SHOWN = {
    "num_data": "data",
    "num_samples": "importance samples",
    "simulations": "simulations",
    "draws": "draws for each",
    "replications": "replicated data sets",
}
"""The fields that are made smaller, in words."""


def fitting(budget: Budget, numbers: int, num_data: int) -> Budget:
    """The budget for latent variables of so many numbers: smaller where it is the default.

    Fields that have another value than the default stay. Cost grows with data × draws × numbers,
    of which there are at most :data:`NUMBERS_AT_ONCE` in each diagnostic; of the dense matrix of a
    full-rank posterior with numbers².

    Args:
        numbers: how many latent numbers a datum has.
        num_data: how many data there are.

    >>> smaller = fitting(Budget(), 129 * 64, 77)
    >>> smaller.num_data, smaller.num_samples, smaller.nuts_data
    (60, 100, 0)
    >>> fitting(Budget(nuts_data=1), 129 * 64, 77).nuts_data, fitting(Budget(), 50, 77) == Budget()
    (1, True)
    """
    if numbers <= MANY_NUMBERS:
        return budget
    whole = int(NUMBERS_AT_ONCE // numbers)
    share = min(1.0, (whole / 1e6) ** 0.5)
    samples = max(100, int(1000 * share))
    data = max(20, min(1000, whole // samples))
    draws = max(100, int(300 * share))
    few = MANY_NUMBERS / numbers
    too_many = numbers > TOO_MANY_NUMBERS
    smaller = {
        "num_data": data,
        "num_samples": samples,
        "draws": draws,
        "simulations": max(50, min(1000, whole // draws)),
        # A replicated data set is drawn by itself, with x, which takes some times as long.
        "replications": max(50, min(300, whole // (4 * min(data, num_data)))),
        "annealed_data": 0 if too_many else max(2, int(16 * few)),
        "gap_data": 0 if too_many else max(2, int(64 * few**2)),
        "nuts_data": 0 if too_many else 1,
        "tree_samples": 20 if too_many else 50,
        "tree_data": 10,
    }
    defaults = {field.name: field.default for field in fields(Budget)}
    kept = {name for name, value in vars(budget).items() if value != defaults[name]}
    return replace(budget, **{name: n for name, n in smaller.items() if name not in kept})
