"""Fitting and judging Pyro pairs: data, stochastic variational inference, evidence, pictures.

Names are loaded when first used, so that ``latente --help`` need not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annealing import Annealed, Sandwich, annealed_evidence, bidirectional_evidence
    from .assembly import POSTERIORS, Posterior
    from .bounds import Objective, Reading
    from .calibration import Calibration, Coverage, calibrate
    from .collapse import Information, information
    from .criticism import DEFAULT_QUANTITIES, PredictiveCheck, predictive_check
    from .data import Data, load_data, quadrants
    from .diagnosis import Budget, Diagnosis, diagnose
    from .em import expectation_maximization
    from .evaluation import active_units, evaluate
    from .evidence import Evidence, log_evidence, pareto_khat
    from .export import to_datatree
    from .figures import (
        plot_all,
        plot_interpolation,
        plot_latent,
        plot_manifold,
        plot_reconstructions,
        plot_samples,
        plot_training,
    )
    from .generalization import PredictiveDensity, log_predictive_density, psis_loo
    from .importance import Gradient, ImportanceWeighted_ELBO
    from .judgement import Finding, Level
    from .mcmc import Gold, nuts_posterior
    from .objectives import ScoreFunction_ELBO
    from .plans import load_run
    from .predictive import decode, posterior_means, reconstruct, sample_prior
    from .recipes import RECIPES, Recipe
    from .refinement import InferenceGap, LocalPosterior, inference_gap
    from .regularized import (
        Beta_ELBO,
        Info_ELBO,
        TotalCorrelation_ELBO,
        gaussian_kernel,
        inverse_multiquadratic,
    )
    from .runs import Run
    from .schedules import Constant, Cyclical, Schedule, Warmup, Weight, hold_then_fall
    from .simulation import simulate
    from .svi import fit

__all__ = [
    "DEFAULT_QUANTITIES",
    "POSTERIORS",
    "RECIPES",
    "Annealed",
    "Beta_ELBO",
    "Budget",
    "Calibration",
    "Constant",
    "Coverage",
    "Cyclical",
    "Data",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Gold",
    "Gradient",
    "ImportanceWeighted_ELBO",
    "InferenceGap",
    "Info_ELBO",
    "Information",
    "Level",
    "LocalPosterior",
    "Objective",
    "Posterior",
    "PredictiveCheck",
    "PredictiveDensity",
    "Reading",
    "Recipe",
    "Run",
    "Sandwich",
    "Schedule",
    "ScoreFunction_ELBO",
    "TotalCorrelation_ELBO",
    "Warmup",
    "Weight",
    "active_units",
    "annealed_evidence",
    "bidirectional_evidence",
    "calibrate",
    "decode",
    "diagnose",
    "evaluate",
    "expectation_maximization",
    "fit",
    "gaussian_kernel",
    "hold_then_fall",
    "inference_gap",
    "information",
    "inverse_multiquadratic",
    "load_data",
    "load_run",
    "log_evidence",
    "log_predictive_density",
    "nuts_posterior",
    "pareto_khat",
    "plot_all",
    "plot_interpolation",
    "plot_latent",
    "plot_manifold",
    "plot_reconstructions",
    "plot_samples",
    "plot_training",
    "posterior_means",
    "predictive_check",
    "psis_loo",
    "quadrants",
    "reconstruct",
    "sample_prior",
    "simulate",
    "to_datatree",
]

_HOMES = {
    "annealing": ("Annealed", "Sandwich", "annealed_evidence", "bidirectional_evidence"),
    "bounds": ("Objective", "Reading"),
    "calibration": ("Calibration", "Coverage", "calibrate"),
    "criticism": ("DEFAULT_QUANTITIES", "PredictiveCheck", "predictive_check"),
    "data": ("Data", "load_data", "quadrants"),
    "diagnosis": ("Budget", "Diagnosis", "diagnose"),
    "em": ("expectation_maximization",),
    "evaluation": ("active_units", "evaluate"),
    "evidence": ("Evidence", "log_evidence", "pareto_khat"),
    "export": ("to_datatree",),
    "generalization": ("PredictiveDensity", "log_predictive_density", "psis_loo"),
    "importance": ("Gradient", "ImportanceWeighted_ELBO"),
    "collapse": ("Information", "information"),
    "judgement": ("Finding", "Level"),
    "mcmc": ("Gold", "nuts_posterior"),
    "objectives": ("ScoreFunction_ELBO",),
    "plans": ("load_run",),
    "predictive": ("decode", "posterior_means", "reconstruct", "sample_prior"),
    "refinement": ("InferenceGap", "LocalPosterior", "inference_gap"),
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
    "simulation": ("simulate",),
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
