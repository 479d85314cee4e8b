"""What the numbers of each diagnostic say, in plain words and on a scale of four."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..evidence.annealed_importance_sampling import Annealed
from ..evidence.importance_sampling import Evidence
from ..evidence.sandwich import Sandwich
from .calibration import Calibration
from .finding import Finding, Level
from .inference_gap import KHAT_GOOD, InferenceGap
from .latent_information import LatentInformation
from .nuts import NUTSReference
from .predictive_checks import PredictiveCheck

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData


KHAT_FEW, KHAT_MANY = 0.01, 0.5
"""Shares of the data: up to the first, k̂ above its threshold is let pass; beyond the second, it is
the rule."""


TOLERATED_NATS = 0.1
"""Differences in nats per datum that are let pass."""


MIN_AGGREGATED = 20
"""Data whose posteriors' average can stand for the aggregated posterior, at the least."""


FALSE_ALARM_RATE = 0.05
"""Probability of any alarm among the predictive checks of a model that did make the data."""


def judge_evidence(evidence: Evidence) -> Finding:
    """Whether importance weights can be trusted."""
    count = len(evidence.log_px)
    said = (
        f"log p(x) = {evidence.mean:.2f} ± {evidence.mean_standard_error:.2f} nats per datum by "
        f"importance sampling ({count:,} data, S = {evidence.num_samples:,})"
    )
    if evidence.num_samples < 25:
        return Finding("evidence", Level.NOTE, f"{said}. {evidence.sample_size_warning}")
    share, threshold = evidence.khat_bad_fraction, evidence.khat_threshold
    if share <= KHAT_FEW:
        good = "no datum" if share == 0 else f"{share:.1%} of the data"
        return Finding(
            "evidence", Level.GOOD, f"{said}; Pareto k̂ is above {threshold:.2f} for {good}."
        )
    return Finding(
        "evidence",
        Level.WARNING if share <= KHAT_MANY else Level.BAD,
        f"{said}; but Pareto k̂ is above {threshold:.2f} for {share:.1%} of the data: the guide is "
        "too narrow somewhere, or so wide that few draws count, and their log p(x) is likely too "
        "low by more than ± says. "
        f"{evidence.sample_size_warning}".rstrip(),
    )


def judge_annealing(
    log_px: Tensor, error: Tensor, annealed: Annealed, both: Sandwich | None
) -> Finding:
    """Whether the guide misses what annealing finds.

    Args:
        log_px: importance-sampled log p(x) of the data that were annealed, (N,).
        error: its standard errors, (N,).
        both: annealed bounds on data of the model's own, where these can be simulated.
    """
    more = (annealed.log_px - log_px).mean().item()
    noise = (annealed.standard_error.square() + error.square()).sum().sqrt().item() / len(log_px)
    said = (
        f"annealed importance sampling, in which the guide has no part, gives {annealed.mean:.2f} "
        f"nats on the first {len(log_px)} data, and importance sampling {_nats(abs(more))} ± "
        f"{noise:.2f} {'less' if more > 0 else 'more'}"
    )
    if both is not None:
        said += f"; on data of the model's own its two bounds are {_nats(both.gap)} nats apart"
    said = said[0].upper() + said[1:]
    enough = max(TOLERATED_NATS, 3 * noise)
    if (both is not None and both.gap > 1) or more < -enough:
        why = "annealing is not done with these temperatures, and says nothing of the guide."
        return Finding("annealing", Level.NOTE, f"{said}: {why}")
    if more > enough:
        level = Level.BAD if more > 1 else Level.WARNING
        return Finding("annealing", level, f"{said}: the guide misses some of the posterior.")
    return Finding("annealing", Level.GOOD, f"{said}: the two agree, as far as noise lets tell.")


