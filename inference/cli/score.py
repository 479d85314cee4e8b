"""The command ``latente score``."""

from typing import Any

from .row_figures import Found, command_of_rows


def _score(*pair_and_rows: Any, **options: Any) -> Found:
    """The evidence of each datum: log p(x) in nats, its Monte Carlo error, and k̂; a CSV file.

    Its columns are row (counted from 0), labels and further columns of the data where there are
    any, log_px, standard_error and khat: above the threshold that is printed, log_px may be too
    low.
    """
    from ..evidence.importance_sampling import log_evidence

    evidence = log_evidence(*pair_and_rows, **options)
    figures = {
        "log_px": evidence.log_px.numpy(),
        "standard_error": evidence.standard_error.numpy(),
        "khat": evidence.khat.numpy(),
    }
    return evidence, figures


score = command_of_rows(_score, name="score", file="scores.csv", following="diagnose")
