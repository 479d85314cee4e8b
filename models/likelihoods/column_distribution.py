"""Distribution of a table's row, whose columns are of different families."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


class ColumnDistribution(dist.TorchDistribution):
    """Rows (D,) whose columns are drawn by several distributions, each of some of the columns.

    Args:
        parts: distributions of the same batch shape, each of event shape (its number of columns,).
        places: for each part, the numbers of its columns; together 0, …, D − 1.
        names: for each column, how an error names it.
        dtype: of draws; classes are their codes in it.

    >>> parts = [dist.Normal(torch.zeros(1), 1.0), dist.Categorical(torch.ones(1, 3))]
    >>> places = [torch.tensor([1]), torch.tensor([0])]
    >>> p = ColumnDistribution([p.to_event(1) for p in parts], places, ("class", "x"))
    >>> p.support.check(torch.tensor([[2.0, 0.3], [3.0, 0.3]])), p.mean
    (tensor([ True, False]), tensor([nan, 0.]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(
        self,
        parts: Sequence[Any],
        places: Sequence[Tensor],
        names: tuple[str, ...],
        *,
        dtype: torch.dtype = torch.float32,
        validate_args: bool | None = None,
    ):
        self.parts, self.places, self.names = list(parts), list(places), names
        self.dtype = dtype
        event_shape = torch.Size([len(names)])
        super().__init__(self.parts[0].batch_shape, event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ColumnDistribution":
        """Expand the batch shape."""
        parts = [part.expand(torch.Size(batch_shape)) for part in self.parts]
        new = ColumnDistribution(
            parts, self.places, self.names, dtype=self.dtype, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        """The supports of the columns."""
        return constraints.independent(ColumnSupport(self.parts, self.places, self.names), 1)

    @property
    def mean(self) -> Tensor:
        """The means of the columns; NaN for classes."""
        return self._join([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        """The variances of the columns; NaN for classes."""
        return self._join([part.variance for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of rows (…, D), summed over the columns."""
        if self._validate_args:
            self._validate_sample(value)
        of_parts = [
            part.log_prob(value.index_select(-1, places))
            for part, places in zip(self.parts, self.places, strict=True)
        ]
        return torch.stack(of_parts).sum(0)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rows (*sample_shape, *batch_shape, D)."""
        return self._join([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def _join(self, values: Sequence[Tensor]) -> Tensor:
        return _join([value.to(self.dtype) for value in values], self.places)


class ColumnSupport(constraints.Constraint):
    """The supports of the columns, element by element."""

    def __init__(self, parts: Sequence[Any], places: Sequence[Tensor], names: tuple[str, ...]):
        self.constraints = [part.support.base_constraint for part in parts]
        self.places = list(places)
        self.element_names = names
        """How an error names each column."""

    @property
    def is_discrete(self) -> bool:  # pyright: ignore
        """Whether all columns are discrete."""
        return all(constraint.is_discrete for constraint in self.constraints)

    def check(self, value: Tensor) -> Tensor:
        """Which elements of rows (…, D) are in the support of their column, (…, D)."""
        flags = [
            constraint.check(value.index_select(-1, places))
            for constraint, places in zip(self.constraints, self.places, strict=True)
        ]
        return _join(flags, self.places)


def _join(values: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Values of the parts, (…, their columns), in the order of the columns, (…, D)."""
    return torch.cat(tuple(values), -1).index_select(-1, torch.cat(tuple(places)).argsort())