def judge_gap(gap: InferenceGap) -> Finding:
    """Where the bound is loose."""
    total, count = gap.total.mean().item(), len(gap.elbo)
    if not math.isfinite(total):
        text = "The ELBO is −∞ for some data: the guide puts draws where the model has no density."
        return Finding("gap", Level.WARNING, text)
    said = f"The ELBO is {_nats(total)} nats below log p(x) ({count} data)"
    if gap.local is None:
        gain = (gap.elbo_full_rank - gap.elbo).mean().item()
        said += (
            f"; the guide's family cannot be taken apart, full-rank normals fitted to each datum "
            f"gain {_nats(gain)}"
        )
    else:
        family, encoder = gap.approximation.mean().item(), gap.amortization.mean().item()
        said += f": {_nats(family)} are left by the family, {_nats(encoder)} by the encoder"
        if total >= TOLERATED_NATS:
            said += (
                ". A longer fit or a better encoder would gain more than a richer family"
                if encoder > family
                else ". A richer family would gain more than a better encoder"
            )
    bad = (gap.khat > KHAT_GOOD).double().mean().item()
    if bad > 0.1:
        said += f" (k̂ of that log p(x) is above {KHAT_GOOD} for {bad:.0%}: the gap may be larger)"
    return Finding("gap", Level.GOOD if total < TOLERATED_NATS else Level.WARNING, f"{said}.")


def judge_information(found: LatentInformation) -> Finding:
    """Whether the posterior has collapsed."""
    kl = found.kl.sum(1).mean().item()
    said = f"KL(q(z|x) ‖ p(z)) is {_nats(kl)} nats per datum"
    # Of one datum, no variance over the data is known.
    if found.num_data > 1:
        said += f", {found.active_units} of {found.latent_dim} latent dimensions are in use"
    if found.collapsed:
        text = f"{said}: the posterior has collapsed onto the prior, z says nothing of x."
        return Finding("information", Level.BAD, text)
    if found.idle:
        names = ", ".join(found.idle[:5]) + (", …" if len(found.idle) > 5 else "")
        said += f"; idle: {names}"
    level = Level.WARNING if found.idle else Level.GOOD
    if found.num_data < MIN_AGGREGATED:  # too few for their average to stand for q(z)
        return Finding("information", level, f"{said}.")
    mutual, marginal = found.mutual_information, found.marginal_kl
    if mutual != mutual:  # not defined, with a global latent variable
        return Finding("information", level, f"{said}.")
    if found.limit - mutual < 2:  # from there on the estimate falls short of the truth
        said += (
            f". z tells the {found.num_data:,} data apart: I(x; z) is at least {_nats(mutual)} "
            "nats, as much as so many data can show"
        )
        if marginal == marginal:
            said += f", and the aggregated posterior at most {_nats(marginal)} nats from the prior"
        return Finding("information", level, f"{said}.")
    said += f". I(x; z) is {_nats(mutual)} nats"
    if marginal == marginal:
        said += f", the aggregated posterior {_nats(marginal)} nats from the prior"
        if marginal > 1 + 3 * found.marginal_kl_error:
            said += ": draws of the prior fall where the decoder was not trained"
            level = Level.WARNING
    return Finding("information", level, f"{said}.")


def judge_calibration(found: Calibration) -> list[Finding]:
    """Whether credible regions hold what they say, and medians lean."""
    wrong, mended = found.miscalibrated, found.weighted_miscalibrated
    count, level = len(found.pit), f"{found.level:.0%}"
    said = f"On {count:,} data simulated from the model"
    if not wrong:
        text = f"{said}, no rank of {len(found.names)} quantities is out of its {level} band."
        findings = [Finding("calibration", Level.GOOD, text)]
    else:
        # Means that are off at random, datum by datum, look to ranks like too little width.
        narrow = "too narrow or misplaced"
        told = _count_words({n: narrow if w == "too narrow" else w for n, w in wrong.items()})
        cover = found.coverage((0.8,)).share[-1, 0].item()
        text = (
            f"{said}, {len(wrong)} of {len(found.names)} quantities {_out_of(len(wrong))} {level} "
            f"band ({told}); regions that should hold z in 80% hold it in {cover:.0%}. "
        )
        left = f"{len(mended)} {'is' if len(mended) == 1 else 'are'}" if mended else "none is"
        text += f"With {found.num_draws} draws weighed by importance, {left}."
        findings = [Finding("calibration", Level.BAD if mended else Level.WARNING, text)]
    if found.biased:
        text = (
            f"Posterior medians lean to one side in {len(found.biased)} of "
            f"{len(found.names) - 2} coordinates ({_count_words(found.biased)})."
        )
        findings.append(Finding("bias", Level.WARNING, text))
    return findings


def _out_of(count: int) -> str:
    return "is out of its" if count == 1 else "are out of their"


