"""Fitting and judging Pyro pairs: data, stochastic variational inference, evidence, pictures.

Names are loaded when first used, so that ``latente --help`` need not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assembly import POSTERIORS, Posterior
    from .bounds import Objective, Reading
    from .data import Data, load_data, quadrants
    from .em import expectation_maximization
    from .evaluation import active_units, evaluate
    from .evidence import Evidence, log_evidence
    from .figures import (
        plot_all,
        plot_interpolation,
        plot_latent,
        plot_manifold,
        plot_reconstructions,
        plot_samples,
        plot_training,
    )
    from .importance import Gradient, ImportanceWeighted_ELBO
    from .objectives import ScoreFunction_ELBO
    from .plans import load_run
    from .predictive import decode, posterior_means, reconstruct, sample_prior
    from .recipes import RECIPES, Recipe
    from .regularized import (
        Beta_ELBO,
        Info_ELBO,
        TotalCorrelation_ELBO,
        gaussian_kernel,
        inverse_multiquadratic,
    )
    from .runs import Run
    from .schedules import Constant, Cyclical, Schedule, Warmup, Weight, hold_then_fall
    from .svi import fit

__all__ = [
    "POSTERIORS",
    "RECIPES",
    "Beta_ELBO",
    "Constant",
    "Cyclical",
    "Data",
    "Evidence",
    "Gradient",
    "ImportanceWeighted_ELBO",
    "Info_ELBO",
    "Objective",
    "Posterior",
    "Reading",
    "Recipe",
    "Run",
    "Schedule",
    "ScoreFunction_ELBO",
    "TotalCorrelation_ELBO",
    "Warmup",
    "Weight",
    "active_units",
    "decode",
    "evaluate",
    "expectation_maximization",
    "fit",
    "gaussian_kernel",
    "hold_then_fall",
    "inverse_multiquadratic",
    "load_data",
    "load_run",
    "log_evidence",
    "plot_all",
    "plot_interpolation",
    "plot_latent",
    "plot_manifold",
    "plot_reconstructions",
    "plot_samples",
    "plot_training",
    "posterior_means",
    "quadrants",
    "reconstruct",
    "sample_prior",
]

_HOMES = {
    "bounds": ("Objective", "Reading"),
    "data": ("Data", "load_data", "quadrants"),
    "em": ("expectation_maximization",),
    "evaluation": ("active_units", "evaluate"),
    "evidence": ("Evidence", "log_evidence"),
    "importance": ("Gradient", "ImportanceWeighted_ELBO"),
    "objectives": ("ScoreFunction_ELBO",),
    "plans": ("load_run",),
    "predictive": ("decode", "posterior_means", "reconstruct", "sample_prior"),
    "assembly": ("POSTERIORS", "Posterior"),
    "recipes": ("RECIPES", "Recipe"),
    "regularized": (
        "Beta_ELBO",
        "Info_ELBO",
        "TotalCorrelation_ELBO",
        "gaussian_kernel",
        "inverse_multiquadratic",
    ),
    "runs": ("Run",),
    "schedules": ("Constant", "Cyclical", "Schedule", "Warmup", "Weight", "hold_then_fall"),
    "svi": ("fit",),
    "figures": tuple(name for name in __all__ if name.startswith("plot_")),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
