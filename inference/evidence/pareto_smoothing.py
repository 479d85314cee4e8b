"""Summaries of importance weights: estimate, error, effective sample size, Pareto k̂, smoothing."""

import math

import numpy as np
import torch
from torch import Tensor

KHAT_MIN_SAMPLES = 25
"""Fewest draws for which k̂ can be fitted: five of them are the tail."""


LOG_WEIGHT_TOLERANCE = 1e-3
"""Log weights that differ by less, in nats, count as equal: float32 rounding may be the cause."""


def summarize_weights(log_weight: Tensor) -> dict[str, Tensor]:
    """Estimate log p(x) from log weights (S, N), with its error and diagnostics.

    With weights w relative to their mean, se(log p̂) = √(Var(w) / S) (delta method).

    Returns:
        ``log_px``, ``standard_error``, ``ess``, ``khat`` and ``log_px_smoothed``, each (N,), as
        :class:`Evidence` documents them.

    Raises:
        ValueError: if a log weight is NaN or +∞, or all log weights of a datum are −∞.

    >>> figures = summarize_weights(torch.zeros(100, 1, dtype=torch.float64))
    >>> figures["log_px"].item(), figures["standard_error"].item(), figures["ess"].item()
    (0.0, 0.0, 100.0)
    """
    num_samples = len(log_weight)
    peak = log_weight.max(0).values
    if not peak.isfinite().all():
        bad = (~peak.isfinite()).nonzero().flatten()
        raise ValueError(
            f"{len(bad)} data have importance weights that are NaN, infinite, or all zero"
        )
    relative = (log_weight - peak).exp()
    mean = relative.mean(0)
    khat, smoothed = pareto_smooth(log_weight)
    return {
        "log_px": peak + mean.log(),
        "standard_error": (relative / mean).std(0) / math.sqrt(num_samples),
        "ess": relative.sum(0).square() / relative.square().sum(0),
        "khat": khat,
        "log_px_smoothed": smoothed.logsumexp(0) - math.log(num_samples),
    }


def pareto_khat(log_weight: Tensor) -> Tensor:
    """Compute Pareto k̂ of log weights (S, N): (N,); see :func:`pareto_smooth`.

    >>> pareto_khat(torch.zeros(100, 1))
    tensor([-inf], dtype=torch.float64)
    """
    return pareto_smooth(log_weight)[0]


def pareto_smooth(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fit Pareto k̂ to log weights (S, N), and smooth their tails.

    ArviZ fits a generalized Pareto distribution to the M largest weights: M = ⌊3√S⌋, or ⌊S / 5⌋
    for S ≤ 225 (Vehtari et al. 2024). In three cases the weights stay as they are:

    - the M largest are equal, to a thousandth: there is no tail, k̂ = −∞;
    - at most M weights are above zero: few draws reach the posterior, k̂ = ∞;
    - M is below five (S < 25): nothing can be fitted, k̂ is NaN.

    Returns:
        k̂, (N,), and the smoothed log weights, (S, N).

    >>> khat, smoothed = pareto_smooth(torch.zeros(100, 1))
    >>> khat, smoothed.unique()
    (tensor([-inf], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    from arviz_stats.base import array_stats  # pyright: ignore # slow to import

    smoothed = log_weight.double().cpu().clone()
    num_samples, num_data = log_weight.shape
    khat = torch.full((num_data,), math.nan, dtype=torch.float64)
    tail = math.floor(3 * num_samples**0.5) if num_samples > 225 else num_samples // 5
    if num_samples < KHAT_MIN_SAMPLES:
        return khat, smoothed
    largest, where = smoothed.topk(tail + 1, dim=0)
    empty = largest[-1] == -math.inf
    flat = ~empty & (largest[0] - largest[-2] < LOG_WEIGHT_TOLERANCE)
    khat[empty], khat[flat] = math.inf, -math.inf
    rest = ~(empty | flat)
    if rest.any():
        # ArviZ expects log-likelihoods, which it negates.
        with np.errstate(all="ignore"):
            fitted = array_stats.psislw(-smoothed[:, rest].T.numpy())
        normalized, shapes = (torch.as_tensor(np.asarray(part)) for part in fitted)
        khat[rest] = shapes.reshape(-1)
        # ArviZ normalizes the weights; one below the tail, which it leaves, gives the constant.
        normalized = normalized.reshape(-1, num_samples).T
        kept = normalized.gather(0, where[-1:, rest])
        smoothed[:, rest] = normalized + (largest[-1:, rest] - kept)
    return khat, smoothed
