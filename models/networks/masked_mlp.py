"""A dense network whose features of an element depend only on the elements before it."""

from typing import Any

import torch
from torch import Size, Tensor, nn

from .._zuko import zuko
from .autoregressive_network import AutoregressiveNetwork
from .flatten import FlattenEvent


class MaskedMLP(nn.Sequential, AutoregressiveNetwork):  # pyright: ignore
    """Dense autoregressive network, as in MADE (Germain et al. 2015, arXiv 1502.03509).

    The features of an element are a linear function of all elements before it, plus the output of
    hidden units that see some of these, plus the features of z. So z moves the features of each
    element, and is not seen by the hidden units. Elements are taken in the order of the flattened
    datum.

    Args:
        event_shape: shape of one datum.
        *hidden: widths of the hidden layers, in order; none gives a linear map.
        features_per_element: number of features for each element, that of the likelihood.
        num_classes: C, where elements are classes 0, …, C − 1 and enter as indicators; 0: numbers.

    Raises:
        ValueError: if a width is less than 1, or a datum has only one element.

    >>> network = MaskedMLP((2, 2), 16)
    >>> network(torch.zeros(5, 2, 2)).shape, network.num_latent_features
    (torch.Size([5, 4]), 4)
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *hidden: int,
        features_per_element: int = 1,
        num_classes: int = 0,
    ):
        num_elements = Size(event_shape).numel()
        check_elements(num_elements)
        if min(*hidden, features_per_element, 1) < 1:
            raise ValueError(f"every width must be at least 1, got {hidden}")
        masked = _Masked(num_elements, hidden, features_per_element, max(num_classes, 1))
        super().__init__(FlattenEvent(tuple(event_shape)), masked)
        self.event_shape = Size(event_shape)
        self.features_per_element = features_per_element
        self.num_classes = num_classes
        self.num_latent_features = features_per_element * num_elements

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:  # pyright: ignore
        """Data (…, *event_shape) to features (…, features_per_element · D), those of z added."""
        if self.num_classes:
            flatten, masked = self
            weight = next(self.parameters())
            features = masked(self.read(flatten(x), weight).flatten(-2))
        else:
            features = super().forward(x)
        return features if latent is None else features + latent


def check_elements(num_elements: int) -> None:
    """Refuse a datum of one element, which has none before it."""
    if num_elements < 2:
        raise ValueError("an autoregressive model needs data of two elements or more")


class _Masked(nn.Module):
    """A network (…, D) → (…, blocks · D) whose i-th outputs see only the inputs before the i-th.

    Each input is ``numbers`` numbers, one after the other.

    A hidden unit of degree m sees inputs 0 … m − 1, and outputs m, m + 1, … see it. Degrees are
    spread over all elements, even with few hidden units, and direct connections from all earlier
    inputs make sure that none is left out.
    """

    def __init__(self, num_elements: int, hidden: tuple[int, ...], blocks: int, numbers: int):
        super().__init__()
        inputs = torch.arange(num_elements).repeat_interleave(numbers)
        outputs = torch.arange(num_elements).repeat(blocks)
        self.direct = _linear(outputs[:, None] > inputs)
        layers: list[nn.Module] = []
        seen = inputs + 1  # degrees of the layer below: input i is seen from degree i + 1 on
        for width in hidden:
            degrees = torch.linspace(1, num_elements - 1, width).round().long()
            layers += [_linear(degrees[:, None] >= seen), nn.ReLU()]
            seen = degrees
        self.hidden = nn.Sequential(*layers, _linear(outputs[:, None] >= seen)) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (…, numbers · D) to features (…, blocks · D)."""
        return self.direct(x) if self.hidden is None else self.direct(x) + self.hidden(x)


def _linear(connected: Any) -> nn.Module:
    return zuko.nn.MaskedLinear(connected)
