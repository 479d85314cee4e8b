"""Scales from features: the exponential, or one that cannot overflow."""

from torch import Tensor


def check_max_log_scale(max_log_scale: float | None) -> None:
    """Refuse a bound of the log scale that is not positive.

    Raises:
        ValueError: with the bound.
    """
    if max_log_scale is not None and not max_log_scale > 0:
        raise ValueError(f"max_log_scale must be positive, got {max_log_scale}")


def bound_log_scale(raw: Tensor, max_log_scale: float | None) -> Tensor:
    """The log scale of raw features: as they are, or between −m and m.

    ::

        log σ = m tanh(raw / m)

    Near 0 it is the raw feature; far away its gradient vanishes, and σ stays between e⁻ᵐ and eᵐ
    (NVAE, Vahdat and Kautz 2020, arXiv 2007.03898, whose code takes m = 5).

    Args:
        raw: features of any shape.
        max_log_scale: m; ``None``: no bound.

    >>> import torch
    >>> bound_log_scale(torch.tensor([-1e6, 0.0, 1e6]), 5.0).tolist()
    [-5.0, 0.0, 5.0]
    """
    return raw if max_log_scale is None else max_log_scale * (raw / max_log_scale).tanh()