def _nats(value: float) -> str:
    """A figure in nats; none is minus zero.

    >>> _nats(-0.001), _nats(-1.0)
    ('0.00', '-1.00')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def _count_words(words: Mapping[str, str]) -> str:
    """How many are wrong in each way, with the first names.

    >>> _count_words({"a": "too narrow", "b": "too narrow", "c": "too wide"})
    'too narrow: a, b; too wide: c'
    """
    groups: dict[str, list[str]] = {}
    for name, word in words.items():
        groups.setdefault(word, []).append(name)
    return "; ".join(
        f"{word}: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for word, names in groups.items()
    )


def judge_nuts(nuts: NUTSReference) -> Finding:
    """Whether the guide's moments are those of the posterior."""
    count, misses, settled = len(nuts.mean), nuts.misses(), nuts.converged
    if not settled.any():
        text = (
            f"NUTS has not converged on any coordinate of {count} data (R̂ up to "
            f"{nuts.rhat.max():.2f}, effective draws from {nuts.ess.min():.0f} on): take more."
        )
        return Finding("nuts", Level.NOTE, text)
    said = (
        f"By NUTS on {count} data, the guide's standard deviations are "
        f"{nuts.ratio[settled].median():.2f} of the posterior's, its means off by "
        f"{nuts.shift[settled].abs().median():.2f} of one (medians); beyond noise and a fifth, "
        f"{int(misses.sum())} of {int(settled.sum())} coordinates"
    )
    if not settled.all():
        said += f"; {int((~settled).sum())} have not converged and are left out"
    share = misses.sum() / settled.sum()
    level = Level.GOOD if share == 0 else Level.WARNING if share <= KHAT_MANY else Level.BAD
    return Finding("nuts", level, f"{said}.")


def unlike(checks: Mapping[str, PredictiveCheck]) -> dict[str, PredictiveCheck]:
    """The quantities that the model does not make.

    Those whose two-sided p-value, with the data counted among the S replications as one more,
    2 (least count + 1) / (S + 1), is below 5 % shared among all quantities (Bonferroni).
    """
    level = FALSE_ALARM_RATE / max(1, len(checks))
    return {
        name: check
        for name, check in checks.items()
        for count in [len(check.replicated)]
        if (check.two_sided * count + 2) / (count + 1) < level
    }


def judge_checks(topic: str, checks: Mapping[str, PredictiveCheck]) -> Finding:
    """Whether the model makes data like these."""
    made = "data sets drawn anew from the " + topic.split()[0]
    odd, level = unlike(checks), FALSE_ALARM_RATE / len(checks)
    replications = min(len(check.replicated) for check in checks.values())
    if 2 / (replications + 1) >= level:
        text = f"{replications} replications are too few to judge {len(checks)} quantities by."
        return Finding(topic, Level.NOTE, f"{text} Take {int(2 / level) + 1}.")
    if not odd:
        text = f"In {len(checks)} quantities the data are like {made}."
        return Finding(topic, Level.GOOD, text)
    told = "; ".join(
        f"{name} is {check.observed:.4g}, theirs {check.replicated.mean():.4g} ± "
        f"{check.replicated.std():.2g}"
        for name, check in odd.items()
    )
    text = f"The data are unlike {made}: {told}."
    return Finding(topic, Level.WARNING, f"{text} (Test data can differ from training data, too.)")


def judge_loo(loo: "ELPDData") -> Finding:
    """How well each datum is predicted by the others, and whether that figure can be trusted."""
    khat = torch.as_tensor(loo.pareto_k.values.copy())
    share = (khat > loo.good_k).double().mean().item()
    count = loo.n_data_points
    said = (
        f"Left out one by one, the {count} data have an expected log predictive density of "
        f"{loo.elpd / count:.3f} ± {loo.se / count:.3f} nats each"
    )
    if share <= KHAT_FEW:
        return Finding("leaving one out", Level.GOOD, f"{said}; Pareto k̂ is fine.")
    return Finding(
        "leaving one out",
        Level.WARNING if share <= KHAT_MANY else Level.BAD,
        f"{said}; but Pareto k̂ is above {loo.good_k:.2f} for {share:.0%} of them: the fitted "
        "posterior of what they share is not near enough to that without them, or to the truth.",
    )
