"""Networks one after the other, of which the output of each is kept."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..trial import trial
from .flatten import FlattenEvent
from .maps import Maps


class Stages(nn.Module):
    """The bottom-up path of a hierarchy: d₁ = f₁(x), d₂ = f₂(d₁), …, all of which it returns.

    It is the encoder of a :class:`latente.guides.TopDown`, whose level of the name of a stage sees
    the output of that stage (Sønderby et al. 2016, arXiv 1602.02282).

    Args:
        stages: networks by the names of the levels, from the bottom up: from data to features, and
            from the features of a stage to those of the next. If the first one takes a context, as
            a :class:`Conditional` does, the encoder takes it.

    Raises:
        ValueError: if there is no stage, or a stage does not fit the one below it. Where the shape
            of the data cannot be told from the first stage, the latter shows when it runs.

    >>> import torch
    >>> from latente.models import mlp
    >>> stages = Stages({"z1": mlp(64, 32, out=16), "z2": mlp(16, 16, out=8)})
    >>> {name: tuple(d.shape) for name, d in stages(torch.zeros(5, 8, 8)).items()}
    {'z1': (5, 16), 'z2': (5, 8)}
    """

    def __init__(self, stages: Mapping[str, nn.Module]):
        super().__init__()
        if not stages:
            raise ValueError("an encoder has at least one stage, got none")
        self.stages = nn.ModuleDict(stages)
        x = self.example()
        if x is not None:
            with trial(self):
                self(x)

    def example(self) -> Tensor | None:
        """Two data of zeros (2, *event_shape), if the first stage shows their shape."""
        first = next(iter(self.stages.values()))
        while isinstance(first, nn.Sequential) and len(first):
            first = first[0]
        if isinstance(first, FlattenEvent):
            shape = first.event if isinstance(first.event, tuple) else (first.event,)
        elif isinstance(first, Maps):
            shape = first.event_shape
        else:
            return None
        like = [*self.parameters()]
        # Parts of several types are not yet what they will be: a pair may be brought to one later.
        if len({(value.dtype, value.device) for value in like}) != 1:
            return None
        return like[0].new_zeros(2, *shape)

    @property
    def conditional(self) -> bool:
        """Whether the first stage takes a context."""
        return bool(getattr(next(iter(self.stages.values())), "conditional", False))

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Data (N, *event_shape) to the features of each stage, by name."""
        features: dict[str, Tensor] = {}
        d, below = x, ""
        for name, stage in self.stages.items():
            try:
                d = stage(d, *context) if not features else stage(d)
            except (ValueError, RuntimeError) as error:
                raise ValueError(_does_not_fit(name, below, d, error)) from error
            features[name], below = d, name
        return features


def _does_not_fit(name: str, below: str, d: Tensor, error: Exception) -> str:
    gives = f"stage {below!r} below it, which gives features" if below else "data"
    reason = str(error).splitlines()[0]
    return f"stage {name!r} does not fit {gives} of shape {tuple(d.shape[1:])}: {reason}"
