"""Base class of all likelihoods: from a decoder's features to the distribution of a datum."""

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class Likelihood(nn.Module, ABC):
    """Base class of likelihoods; subclass it to add one.

    A decoder's features (…, num_features) are ``features_per_element`` blocks, one after the
    other, with one number for each element of the datum. A subclass says how many blocks it takes
    and implements :meth:`distribution`.

    Args:
        event_shape: shape of one datum.
        features_per_element: number of features for each element.

    Raises:
        ValueError: if a dimension of ``event_shape`` is less than 1, or, when called, if the
            decoder does not give ``num_features`` features.
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
        self.check_features(features)
        batch_shape, num_events = features.shape[:-1], len(self.event_shape)
        if self.features_per_element == 1:
            # Without unbind, whose gradient would be a copy.
            blocks = (features.reshape(batch_shape + self.event_shape),)
        else:
            shape = (*batch_shape, self.features_per_element, *self.event_shape)
            blocks = features.reshape(shape).unbind(-1 - num_events)
        return self.distribution(*blocks).to_event(num_events)

    def check_features(self, features: Tensor) -> None:
        """Refuse features that do not have the shape (…, num_features).

        Raises:
            ValueError: with the number that the decoder must give.
        """
        if features.dim() == 0 or features.shape[-1] != self.num_features:
            raise ValueError(
                f"{self} takes {self.num_features} decoder features, "
                f"but the decoder gave a tensor of shape {tuple(features.shape)}: "
                f"give it out={self.num_features}"
            )

    def check_data(self, x: Tensor) -> None:
        """Refuse data that do not have the shape (N, *event_shape).

        Raises:
            ValueError: with both shapes.
        """
        if x.dim() != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ValueError(
                f"{self} takes data of shape (N, {str(tuple(self.event_shape))[1:-1]}), "
                f"got {tuple(x.shape)}"
            )

    def constant_features(self, x: Tensor) -> Tensor:
        """Find constant features (num_features,) that fit data (N, *event_shape) without z.

        :meth:`VAE.start_at_mean` uses them. Here they are the mean of the data in the first block,
        and zero in the others.
        """
        return self._first_block(x.mean(0))

    def _first_block(self, block: Tensor) -> Tensor:
        features = block.new_zeros(self.num_features)
        features[: block.numel()] = block.flatten()
        return features

    @abstractmethod
    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Map blocks of features, each (…, *event_shape), to independent distributions."""

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{tuple(self.event_shape)}"
