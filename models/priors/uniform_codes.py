"""Uniform prior over the codes of a grid, or of a codebook."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints

from ..code_grid import CodeGrid
from ..codes import Codes

MOST_LISTED_VALUES = 2**16
"""The most values that ``enumerate_support`` lists at once."""


class UniformCodes(nn.Module):
    """The uniform prior over codes, log p(z) = −M log K on them, and −∞ off them.

    There are M positions with K codes each. The codes are those of a grid, K = L₁ ⋯ L_d: see
    :class:`CodeGrid`; or the vectors of a :class:`Codebook`. With a guide that puts all its mass on
    one value, as :class:`latente.guides.FiniteScalar` and :class:`latente.guides.VectorQuantized`
    do, log q(z|x) = 0, and the ELBO is log p(x|z) − M log K: a lower bound of log p(x), that needs
    no density.

    Args:
        codes: (L₁, …, L_d), the number of levels of each of the d numbers of a code; or the
            :class:`Codebook` of the guide.
        positions: M, or the shape of the positions, (H, W); () for one code. A codebook has its
            own.

    Raises:
        ValueError: if there is no level, one is less than 2, or a size is less than 1; or if
            positions are given beside a codebook.

    >>> prior = UniformCodes((8, 5, 5), positions=(7, 7))
    >>> prior().event_shape
    torch.Size([3, 7, 7])
    >>> round(UniformCodes((4, 4), 2)().log_prob(torch.zeros(2, 2)).item(), 4)  # -2 log 16, in nats
    -5.5452
    """

    def __init__(self, codes: Sequence[int] | Codes, positions: int | tuple[int, ...] = ()):
        super().__init__()
        self.codebook = codebook_of(codes, positions)

    def forward(self) -> "UniformCodesDistribution":
        """p(z): batch shape (), event shape (d, *positions)."""
        return UniformCodesDistribution(self.codebook)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return self.codebook.extra_repr()


def codebook_of(codes: Sequence[int] | Codes, positions: int | tuple[int, ...]) -> Codes:
    """The grid of some levels, or the codebook that is given.

    Raises:
        ValueError: if positions are given beside a codebook.
    """
    if not isinstance(codes, Codes):
        return CodeGrid(codes, positions)
    if positions != ():
        raise ValueError(
            f"the {type(codes).__name__} has its own positions, {codes.positions}: leave "
            f"positions={positions} out"
        )
    return codes


class _OfCodes(constraints.Constraint):
    """Values that are made of codes."""

    is_discrete = True

    def __init__(self, codebook: Codes):
        self.codebook = codebook
        self.event_dim = len(codebook.event_shape)  # pyright: ignore # a property in the base class
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.codebook.contains(value)


class UniformCodesDistribution(dist.TorchDistribution):
    """The uniform distribution over the values of :class:`Codes`."""

    arg_constraints: ClassVar = {}  # pyright: ignore
    has_enumerate_support = True

    def __init__(self, codebook: Codes, batch_shape: Any = (), validate_args: Any = None):
        self.codebook = codebook
        super().__init__(Size(batch_shape), codebook.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The values that are made of codes."""
        return _OfCodes(self.codebook)

    @property
    def num_codes(self) -> int:
        """How many codes there are at a position: K."""
        return self.codebook.num_codes

    def indices(self, value: Tensor) -> Tensor:
        """The numbers of the codes of values (…, d, *positions): (…, *positions)."""
        return self.codebook.indices(value)

    @property
    def num_values(self) -> int:
        """How many values have mass: Kᴹ."""
        return self.codebook.num_values

    def values_at(self, numbers: Tensor) -> Tensor:
        """The values by their numbers 0, …, Kᴹ − 1: (S,) to (S, *event_shape)."""
        return self.codebook.values_at(numbers)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with another batch shape."""
        return UniformCodesDistribution(self.codebook, batch_shape, self._validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values drawn uniformly, (*sample_shape, *batch_shape, *event_shape)."""
        shape = (*sample_shape, *self.batch_shape, *self.codebook.positions)
        device = self.codebook.device
        return self.codebook.codes(torch.randint(self.codebook.num_codes, shape, device=device))

    def log_prob(self, value: Tensor) -> Tensor:
        """−M log K of values (…, *event_shape) on the grid, −∞ of others: (…)."""
        shape = torch.broadcast_shapes(
            value.shape[: value.dim() - len(self.event_shape)], self.batch_shape
        )
        nats = self.codebook.num_positions * math.log(self.codebook.num_codes)
        on_grid = self.codebook.contains(value).expand(shape)
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
                f"there are {self.codebook.num_codes}^{self.codebook.num_positions} = "
                f"{self.num_values:,} values, and at most {MOST_LISTED_VALUES:,} are listed at once"
            )
        values = self.values_at(torch.arange(self.num_values, device=self.codebook.device))
        ones = [1] * len(self.batch_shape)
        values = values.reshape(-1, *ones, *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values
