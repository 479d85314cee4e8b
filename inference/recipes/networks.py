"""Builders of encoder and decoder networks."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...models import Conditional, FlattenEvent, Likelihood, OneHot, conv_decoder, conv_encoder, mlp
from .sizes import Sizes

Encoder = Callable[..., nn.Module]
"""A network that lacks only its width: ``encoder(out=40)``."""


Networks = Callable[[Sizes, Likelihood], tuple[Encoder, nn.Module]]
"""From sizes and likelihood to encoder and decoder."""


def dense(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons."""
    encoder = partial(mlp, sizes.event_shape, *sizes.hidden)
    decoder = mlp(sizes.latent_dim, *reversed(sizes.hidden), out=likelihood.num_features)
    return encoder, decoder


def dense_of_counts(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons; the encoder reads log(1 + x), as of Lopez et al. 2017."""
    plain, decoder = dense(sizes, likelihood)
    return lambda out: nn.Sequential(_Log1p(), plain(out=out)), decoder


class _Log1p(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log1p()


def convolutional(
    sizes: Sizes, likelihood: Likelihood, residual_blocks: int = 0
) -> tuple[Encoder, nn.Module]:
    """Convolutional networks of two halvings, with one dense layer of the last hidden width."""
    options: dict[str, Any] = {"residual_blocks": residual_blocks, "hidden": sizes.hidden[-1]}
    encoder = partial(conv_encoder, sizes.event_shape, **options)
    decoder = conv_decoder(
        sizes.latent_dim,
        sizes.event_shape,
        features_per_element=likelihood.features_per_element,
        **options,
    )
    return encoder, decoder


def told_the_label(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons that are given the label beside x, and beside z."""
    return _told(sizes, likelihood, OneHot(sizes.context))


def told_the_rest(sizes: Sizes, likelihood: Likelihood) -> tuple[Encoder, nn.Module]:
    """Multilayer perceptrons that are given the elements that are no part of x."""
    return _told(sizes, likelihood, FlattenEvent((sizes.context,)))


def _told(sizes: Sizes, likelihood: Likelihood, reader: nn.Module) -> tuple[Encoder, nn.Module]:
    x, z = FlattenEvent(sizes.event_shape), FlattenEvent((sizes.latent_dim,))

    def encoder(out: int) -> nn.Module:
        network = mlp(math.prod(sizes.event_shape) + sizes.context, *sizes.hidden, out=out)
        return Conditional(network, x, reader)

    width = sizes.latent_dim + sizes.context
    network = mlp(width, *reversed(sizes.hidden), out=likelihood.num_features)
    return encoder, Conditional(network, z, reader)
