"""The grid of finite scalar quantization: its values, their numbers, and the rounding to it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .codes import Codes

ON_GRID_TOLERANCE = 1e-3
"""Distance from a level, in spacings of the levels, within which a number counts as on it: float32
and float64 divide differently."""


class CodeGrid(Codes):
    """The grid of the codes of finite scalar quantization (FSQ).

    A code is a vector of d numbers, and number i has Lᵢ levels, spaced evenly in [−1, 1]::

        (k − ⌊Lᵢ/2⌋) / ⌊Lᵢ/2⌋,   k = 0, …, Lᵢ − 1

    so there are K = L₁ ⋯ L_d codes. A value has one code at each of M positions: shape (d,
    *positions), the numbers of a code first, as the channels of maps are. There are Kᴹ values.

    Args:
        levels: (L₁, …, L_d), each at least 2.
        positions: their number M, or their shape, (H, W); () for one code.

    Raises:
        ValueError: if there is no level, one is less than 2, or a size is less than 1.

    Source: Mentzer, Minnen, Agustsson and Tschannen 2023 (arXiv 2309.15505).

    >>> grid = CodeGrid((3, 5), positions=4)
    >>> grid.event_shape, grid.num_codes, grid.num_values
    (torch.Size([2, 4]), 15, 50625)
    """

    half_width: Tensor

    def __init__(self, levels: Sequence[int], positions: int | tuple[int, ...] = ()):
        levels = tuple(levels)
        if min(levels, default=0) < 2:
            raise ValueError(f"each number of a code needs at least 2 levels, got {levels}")
        super().__init__(math.prod(levels), len(levels), positions)
        self.levels = levels
        half = torch.tensor([float(size // 2) for size in self.levels])
        # Buffers, so that they move with the grid to another device or dtype.
        self.register_buffer("half_width", self._column(half), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the grid is."""
        return self.half_width.device

    def _column(self, numbers: Tensor) -> Tensor:
        """One number for each of the d parts of a code, along the first axis of a value."""
        return numbers.reshape(-1, *[1] * len(self.positions))

    def _sizes(self, like: Tensor) -> Tensor:
        return self._column(torch.tensor(self.levels, dtype=like.dtype, device=like.device))

    def quantize(self, features: Tensor) -> Tensor:
        """Bound features (…, d, *positions) and round them to the grid, straight through.

        ::

            bounded = (L − 1)/2 · tanh(feature + shift) − offset,   value = round(bounded) / ⌊L/2⌋

        with offset ½ for even L, else 0; the shift puts feature 0 on level 0. Rounding has the
        gradient 1.
        """
        sizes = self._sizes(features)
        reach = (sizes - 1) / 2
        offset = 0.5 * (1 - sizes % 2)
        # With two levels the offset is all of the reach: 0 is then the border between them.
        shift = (offset / reach).where(sizes > 2, 0.0).atanh()
        bounded = reach * (features + shift).tanh() - offset
        level = bounded.round()
        # The difference is exactly 0, so the value is exactly on the grid.
        through = level.detach() + (bounded - bounded.detach())
        return through / self.half_width

    def contains(self, value: Tensor) -> Tensor:
        """Which values (…, d, *positions) are on the grid: (…)."""
        scaled = value * self.half_width
        level = scaled.round()
        top = self._sizes(value) - 1 - self.half_width
        near = (scaled - level).abs() < ON_GRID_TOLERANCE
        inside = near & (level >= -self.half_width) & (level <= top)
        return inside.flatten(-len(self.event_shape)).all(-1)

    def indices(self, value: Tensor) -> Tensor:
        """The numbers 0, …, K − 1 of the codes of values (…, d, *positions): (…, *positions)."""
        digits = (value * self.half_width).round() + self.half_width
        total = torch.zeros_like(digits.select(-len(self.event_shape), 0)).long()
        for part, size in enumerate(self.levels):
            total = total * size + digits.select(-len(self.event_shape), part).long()
        return total

    def codes(self, indices: Tensor) -> Tensor:
        """The value (…, d, *positions) of code numbers (…, *positions).

        >>> grid = CodeGrid((3, 5), positions=4)
        >>> numbers = torch.tensor([0, 14, 7, 3])
        >>> grid.indices(grid.codes(numbers)).equal(numbers)
        True
        """
        digits = []
        for size in reversed(self.levels):
            digits.insert(0, indices % size)
            indices = indices // size
        level = torch.stack(digits, dim=-len(self.event_shape)).to(self.half_width.dtype)
        return (level - self.half_width) / self.half_width

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"levels={self.levels}, positions={self.positions}"
