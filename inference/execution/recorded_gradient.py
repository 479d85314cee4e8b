"""A function of one tensor to a number, recorded together with its gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .recorded import Recorded


def record_gradient(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Record a function with its gradient, so that it is differentiated without being run.

    What a recording gives carries no gradient: here value and slope are recorded together.

    >>> square = record_gradient(lambda x: x.square().sum())
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> torch.autograd.grad(square(x), x)
    (tensor([2., 4.]),)
    """

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = function(x)
            (slope,) = torch.autograd.grad(value, x)
        return value.detach(), slope

    recorded = Recorded(both)

    class WithSlope(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore
            value, slope = recorded(x.detach())
            ctx.save_for_backward(slope.clone())
            return value.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore
            (slope,) = ctx.saved_tensors
            return grad * slope

    return WithSlope.apply  # pyright: ignore
