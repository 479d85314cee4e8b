"""Precision of the matrix products in a network's layers."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Precision = Literal["float32", "medium", "bfloat16"]


LAYERS = {
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
}
"""The functions that dense and convolutional layers call."""


class _InBfloat16(TorchFunctionMode):
    """Layers multiply in bfloat16 and return float32; other functions are unchanged."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in LAYERS or args[0].dtype != torch.float32:
            return func(*args, **kwargs)
        args = tuple(map(_to_bfloat16, args))
        return func(*args, **{name: _to_bfloat16(value) for name, value in kwargs.items()}).float()


def _to_bfloat16(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) else value


@contextlib.contextmanager
def layer_precision(precision: Precision) -> Iterator[None]:
    """Set the precision with which layers multiply, inside a ``with`` block.

    Draws, densities, their sums and all parameters stay in float32 in all three cases.

    Args:
        precision: one of

            - ``"float32"``: in the dtype of the pair's parameters;
            - ``"medium"``: PyTorch's ``set_float32_matmul_precision("medium")``, which allows the
              fastest float32 product it has. On GPUs, and on CPUs with bfloat16 units, that rounds
              to bfloat16 (or TF32); on other CPUs oneDNN's product is as exact as any;
            - ``"bfloat16"``: dense and convolutional layers multiply numbers rounded to bfloat16,
              8 bits of precision, forward and backward.

    Raises:
        ValueError: if ``precision`` is another.

    >>> layer, x = torch.nn.Linear(3, 1), torch.ones(1, 3)
    >>> with layer_precision("bfloat16"):
    ...     rounded = layer(x)
    >>> rounded.dtype, bool((rounded - layer(x)).abs() < 0.02)
    (torch.float32, True)
    """
    if precision == "bfloat16":
        with _InBfloat16():
            yield
    elif precision == "medium":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    elif precision == "float32":
        yield
    else:
        raise ValueError(f"precision is 'float32', 'medium' or 'bfloat16', got {precision!r}")
