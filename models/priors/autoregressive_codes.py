"""Learned autoregressive prior over codes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..codes import Codes
from ..likelihoods.autoregressive import AutoregressiveDistribution, autoregressive_network
from ..likelihoods.categorical import Categorical
from ..networks.autoregressive_network import AutoregressiveNetwork
from ..networks.masked_mlp import MaskedMLP
from .uniform_codes import UniformCodesDistribution, codebook_of


class AutoregressiveCodes(nn.Module):
    """A learned prior over codes, position by position: p(z) = ∏ᵢ p(cᵢ | c₁ … cᵢ₋₁).

    It takes the place of :class:`UniformCodes`, for a grid and for a codebook. A network gives all
    conditionals in one pass: by default a :class:`MaskedMLP`; for positions (H, W) also a
    :class:`PixelCNN`. It reads a code as an indicator, not as a number, so it does not matter how
    codes are numbered.

    The bound with it is log p(x|z) + log p(z), a bound as before, and nothing else of it changes:
    the prior raises it by M log K + log p(z) nats, which ``evaluate`` gives as ``prior_gain``.
    Codes have no gradient, so that it can be fitted together with encoder and decoder, or
    afterwards, while these are frozen::

        model.requires_grad_(False), guide.requires_grad_(False)
        model.prior = AutoregressiveCodes(guide.codebook, hidden=(200,))
        fit(model, guide, data)

    Args:
        codes: as for :class:`UniformCodes`: the levels of a grid, or a :class:`Codebook`.
        positions: as there.
        hidden: widths of the hidden layers of a :class:`MaskedMLP`; by default ``(200,)``.
        network: another network in its place, for data of shape positions, with
            ``features_per_element`` and ``num_classes`` both K.

    Raises:
        ValueError: as :class:`UniformCodes`; if there is one position only; or if widths and a
            network are given, or the network is not for such codes.

    Source: van den Oord, Vinyals and Kavukcuoglu 2017 (arXiv 1711.00937), where it is a PixelCNN.

    >>> prior = AutoregressiveCodes((4, 4), positions=3, hidden=(16,))
    >>> prior().sample((5,)).shape
    torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        codes: Sequence[int] | Codes,
        positions: int | tuple[int, ...] = (),
        hidden: tuple[int, ...] | None = None,
        *,
        network: AutoregressiveNetwork | None = None,
    ):
        super().__init__()
        self.codebook = codebook_of(codes, positions)
        shape, num_codes = self.codebook.positions, self.codebook.num_codes
        if math.prod(shape) < 2:
            raise ValueError(
                "a prior that goes from position to position needs two of them or more: take "
                "UniformCodes for one code"
            )
        likelihood = Categorical(shape, num_codes)
        if network is None:
            network = MaskedMLP(
                shape,
                *((200,) if hidden is None else hidden),
                features_per_element=num_codes,
                num_classes=num_codes,
            )
            hidden = None
        if network.num_classes != num_codes:
            raise ValueError(
                f"there are {num_codes} codes, which are no numbers: build the "
                f"{type(network).__name__} with num_classes={num_codes}"
            )
        self.network = autoregressive_network(likelihood, hidden, network)
        if network.num_latent_features and not isinstance(network, MaskedMLP):
            raise ValueError(
                f"the {type(network).__name__} takes features of z, and this is the prior of z: "
                "build it with latent_features=0"
            )
        self.likelihood = likelihood

    def forward(self) -> "AutoregressiveCodesDistribution":
        """p(z): batch shape (), event shape (d, *positions)."""
        numbers = AutoregressiveDistribution(self.network, self.likelihood)
        return AutoregressiveCodesDistribution(self.codebook, numbers)


class AutoregressiveCodesDistribution(UniformCodesDistribution):
    """A distribution over the values of :class:`Codes`, by that of their numbers."""

    def __init__(
        self,
        codebook: Codes,
        numbers: AutoregressiveDistribution,
        batch_shape: Any = (),
        validate_args: Any = None,
    ):
        self.numbers = numbers
        super().__init__(codebook, batch_shape, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with another batch shape."""
        return AutoregressiveCodesDistribution(
            self.codebook, self.numbers, batch_shape, self._validate_args
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values drawn position by position, (*sample_shape, *batch_shape, *event_shape)."""
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            return self.codebook.codes(self.numbers.sample(torch.Size(shape)).long())

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) of values (…, *event_shape); −∞ of those that are not made of codes: (…)."""
        inside = self.codebook.contains(value)
        # Numbers of values beyond a grid are no classes.
        numbers = self.codebook.indices(value).clamp(0, self.num_codes - 1)
        log_pz = self.numbers.log_prob(numbers).where(inside, -math.inf)
        return log_pz.expand(torch.broadcast_shapes(log_pz.shape, self.batch_shape))
