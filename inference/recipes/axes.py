"""All axes of a composition, by the names of their options."""

from collections.abc import Mapping
from typing import Any

from .axis import Axis
from .contexts import GIVEN
from .levels import LEVELS
from .likelihoods import LIKELIHOODS
from .networks import NETWORKS
from .objectives import OBJECTIVES
from .posteriors import POSTERIORS
from .priors import PRIORS
from .weights import WEIGHTS

AXES: Mapping[str, Axis[Any]] = {
    "levels": LEVELS,
    "prior": PRIORS,
    "posterior": POSTERIORS,
    "likelihood": LIKELIHOODS,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "beta": WEIGHTS,
    "given": GIVEN,
}
"""The axes, each by its name in a recipe, a plan and on the command line."""
