"""Likelihoods p(x|z): each turns a decoder's features into a distribution of one datum x."""

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from . import bits


class Likelihood(nn.Module, ABC):
    """What all likelihoods share: the shape of a datum, and how features are laid out.

    A decoder's features (…, num_features) hold ``features_per_element`` blocks, one
    after the other, of one number per element of the datum. A likelihood of one's own
    states how many blocks it takes and implements :meth:`distribution`.

    Args:
        event_shape: shape of one datum.
        features_per_element: how many numbers of the decoder each element takes.

    Raises:
        ValueError: if a dimension of ``event_shape`` is less than 1, or, when called,
            if the decoder's features are not ``num_features`` long.
    """

    def __init__(self, event_shape: tuple[int, ...], *, features_per_element: int = 1):
        super().__init__()
        if min(event_shape, default=1) < 1:
            raise ValueError(f"event_shape must be positive throughout, got {event_shape}")
        self.event_shape = torch.Size(event_shape)
        self.num_features = features_per_element * math.prod(event_shape)
        self.features_per_element = features_per_element

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, num_features) to p(x|z): batch shape (…), event shape event_shape."""
        if features.dim() == 0 or features.shape[-1] != self.num_features:
            raise ValueError(
                f"{self} takes {self.num_features} decoder features, "
                f"but the decoder gave a tensor of shape {tuple(features.shape)}: "
                f"give it out={self.num_features}"
            )
        batch_shape, num_events = features.shape[:-1], len(self.event_shape)
        if self.features_per_element == 1:
            # Taken as it is: the gradient of an unbinding would be a copy.
            blocks = (features.reshape(batch_shape + self.event_shape),)
        else:
            shape = (*batch_shape, self.features_per_element, *self.event_shape)
            blocks = features.reshape(shape).unbind(-1 - num_events)
        return self.distribution(*blocks).to_event(num_events)

    def check_data(self, x: Tensor) -> None:
        """Refuse data that are not (N, *event_shape).

        Raises:
            ValueError: saying both shapes.
        """
        if x.dim() != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ValueError(
                f"{self} takes data of shape (N, {str(tuple(self.event_shape))[1:-1]}), "
                f"got {tuple(x.shape)}"
            )

    def constant_features(self, x: Tensor) -> Tensor:
        """Features (num_features,) at which the law is near to data (N, *event_shape), without z.

        Where a decoder's last bias may start. Here: the data's mean, zero in all further blocks.
        """
        return self._first_block(x.mean(0))

    def _first_block(self, block: Tensor) -> Tensor:
        features = block.new_zeros(self.num_features)
        features[: block.numel()] = block.flatten()
        return features

    @abstractmethod
    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Blocks of features, each (…, *event_shape), to independent elementwise laws."""

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{tuple(self.event_shape)}"


class Bernoulli(Likelihood):
    """Independent bits, p(x|z) = ∏ᵢ σ(fᵢ)^xᵢ (1 − σ(fᵢ))^(1−xᵢ) for features f of z.

    The data are 0 or 1: grey values are refused when a fit begins. Load them with
    ``binarize="dynamic"`` or ``"static"``, or use :class:`DiscretizedLogistic`,
    :class:`ContinuousBernoulli` or :class:`Normal`.

    Args:
        event_shape: shape of one datum.

    >>> likelihood = Bernoulli((8, 8))
    >>> likelihood.num_features
    64
    >>> p = likelihood(torch.zeros(5, 64))
    >>> round(p.log_prob(torch.ones(5, 8, 8))[0].item(), 3)  # 64 log ½, in nats
    -44.361
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """The logits of the data's mean."""
        return x.mean(0).clamp(0.01, 0.99).logit().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits (…, *event_shape) to independent Bernoulli laws."""
        (logits,) = blocks
        return bits.Bernoulli(logits=logits)


class Normal(Likelihood):
    """Independent normals, p(x|z) = ∏ᵢ N(xᵢ; μᵢ(z), σᵢ²), where σ is a standard deviation.

    Args:
        event_shape: shape of one datum.
        scale: what σ is. A number: fixed at it. An ``nn.Parameter``: learned, starting
            from its value, one for all elements (shape ``()``) or one each (any shape
            that broadcasts to ``event_shape``); log σ is what the optimizer sees.
            ``None``: predicted by the decoder for each datum and element, whose second
            half of features is log σ(z).

    Raises:
        ValueError: if the scale is not positive, or does not broadcast to ``event_shape``.

    >>> Normal((3,), scale=0.5)(torch.zeros(3)).base_dist.scale
    tensor([0.5000, 0.5000, 0.5000])
    >>> Normal((3,), scale=nn.Parameter(torch.ones(3))).num_features
    3
    >>> Normal((3,), scale=None).num_features
    6
    """

    def __init__(self, event_shape: tuple[int, ...], scale: float | nn.Parameter | None = 1.0):
        super().__init__(event_shape, features_per_element=2 if scale is None else 1)
        self.scale, self.log_scale = positive(self, "scale", scale)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Means (and log σ where predicted), each (…, *event_shape), to independent normals."""
        return dist.Normal(blocks[0], value_of(self.scale, self.log_scale, *blocks[1:]))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, scale={shown(self.scale, self.log_scale)}"


def positive(
    likelihood: Likelihood, name: str, value: float | nn.Parameter | None
) -> tuple[float | None, nn.Parameter | None]:
    """Sort a positive quantity of a likelihood into (its fixed value, the log of a learned one).

    Both are ``None`` where the decoder predicts it. A likelihood keeps the two as attributes,
    the second under a name of its own, and gets the quantity back by :func:`value_of`.

    Args:
        likelihood: whose quantity it is.
        name: what it is called in errors.
        value: a number, fixed; an ``nn.Parameter``, learned from its value on, whose log is
            what the optimizer sees; or ``None``.

    Raises:
        ValueError: if it is not positive, or if a parameter does not broadcast to the
            likelihood's ``event_shape``.
    """
    if value is None:
        return None, None
    number = torch.as_tensor(value).detach()
    if not bool((number > 0).all()):
        kind = type(likelihood).__name__
        raise ValueError(f"the {name} of a {kind} likelihood must be positive, got {value}")
    if not isinstance(value, nn.Parameter):
        return value, None  # kept a Python number: it is then exact in every dtype
    if not _broadcasts(number.shape, likelihood.event_shape):
        raise ValueError(
            f"a {name} of shape {tuple(number.shape)} does not fit data of shape "
            f"{tuple(likelihood.event_shape)}: give it shape () or the data's"
        )
    return None, nn.Parameter(number.log())


def value_of(fixed: float | None, log: nn.Parameter | None, *predicted: Tensor) -> float | Tensor:
    """The quantity that :func:`positive` sorted: fixed, learned, or e to a predicted log of it."""
    if fixed is not None:
        return fixed
    return (predicted[0] if log is None else log).exp()


def shown(fixed: float | None, log: nn.Parameter | None) -> str:
    """The quantity that :func:`positive` sorted, in words."""
    return str(fixed) if log is None else "learned"


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of this shape broadcasts to exactly that shape."""
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False
