"""Importance weights summarized: estimate, error, effective sample size, Pareto k̂, smoothing."""

import math

import numpy as np
import torch
from torch import Tensor

EQUAL_LOG_WEIGHTS = 1e-3
"""Log weights that differ by less are equal: what they differ by may be rounding, in float32."""


def summarize_weights(log_weight: Tensor) -> dict[str, Tensor]:
    """Estimate, standard error, effective sample size and k̂ of log weights (S, N).

    With weights w relative to their mean, se(log p̂) = √(Var(w) / S) (delta method).

    Raises:
        ValueError: if a log weight is NaN, or all of a datum's are −∞.

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
    """Pareto k̂ of log weights (S, N), one for each of the N; see :func:`pareto_smooth`.

    >>> pareto_khat(torch.zeros(100, 1))
    tensor([-inf], dtype=torch.float64)
    """
    return pareto_smooth(log_weight)[0]


def pareto_smooth(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto k̂ of log weights (S, N), each (N,), and the smoothed log weights, (S, N).

    By ArviZ, on the M largest weights: M = ⌊3√S⌋, or ⌊S / 5⌋ where S ≤ 225 (Vehtari et al. 2024).
    Where these are equal, to a thousandth, there is no tail and k̂ = −∞. Where no more than M
    weights are not zero, the draws hardly meet the posterior and k̂ = ∞. Fewer than five (S < 25)
    cannot be fitted, and k̂ is NaN. In these three cases the weights stay as they are.

    >>> khat, smoothed = pareto_smooth(torch.zeros(100, 1))
    >>> khat, smoothed.unique()
    (tensor([-inf], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    from arviz_stats.base import array_stats  # pyright: ignore # slow to import

    smoothed = log_weight.double().cpu().clone()
    num_samples, num_data = log_weight.shape
    khat = torch.full((num_data,), math.nan, dtype=torch.float64)
    tail = math.floor(3 * num_samples**0.5) if num_samples > 225 else num_samples // 5
    if tail < 5:
        return khat, smoothed
    largest, where = smoothed.topk(tail + 1, dim=0)
    empty = largest[-1] == -math.inf
    flat = ~empty & (largest[0] - largest[-2] < EQUAL_LOG_WEIGHTS)
    khat[empty], khat[flat] = math.inf, -math.inf
    rest = ~(empty | flat)
    if rest.any():
        # ArviZ takes log-likelihoods and negates them: it is given minus the log weights.
        with np.errstate(all="ignore"):
            fitted = array_stats.psislw(-smoothed[:, rest].T.numpy())
        normalized, shapes = (torch.as_tensor(np.asarray(part)) for part in fitted)
        khat[rest] = shapes.reshape(-1)
        # What ArviZ gives sums to 1; a weight below the tail, which it leaves, tells by how much.
        normalized = normalized.reshape(-1, num_samples).T
        kept = normalized.gather(0, where[-1:, rest])
        smoothed[:, rest] = normalized + (largest[-1:, rest] - kept)
    return khat, smoothed
