"""Differences of log Γ that keep their digits at large arguments."""

import torch
from torch import Tensor

INFINITE = 1e15
"""What r and ν count as infinite: much more, and 1/r², in gradients, is 0 in float32."""


def log_rising(base: Tensor, step: Tensor) -> Tensor:
    """log Γ(r + x) − log Γ(r) − x log r of base r and step x, which vanishes as r grows."""
    direct = torch.lgamma(base + step) - torch.lgamma(base) - step * base.log()
    # From r = 10 on Stirling's series, in which the large terms cancel on paper; and its limit
    # where r is as good as infinite.
    large = base.clamp(10, INFINITE)
    stirling = (large + step - 0.5) * torch.log1p(step / large) - step
    return torch.where(base < 10, direct, stirling + _remainder(large + step) - _remainder(large))


def _remainder(z: Tensor) -> Tensor:
    """log Γ(z) less (z − ½) log z − z + ½ log 2π, to 1e-10 for z ≥ 10."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * z**2)) / z**2) / z
