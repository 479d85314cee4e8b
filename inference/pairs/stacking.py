"""Traces of separate runs of a program as one trace, with the runs along a first dimension."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.trace_struct import Trace
from torch import Size, Tensor

from .sites import sample_sites


class Stacked(TorchDistribution):
    """Distributions of separate runs, along a new first batch dimension.

    Args:
        parts: S distributions of the same shapes.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, parts: Sequence[Any]):
        self.parts = tuple(parts)
        batch_shape = Size((len(self.parts), *self.parts[0].batch_shape))
        super().__init__(batch_shape, self.parts[0].event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether draws of all parts have a gradient."""
        return all(part.has_rsample for part in self.parts)

    @property
    def support(self) -> Any:
        """The support of the first part."""
        return self.parts[0].support

    @property
    def mean(self) -> Tensor:
        """The means of the parts."""
        return torch.stack([part.mean for part in self.parts])

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw from each part."""
        return self._stack(lambda part: part.rsample(Size(sample_shape)), sample_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw from each part, without a gradient."""
        return self._stack(lambda part: part.sample(Size(sample_shape)), sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each part at its own value, (S, *batch_shape)."""
        return torch.stack(
            [part.log_prob(own) for part, own in zip(self.parts, value, strict=True)]
        )

    def _stack(self, draw: Callable[[Any], Tensor], sample_shape: Any) -> Tensor:
        return torch.stack([draw(part) for part in self.parts], dim=len(sample_shape))


def stack_traces(traces: Sequence[Trace]) -> Trace:
    """The sample sites of separate runs of a program, each of which has one datum.

    The result has the form of a trace under a plate of samples to the left of all others.

    Raises:
        ValueError: if a run has other sites than the first one, or of other shapes.
    """
    runs = [sample_sites(trace) for trace in traces]
    stacked = Trace()
    for run in runs[1:]:
        for name in run.keys() ^ runs[0].keys():
            raise ValueError(
                f"the program has the site {name!r} in some runs only: sites must be the same in "
                "each run"
            )
    for name, site in runs[0].items():
        own = [run[name] for run in runs]
        masks = [part["mask"] for part in own]
        mask = None
        if any(mask is not None for mask in masks):
            shape = site["fn"].batch_shape
            given = [torch.as_tensor(True if mask is None else mask) for mask in masks]
            mask = torch.stack([part.expand(shape) for part in given])
        values = [whole_value(part) for part in own]
        if len({value.shape for value in values}) > 1:
            raise ValueError(f"the site {name!r} has another shape in each run of the program")
        fn = Stacked([part["fn"] for part in own])
        stacked.add_node(name, **{**site, "value": torch.stack(values), "fn": fn, "mask": mask})
    return stacked


def whole_value(site: Any) -> Tensor:
    """The value of a site, with all of its batch dimensions."""
    value, shape = site["value"], site["fn"].batch_shape
    event = value.shape[value.dim() - site["fn"].event_dim :]
    return value.expand((*shape, *event)) if value.numel() else value
