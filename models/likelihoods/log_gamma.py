"""Ratios of gamma functions, computed without loss of digits at large arguments."""

import torch
from torch import Tensor

INFINITE_SHAPE = 1e15
"""Shape r or ν that counts as infinite: with a larger one, 1/r² in gradients is 0 in float32."""


def log_gamma_ratio(base: Tensor, step: Tensor) -> Tensor:
    """Compute log Γ(r + x) − log Γ(r) − x log r of base r and step x; it tends to 0 as r grows."""
    direct = torch.lgamma(base + step) - torch.lgamma(base) - step * base.log()
    # For r ≥ 10 Stirling's series, with the large terms cancelled by hand; for a practically
    # infinite r its limit.
    large = base.clamp(10, INFINITE_SHAPE)
    stirling = (large + step - 0.5) * torch.log1p(step / large) - step
    return torch.where(base < 10, direct, stirling + _remainder(large + step) - _remainder(large))


def _remainder(z: Tensor) -> Tensor:
    """log Γ(z) − ((z − ½) log z − z + ½ log 2π), accurate to 1e-10 for z ≥ 10."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * z**2)) / z**2) / z
