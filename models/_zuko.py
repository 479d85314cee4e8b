"""zuko, imported without its side effect, and its distributions as Pyro's.

It switches the validation of PyTorch's distributions off for the whole process; here that is
put back as it was. Everything of ours that needs zuko takes it from here.
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
    """A zuko distribution as a Pyro one that draws and scores; it knows no moments."""

    support = constraints.real_vector
    arg_constraints: ClassVar = {}

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Reparameterized draws; their densities come with them, and are kept."""
        return self(sample_shape)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws without a gradient."""
        with torch.no_grad():
            return self.dist.sample(sample_shape)

    def expand(self, batch_shape: Size, _instance: object = None) -> "FlowDistribution":
        """The same distribution in a larger batch."""
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))

    @property
    def mean(self) -> Tensor:
        """Not known in closed form."""
        raise NotImplementedError("a flow knows no moments: draw from it, or use posterior_means")

    variance = mean

    def __repr__(self) -> str:
        return f"FlowDistribution({tuple(self.batch_shape)}, {tuple(self.event_shape)})"


def in_whole_space(distribution: FlowDistribution) -> bool:
    """Whether a flow's distribution reaches everywhere, rather than a bounded region."""
    base: Any = distribution.dist
    return bool(base.base.support.check(torch.full(distribution.event_shape, 100.0)).all())


__all__ = ["FlowDistribution", "in_whole_space", "zuko"]
