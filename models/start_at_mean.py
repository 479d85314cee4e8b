"""Set the last bias of a decoder so that training starts at the mean of the data."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from .likelihoods.likelihood import Likelihood


class HasParameters(Protocol):
    """A module, as far as :func:`start_at_mean` asks."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters; the last one is set."""
        ...


def start_at_mean(decoder: HasParameters, likelihood: Likelihood, x: Tensor) -> None:
    """Set a decoder's last bias to fit data x (N, *event_shape) without latent variables.

    Raises:
        ValueError: if the decoder does not end in a bias for each feature, or the data are
            empty, not finite, or not of the likelihood's shape.
    """
    likelihood.check_data(x)
    if len(x) == 0 or not bool(torch.as_tensor(x).isfinite().all()):
        raise ValueError("start_at_mean needs data: at least one datum, and all of them finite")
    # Only the last parameter is sure to be added to the features unchanged.
    name, bias = ([*decoder.named_parameters()] or [("", x)])[-1]
    if name.split(".")[-1] != "bias" or bias.shape != (likelihood.num_features,):
        raise ValueError(
            "the decoder's last parameter is not a bias with one number for each of the "
            f"{likelihood.num_features} features, so it cannot start at the mean of the "
            "data: end the decoder with such a bias, as mlp and conv_decoder do"
        )
    with torch.no_grad():
        bias.copy_(likelihood.constant_features(x.to(bias)))
