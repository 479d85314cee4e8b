"""Autoregressive likelihood: each element given those before it."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.types import _size

from .._zuko import zuko
from ..networks.flatten import FlattenEvent
from .likelihood import Likelihood


class AutoregressiveDistribution(dist.TorchDistribution):
    """p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁), scored in one pass of its network and drawn in D passes."""

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(
        self,
        network: nn.Module,
        likelihood: Likelihood,
        offset: Tensor | None = None,
        batch_shape: Size | None = None,
    ):
        self.network, self.likelihood = network, likelihood
        self.offset = offset  # added to the network's features, (*batch_shape, num_features)
        if batch_shape is None:
            batch_shape = Size() if offset is None else offset.shape[:-1]
        super().__init__(batch_shape, likelihood.event_shape)

    @property
    def base_dist(self) -> dist.TorchDistribution:
        """The distribution of each element, at some values of those before it."""
        return self._distribution_given(self._blank(Size()))

    @property
    def support(self) -> dist.constraints.Constraint:
        """Where the likelihood's values lie."""
        return self.base_dist.support  # pyright: ignore

    def _blank(self, shape: Size) -> Tensor:
        like = next(self.network.parameters())
        return like.new_zeros(*shape, *self.event_shape)

    def _distribution_given(self, x: Tensor) -> dist.TorchDistribution:
        features = self.network(x)
        return self.likelihood(features if self.offset is None else features + self.offset)

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveDistribution":
        """The same distribution in a larger batch."""
        return AutoregressiveDistribution(
            self.network, self.likelihood, self.offset, Size(batch_shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of values (…, *event_shape)."""
        log_px = self._distribution_given(value).log_prob(value)
        return log_px.expand(torch.broadcast_shapes(log_px.shape, self.batch_shape))

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw element by element."""
        with torch.no_grad():
            x = self._blank(Size(sample_shape) + self.batch_shape)
            elements = x.view(*x.shape[: x.dim() - len(self.event_shape)], -1)
            for index in range(elements.shape[-1]):
                elements[..., index] = (
                    self._distribution_given(x).sample().view_as(elements)[..., index]
                )
        return x


class AutoregressiveLikelihood(Likelihood):
    """A likelihood whose elements also see those before them, p(x|z) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁, z).

    The decoder's features of z are added to those that a masked network makes of the elements
    before (as in :class:`Autoregressive`), and go into the likelihood together: the decoder
    of a PixelVAE (Gulrajani et al. 2017, arXiv 1611.05013) and of the lossy VAE (Chen et al. 2017,
    arXiv 1611.02731). It can do without z, and does unless a posterior is given reason to stay:
    see the warm-up and the free bits of ``Beta_ELBO``.

    Args:
        likelihood: of each element given features.
        hidden: widths of the masked network's hidden layers.

    Raises:
        ValueError: if a width is less than 1, or a datum holds one value only.

    >>> from latente.models import Bernoulli
    >>> likelihood = AutoregressiveLikelihood(Bernoulli((2, 2)), hidden=(16,))
    >>> likelihood(torch.zeros(5, 4)).sample().shape
    torch.Size([5, 2, 2])
    """

    def __init__(self, likelihood: Likelihood, hidden: tuple[int, ...] = (200,)):
        per_element = likelihood.features_per_element
        super().__init__(tuple(likelihood.event_shape), features_per_element=per_element)
        self.network = masked_network(likelihood, hidden)
        self.likelihood = likelihood

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, num_features) to p(x|z): batch shape (…), event shape event_shape."""
        self.likelihood(features)  # which refuses features of another length
        return AutoregressiveDistribution(self.network, self.likelihood, features)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """The elements' own distributions, at features alone."""
        return self.likelihood.distribution(*blocks)

    def constant_features(self, x: Tensor) -> Tensor:
        """Those of the elements' distribution."""
        return self.likelihood.constant_features(x)


def masked_network(likelihood: Likelihood, hidden: tuple[int, ...]) -> nn.Module:
    """A network whose features of each element depend on the elements before it alone."""
    num_elements = likelihood.event_shape.numel()
    if num_elements < 2:
        raise ValueError("an autoregressive model needs data of two elements or more")
    if min(hidden, default=1) < 1:
        raise ValueError(f"every width must be at least 1, got {hidden}")
    masked = _Masked(num_elements, hidden, likelihood.features_per_element)
    return nn.Sequential(FlattenEvent(tuple(likelihood.event_shape)), masked)


class _Masked(nn.Module):
    """A network (…, D) → (…, blocks · D) whose i-th outputs see the inputs before the i-th alone.

    A hidden unit of degree m sees inputs 0 … m − 1, and outputs m … see it. However few the hidden
    units are, their degrees are spread over all elements; and the direct connections leave
    out no earlier element.
    """

    def __init__(self, num_elements: int, hidden: tuple[int, ...], blocks: int):
        super().__init__()
        inputs, outputs = torch.arange(num_elements), torch.arange(num_elements).repeat(blocks)
        self.direct = _linear(outputs[:, None] > inputs)
        layers: list[nn.Module] = []
        seen = inputs + 1  # what each unit of the layer below knows: the elements before this one
        for width in hidden:
            degrees = torch.linspace(1, num_elements - 1, width).round().long()
            layers += [_linear(degrees[:, None] >= seen), nn.ReLU()]
            seen = degrees
        self.hidden = nn.Sequential(*layers, _linear(outputs[:, None] >= seen)) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (…, D) to features (…, blocks · D)."""
        return self.direct(x) if self.hidden is None else self.direct(x) + self.hidden(x)


def _linear(connected: Any) -> nn.Module:
    return zuko.nn.MaskedLinear(connected)
