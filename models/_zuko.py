"""Import of zuko without its side effect, and zuko distributions wrapped for Pyro.

Importing zuko switches off the validation of PyTorch's distributions for the whole process; here it
is put back. All our code imports zuko from here.
"""

from typing import Any, ClassVar

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

_validate = Distribution._validate_args
try:
    import zuko
finally:
    Distribution._validate_args = _validate


class FlowDistribution(ZukoToPyro):
    """A zuko distribution as a Pyro distribution; it can draw and score, but has no moments."""

    support = constraints.real_vector
    arg_constraints: ClassVar = {}

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Reparameterized draws; their densities are computed with them and kept."""
        return self(sample_shape)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws without a gradient."""
        with torch.no_grad():
            return self.dist.sample(sample_shape)

    def expand(self, batch_shape: Size, _instance: object = None) -> "FlowDistribution":
        """Expand the batch shape."""
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))

    @property
    def mean(self) -> Tensor:
        """Raise an error: a flow has no moments in closed form."""
        raise NotImplementedError(
            "a flow has no moments in closed form: average draws of it, or use posterior_means"
        )

    variance = mean

    def __repr__(self) -> str:
        return f"FlowDistribution({tuple(self.batch_shape)}, {tuple(self.event_shape)})"


def in_whole_space(distribution: FlowDistribution) -> bool:
    """Whether a flow's distribution has mass everywhere, not only in a bounded region."""
    base: Any = distribution.dist
    return bool(base.base.support.check(torch.full(distribution.event_shape, 100.0)).all())


__all__ = ["FlowDistribution", "in_whole_space", "zuko"]
