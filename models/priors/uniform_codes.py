"""Uniform prior over the codes of a grid."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints

from ..code_grid import CodeGrid

MOST_LISTED_VALUES = 2**16
"""The most values that ``enumerate_support`` lists at once."""


class UniformCodes(nn.Module):
    """The uniform prior over the codes of a grid, log p(z) = −M log K on it, and −∞ off it.

    There are M positions with K = L₁ ⋯ L_d codes each: see :class:`CodeGrid`. With a guide that
    puts all its mass on one value, as :class:`latente.guides.FiniteScalar` does, log q(z|x) = 0,
    and the ELBO is log p(x|z) − M log K: a lower bound of log p(x), that needs no density.

    Args:
        levels: (L₁, …, L_d), the number of levels of each of the d numbers of a code.
        positions: M, or the shape of the positions, (H, W); () for one code.

    Raises:
        ValueError: if there is no level, one is less than 2, or a size is less than 1.

    >>> prior = UniformCodes((8, 5, 5), positions=(7, 7))
    >>> prior().event_shape
    torch.Size([3, 7, 7])
    >>> round(UniformCodes((4, 4), 2)().log_prob(torch.zeros(2, 2)).item(), 4)  # -2 log 16, in nats
    -5.5452
    """

    def __init__(self, levels: Sequence[int], positions: int | tuple[int, ...] = ()):
        super().__init__()
        self.grid = CodeGrid(levels, positions)

    def forward(self) -> "UniformCodesDistribution":
        """p(z): batch shape (), event shape (d, *positions)."""
        return UniformCodesDistribution(self.grid)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return self.grid.extra_repr()


class _OnGrid(constraints.Constraint):
    """Values on a grid of codes."""

    is_discrete = True

    def __init__(self, grid: CodeGrid):
        self.grid = grid
        self.event_dim = len(grid.event_shape)  # pyright: ignore # a property in the base class
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.grid.contains(value)


class UniformCodesDistribution(dist.TorchDistribution):
    """The uniform distribution over the values of a :class:`CodeGrid`."""

    arg_constraints: ClassVar = {}  # pyright: ignore
    has_enumerate_support = True

    def __init__(self, grid: CodeGrid, batch_shape: Any = (), validate_args: Any = None):
        self.grid = grid
        super().__init__(Size(batch_shape), grid.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The grid."""
        return _OnGrid(self.grid)

    @property
    def num_values(self) -> int:
        """How many values have mass: Kᴹ."""
        return self.grid.num_values

    def values_at(self, numbers: Tensor) -> Tensor:
        """The values by their numbers 0, …, Kᴹ − 1: (S,) to (S, *event_shape)."""
        return self.grid.values_at(numbers)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with another batch shape."""
        return UniformCodesDistribution(self.grid, batch_shape, self._validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values drawn uniformly, (*sample_shape, *batch_shape, *event_shape)."""
        shape = (*sample_shape, *self.batch_shape, *self.grid.positions)
        device = self.grid.half_width.device
        return self.grid.codes(torch.randint(self.grid.num_codes, shape, device=device))

    def log_prob(self, value: Tensor) -> Tensor:
        """−M log K of values (…, *event_shape) on the grid, −∞ of others: (…)."""
        shape = torch.broadcast_shapes(
            value.shape[: value.dim() - len(self.event_shape)], self.batch_shape
        )
        nats = self.grid.num_positions * math.log(self.grid.num_codes)
        on_grid = self.grid.contains(value).expand(shape)
        return torch.full(shape, -nats, dtype=value.dtype, device=value.device).where(
            on_grid, -math.inf
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, (Kᴹ, *batch_shape, *event_shape); batch sizes of 1 without ``expand``.

        Raises:
            ValueError: if there are more than :data:`MOST_LISTED_VALUES`.
        """
        if self.num_values > MOST_LISTED_VALUES:
            raise ValueError(
                f"the grid has {self.grid.num_codes}^{self.grid.num_positions} = "
                f"{self.num_values:,} values, and at most {MOST_LISTED_VALUES:,} are listed at once"
            )
        values = self.values_at(torch.arange(self.num_values, device=self.grid.half_width.device))
        ones = [1] * len(self.batch_shape)
        values = values.reshape(-1, *ones, *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values
