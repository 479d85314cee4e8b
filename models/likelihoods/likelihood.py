"""The base of all likelihoods: from a decoder's features to a distribution of one datum."""

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn


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
        """Features (num_features,) at which the distribution is near to data (N, *event_shape),
        without z.

        Where a decoder's last bias may start. Here: the data's mean, zero in all further blocks.
        """
        return self._first_block(x.mean(0))

    def _first_block(self, block: Tensor) -> Tensor:
        features = block.new_zeros(self.num_features)
        features[: block.numel()] = block.flatten()
        return features

    @abstractmethod
    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Blocks of features, each (…, *event_shape), to independent elementwise distributions."""

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{tuple(self.event_shape)}"
