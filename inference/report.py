"""What is kept of a diagnosis: its numbers, its figures, and a page to read."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis


def numbers(found: "Diagnosis") -> dict[str, Any]:
    """The main figures of a diagnosis and its findings, fit for JSON."""
    figures: dict[str, Any] = {}
    if found.evidence is not None:
        figures |= {
            "log_evidence": found.evidence.mean,
            "log_evidence_se": found.evidence.mean_standard_error,
            "elbo": found.evidence.elbo,
            "khat_bad_fraction": found.evidence.khat_bad_fraction,
            "num_data": len(found.evidence.log_px),
            "num_samples": found.evidence.num_samples,
        }
    if found.annealed is not None and found.sandwich is not None:
        figures |= {
            "annealed_evidence": found.annealed.mean,
            "annealed_evidence_se": found.annealed.mean_standard_error,
            "sandwich_gap": found.sandwich.gap,
        }
    if found.gap is not None:
        figures |= {
            "inference_gap": found.gap.total.mean().item(),
            "approximation_gap": found.gap.approximation.mean().item(),
            "amortization_gap": found.gap.amortization.mean().item(),
        }
    if found.information is not None:
        figures |= {
            "kl": found.information.kl.sum(1).mean().item(),
            "mutual_information": found.information.mutual_information,
            "marginal_kl": found.information.marginal_kl,
            "active_units": found.information.active_units,
            "idle": list(found.information.idle),
            "collapsed": found.information.collapsed,
        }
    if found.calibration is not None:
        figures |= {
            "miscalibrated": found.calibration.miscalibrated,
            "weighted_miscalibrated": found.calibration.weighted_miscalibrated,
            "biased": found.calibration.biased,
        }
    if found.gold is not None:
        figures["nuts_sd_ratio"] = found.gold.ratio.median().item()
        figures["nuts_rhat"] = found.gold.rhat.max().item()
    if found.loo is not None:
        figures["elpd_loo"] = float(found.loo.elpd)
    known = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
    findings = [
        {"topic": one.topic, "level": one.level.name.lower(), "sentence": one.sentence}
        for one in found.findings
    ]
    return {"verdict": found.verdict, **known, "findings": findings}
