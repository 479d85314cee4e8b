"""Kernels of the maximum mean discrepancy."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""k(a, b) of points (n, K) and (m, K): (n, m), symmetric and positive definite."""


@dataclass(frozen=True)
class _RadialKernel:
    """k(a, b) = f(‖a − b‖² / c); c = 2K if not given."""

    name: str
    scale: float | None
    profile: Callable[[Tensor], Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"the scale of a kernel must be positive, got {self.scale}")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        c = 2.0 * a.shape[-1] if self.scale is None else self.scale
        return self.profile((a[:, None] - b).square().sum(-1) / c)


def _falling(ratio: Tensor) -> Tensor:
    return 1 / (1 + ratio)


def _gaussian(ratio: Tensor) -> Tensor:
    return (-ratio).exp()


def name_kernel(kernel: Kernel) -> str:
    """The name of a kernel. A function's ``repr`` has its address, which differs in each run."""
    return getattr(kernel, "__qualname__", repr(kernel))


def inverse_multiquadratic(scale: float | None = None) -> Kernel:
    """The kernel k(a, b) = c / (c + ‖a − b‖²), whose tails are heavy (Tolstikhin et al. 2018).

    Args:
        scale: c; 2K for points of K dimensions, if not given.

    Raises:
        ValueError: if it is not positive.

    >>> inverse_multiquadratic(2.0)(torch.zeros(1, 3), torch.ones(1, 3)).item()
    0.4000000059604645
    """
    return _RadialKernel("inverse multiquadratic", scale, _falling)


def gaussian_kernel(scale: float | None = None) -> Kernel:
    """The kernel k(a, b) = exp(−‖a − b‖² / c).

    Args:
        scale: c; 2K for points of K dimensions, if not given.

    Raises:
        ValueError: if it is not positive.

    >>> round(gaussian_kernel(2.0)(torch.zeros(1, 2), torch.ones(1, 2)).item(), 4)
    0.3679
    """
    return _RadialKernel("gaussian", scale, _gaussian)


def check_kernel(kernel: Kernel) -> None:
    """Refuse a kernel whose matrix of 24 points is not symmetric and positive definite.

    Raises:
        ValueError: naming the property that it lacks.
    """
    if not callable(kernel):
        raise ValueError(f"a kernel is a function of points (n, K) and (m, K), not {kernel!r}")
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    matrix = kernel(points, points)
    if matrix.shape != (24, 24) or not torch.allclose(matrix, matrix.mT):
        raise ValueError("a kernel takes points (n, K) and (m, K) to a symmetric k(a, b), (n, m)")
    if not matrix.isfinite().all() or torch.linalg.eigvalsh(matrix).min() <= 0:
        raise ValueError(
            "the kernel is not positive definite: its matrix of 24 points has an eigenvalue of "
            "zero or below; take inverse_multiquadratic() or gaussian_kernel()"
        )


def points_of(value: Tensor, event_dim: int) -> Tensor:
    """Values of a site as points (n, K)."""
    return value.reshape(-1, value.shape[value.dim() - event_dim :].numel())
