"""A finite set of codes at some positions: what a grid of codes and a codebook have in common."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Size, Tensor, nn


class Codes(nn.Module, ABC):
    """Base class of sets of K codes, vectors of d numbers, one at each of M positions.

    A value has the shape (d, *positions), the numbers of a code first, as the channels of maps are.
    There are Kᴹ values.

    Args:
        num_codes: K.
        dim: d, how many numbers a code has.
        positions: their number M, or their shape, (H, W); () for one code.

    Raises:
        ValueError: if a size is less than 1.
    """

    def __init__(self, num_codes: int, dim: int, positions: int | tuple[int, ...] = ()):
        super().__init__()
        self.positions = (positions,) if isinstance(positions, int) else tuple(positions)
        if min(self.positions, default=1) < 1:
            raise ValueError(f"the number of positions must be at least 1, got {positions}")
        if min(num_codes, dim) < 1:
            raise ValueError(
                f"there must be at least 1 code of 1 number, got {num_codes} codes of {dim}"
            )
        self.num_codes = num_codes
        self.dim = dim

    @property
    def event_shape(self) -> Size:
        """Shape of one value: (d, *positions)."""
        return Size((self.dim, *self.positions))

    @property
    def num_positions(self) -> int:
        """M."""
        return math.prod(self.positions)

    @property
    def num_values(self) -> int:
        """Kᴹ, how many values there are."""
        return self.num_codes**self.num_positions

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the codes are."""

    @abstractmethod
    def quantize(self, features: Tensor) -> Tensor:
        """The values at features (…, d, *positions), with a gradient to the features."""

    @abstractmethod
    def contains(self, value: Tensor) -> Tensor:
        """Which values (…, d, *positions) are made of codes: (…)."""

    @abstractmethod
    def indices(self, value: Tensor) -> Tensor:
        """The numbers 0, …, K − 1 of the codes of values (…, d, *positions): (…, *positions)."""

    @abstractmethod
    def codes(self, indices: Tensor) -> Tensor:
        """The value (…, d, *positions) of code numbers (…, *positions)."""

    def values_at(self, numbers: Tensor) -> Tensor:
        """The values by their numbers 0, …, Kᴹ − 1: (S,) to (S, d, *positions)."""
        places = []
        for _ in range(self.num_positions):
            places.insert(0, numbers % self.num_codes)
            numbers = numbers // self.num_codes
        indices = torch.stack(places, dim=-1).reshape(*numbers.shape, *self.positions)
        return self.codes(indices)
