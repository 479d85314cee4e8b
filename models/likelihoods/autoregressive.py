"""Autoregressive likelihood: each element given the elements before it, and z."""

from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.types import _size

from ..networks.autoregressive_network import AutoregressiveNetwork
from ..networks.masked_mlp import MaskedMLP, check_elements
from .likelihood import Likelihood


class AutoregressiveDistribution(dist.TorchDistribution):
    """p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁): one pass of its network scores x; x is drawn in D steps."""

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(
        self,
        network: AutoregressiveNetwork,
        likelihood: Likelihood,
        latent: Tensor | None = None,
        batch_shape: Size | None = None,
    ):
        self.network, self.likelihood = network, likelihood
        self.latent = latent  # features of z, (*batch_shape, num_latent_features)
        if batch_shape is None:
            batch_shape = Size() if latent is None else latent.shape[:-1]
        super().__init__(batch_shape, likelihood.event_shape)

    @property
    def base_dist(self) -> dist.TorchDistribution:
        """The distribution of each element at features of 0: its kind, and its support.

        Without a pass through the network, for Pyro and the checks of data look at it often.
        """
        like = next(self.network.parameters(), torch.zeros(()))
        shape = Size() if self.latent is None else self.latent.shape[:-1]
        return self.likelihood(like.new_zeros(*shape, self.likelihood.num_features))

    @property
    def support(self) -> dist.constraints.Constraint:
        """The support of the likelihood."""
        return self.base_dist.support  # pyright: ignore

    def _distribution_given(self, x: Tensor) -> dist.TorchDistribution:
        return self.likelihood(self.network(x, self.latent))

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveDistribution":
        """Expand the batch shape."""
        return AutoregressiveDistribution(
            self.network, self.likelihood, self.latent, Size(batch_shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of values (…, *event_shape)."""
        log_px = self._distribution_given(value).log_prob(value)
        return log_px.expand(torch.broadcast_shapes(log_px.shape, self.batch_shape))

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw element by element."""
        with torch.no_grad():
            like = next(self.network.parameters(), torch.zeros(()))
            x = like.new_zeros(*sample_shape, *self.batch_shape, *self.event_shape)
            elements = x.flatten(x.dim() - len(self.event_shape))
            for index, features in self.network.features_in_order(x, self.latent):
                # All elements are drawn, so that each takes the same random numbers in each step.
                drawn = self.likelihood(features).sample().view_as(elements)
                elements[..., index] = drawn[..., index]
        return x


class AutoregressiveLikelihood(Likelihood):
    """The likelihood p(x|z) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁, z): each element depends on those before it.

    The decoder's features of z go into an autoregressive network, together with x, and the features
    that it makes of the elements before go into the likelihood. By default the network is a
    :class:`MaskedMLP`, to whose features those of z are added. With a :class:`PixelCNN`, into each
    of whose layers z enters, it is the decoder of PixelVAE (Gulrajani et al. 2017, arXiv
    1611.05013), and of the lossy VAE (Chen et al. 2017, arXiv 1611.02731) if its receptive field is
    small. Such a decoder can model the data without z, so the posterior easily collapses: see the
    warm-up and the free bits of ``Beta_ELBO``.

    Args:
        likelihood: the distribution of each element given features.
        hidden: widths of the hidden layers of a :class:`MaskedMLP`; by default ``(200,)``.
        network: another network in its place.

    Raises:
        ValueError: if a width is less than 1, a datum has only one element, widths and a network
            are given, or the network is not for such data, or is not autoregressive.

    >>> from latente.models import Bernoulli, PixelCNN
    >>> likelihood = AutoregressiveLikelihood(Bernoulli((2, 2)), hidden=(16,))
    >>> likelihood(torch.zeros(5, 4)).sample().shape
    torch.Size([5, 2, 2])
    >>> network = PixelCNN((8, 8), 16, receptive_field=2, layers=2, latent_features=10)
    >>> likelihood = AutoregressiveLikelihood(Bernoulli((8, 8)), network=network)
    >>> likelihood.num_features  # the decoder's: mlp(2, 64, out=10)
    10
    """

    def __init__(
        self,
        likelihood: Likelihood,
        hidden: tuple[int, ...] | None = None,
        *,
        network: AutoregressiveNetwork | None = None,
    ):
        num_elements, per_element = likelihood.event_shape.numel(), likelihood.features_per_element
        network = autoregressive_network(likelihood, hidden, network)
        num_features = network.num_latent_features
        if not num_features:
            raise ValueError(
                "a network without features of z makes x independent of z: give a "
                f"{type(network).__name__} with latent_features, or fit Autoregressive without z"
            )
        if num_features % num_elements == 0:  # a number for each element, or a map of some
            per_element = num_features // num_elements
        super().__init__(tuple(likelihood.event_shape), features_per_element=per_element)
        self.num_features = num_features
        self.network = network
        self.likelihood = likelihood

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, num_features) to p(x|z): batch shape (…), event shape event_shape."""
        self.check_features(features)
        return AutoregressiveDistribution(self.network, self.likelihood, features)

    def check_features(self, features: Tensor) -> None:
        """Refuse features that do not have the shape (…, num_features)."""
        if features.dim() == 0 or features.shape[-1] != self.num_features:
            raise ValueError(
                f"the {type(self.network).__name__} of {self.likelihood} takes {self.num_features} "
                "decoder features, but the decoder gave a tensor of shape "
                f"{tuple(features.shape)}: give it out={self.num_features}"
            )

    def check_data(self, x: Tensor) -> None:
        """Refuse data that do not have the shape (N, *event_shape)."""
        self.likelihood.check_data(x)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """The distributions of the elements at these features, without the network."""
        return self.likelihood.distribution(*blocks)

    def constant_features(self, x: Tensor) -> Tensor:
        """The constant features of the inner likelihood, to which the network's are added.

        Raises:
            ValueError: if the features of z are not added to those of the network.
        """
        if not isinstance(self.network, MaskedMLP):
            raise ValueError(
                f"a {type(self.network).__name__} does not add the features of z to its own, so "
                "the decoder cannot start at the mean of the data: leave start_at_mean out"
            )
        return self.likelihood.constant_features(x)


def autoregressive_network(
    likelihood: Likelihood, hidden: tuple[int, ...] | None, network: AutoregressiveNetwork | None
) -> AutoregressiveNetwork:
    """Make the network of a likelihood by its widths, or check the network that is given.

    Raises:
        ValueError: if it does not go with the likelihood.
    """
    shape, per_element = tuple(likelihood.event_shape), likelihood.features_per_element
    if likelihood.num_features != per_element * likelihood.event_shape.numel():
        raise ValueError(
            f"an autoregressive model needs as many features for each element, and {likelihood} "
            "takes more for some columns than for others"
        )
    check_elements(likelihood.event_shape.numel())
    if network is None:
        return MaskedMLP(
            shape, *((200,) if hidden is None else hidden), features_per_element=per_element
        )
    if hidden is not None:
        raise ValueError(f"hidden={hidden} and a network are given: leave one of them out")
    if not isinstance(network, AutoregressiveNetwork):
        raise ValueError(
            "network must be an AutoregressiveNetwork, such as PixelCNN, got "
            f"{type(network).__name__}"
        )
    name = type(network).__name__
    if tuple(network.event_shape) != shape:
        raise ValueError(
            f"the {name} is for data of shape {tuple(network.event_shape)}, and {likelihood} for "
            f"{shape}: build both with the same event_shape"
        )
    if network.features_per_element != per_element:
        raise ValueError(
            f"{likelihood} takes {per_element} features for each element, and the {name} makes "
            f"{network.features_per_element}: build it with features_per_element={per_element}"
        )
    network.check_order()
    return network
