"""The diagnostics that ``diagnose`` runs, in this order: a new one is a file and a line here."""

from typing import Any

from .annealing import ANNEALING
from .calibration import CALIBRATION
from .diagnostic import Diagnostic
from .importance_weights import IMPORTANCE_WEIGHTS
from .inference_gap import INFERENCE_GAP
from .latent_information import LATENT_INFORMATION
from .leave_one_out import LEAVE_ONE_OUT
from .nuts import NUTS_REFERENCE
from .predictive_checks import PREDICTIVE_CHECKS

DIAGNOSTICS: tuple[Diagnostic[Any], ...] = (
    IMPORTANCE_WEIGHTS,
    LEAVE_ONE_OUT,
    ANNEALING,
    INFERENCE_GAP,
    LATENT_INFORMATION,
    CALIBRATION,
    NUTS_REFERENCE,
    PREDICTIVE_CHECKS,
)
"""All diagnostics of the library."""
