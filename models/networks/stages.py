"""Networks one after the other, of which the output of each is kept."""

from collections.abc import Mapping

from torch import Tensor, nn


class Stages(nn.Module):
    """The bottom-up path of a hierarchy: d₁ = f₁(x), d₂ = f₂(d₁), …, all of which it returns.

    It is the encoder of a :class:`latente.guides.TopDown`, whose level of the name of a stage sees
    the output of that stage (Sønderby et al. 2016, arXiv 1602.02282).

    Args:
        stages: networks by the names of the levels, from the bottom up: from data to features, and
            from the features of a stage to those of the next. If the first one takes a context, as
            a :class:`Conditional` does, the encoder takes it.

    Raises:
        ValueError: if there is no stage.

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

    @property
    def conditional(self) -> bool:
        """Whether the first stage takes a context."""
        return bool(getattr(next(iter(self.stages.values())), "conditional", False))

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Data (N, *event_shape) to the features of each stage, by name."""
        features: dict[str, Tensor] = {}
        d = x
        for name, stage in self.stages.items():
            d = stage(d, *context) if not features else stage(d)
            features[name] = d
        return features
