"""Autoregressive likelihood: each element given the elements before it, and z."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.types import _size

from .._zuko import zuko
from ..networks.flatten import FlattenEvent
from .likelihood import Likelihood


class AutoregressiveDistribution(dist.TorchDistribution):
    """p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁): one pass of its network scores x, D passes draw it."""

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
        """The distribution of each element, when the elements before it are 0."""
        return self._distribution_given(self._blank(Size()))

    @property
    def support(self) -> dist.constraints.Constraint:
        """The support of the likelihood."""
        return self.base_dist.support  # pyright: ignore

    def _blank(self, shape: Size) -> Tensor:
        like = next(self.network.parameters())
        return like.new_zeros(*shape, *self.event_shape)

    def _distribution_given(self, x: Tensor) -> dist.TorchDistribution:
        features = self.network(x)
        return self.likelihood(features if self.offset is None else features + self.offset)

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveDistribution":
        """Expand the batch shape."""
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
    """The likelihood p(x|z) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁, z): each element depends on those before it.

    The decoder's features of z are added to the features that a masked network (see
    :class:`Autoregressive`) makes of the elements before, and the sum goes into the likelihood. It
    is the decoder of PixelVAE (Gulrajani et al. 2017, arXiv 1611.05013) and of the lossy VAE (Chen
    et al. 2017, arXiv 1611.02731). It can model the data without z, so the posterior easily
    collapses: see the warm-up and the free bits of ``Beta_ELBO``.

    Args:
        likelihood: the distribution of each element given features.
        hidden: widths of the masked network's hidden layers.

    Raises:
        ValueError: if a width is less than 1, or a datum has only one element.

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
        self.likelihood(features)  # refuses a wrong number of features
        return AutoregressiveDistribution(self.network, self.likelihood, features)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """The distributions of the elements at these features, without the masked network."""
        return self.likelihood.distribution(*blocks)

    def constant_features(self, x: Tensor) -> Tensor:
        """The constant features of the inner likelihood."""
        return self.likelihood.constant_features(x)


def masked_network(likelihood: Likelihood, hidden: tuple[int, ...]) -> nn.Module:
    """Make a network whose features of an element depend only on the elements before it."""
    num_elements = likelihood.event_shape.numel()
    if likelihood.num_features != likelihood.features_per_element * num_elements:
        raise ValueError(
            f"an autoregressive model needs as many features for each element, and {likelihood} "
            "takes more for some columns than for others"
        )
    if num_elements < 2:
        raise ValueError("an autoregressive model needs data of two elements or more")
    if min(hidden, default=1) < 1:
        raise ValueError(f"every width must be at least 1, got {hidden}")
    masked = _Masked(num_elements, hidden, likelihood.features_per_element)
    return nn.Sequential(FlattenEvent(tuple(likelihood.event_shape)), masked)


class _Masked(nn.Module):
    """A network (…, D) → (…, blocks · D) whose i-th outputs see only the inputs before the i-th.

    A hidden unit of degree m sees inputs 0 … m − 1, and outputs m, m + 1, … see it. Degrees are
    spread over all elements, even with few hidden units, and direct connections from all earlier
    inputs make sure that none is left out.
    """

    def __init__(self, num_elements: int, hidden: tuple[int, ...], blocks: int):
        super().__init__()
        inputs, outputs = torch.arange(num_elements), torch.arange(num_elements).repeat(blocks)
        self.direct = _linear(outputs[:, None] > inputs)
        layers: list[nn.Module] = []
        seen = inputs + 1  # degrees of the layer below: input i is seen from degree i + 1 on
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
