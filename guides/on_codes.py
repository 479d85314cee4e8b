"""Base of the guides that put a mass of 1 on one value of a finite set of codes."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..models.codes import Codes
from .amortized import Amortized


class OnCodes(Amortized):
    """Base class of guides that put a mass of 1 on one value of :class:`latente.models.Codes`.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, d, *positions), or flattened,
            (N, d · M).
        codebook: the codes.

    Raises:
        ValueError: when run, if the encoder does not give d · M features.
    """

    layout = "the numbers of each code"

    def __init__(self, encoder: nn.Module, codebook: Codes):
        super().__init__(encoder, codebook.event_shape, codebook.dim)
        self.codebook = codebook

    def arrange(self, features: Tensor) -> Tensor:
        """Unflatten features (…, d · M) to (…, d, *positions)."""
        shape = self.codebook.event_shape
        laid_out = features.dim() > len(shape) and features.shape[-len(shape) :] == shape
        is_flat = not laid_out and features.shape[-1] == shape.numel()
        return features.unflatten(-1, shape) if is_flat else features

    def check_width(self, features: Tensor) -> None:
        """Refuse features that are not (…, d, *positions)."""
        shape = self.codebook.event_shape
        if features.shape[-len(shape) :] == shape:
            return
        dim, places = self.codebook.dim, self.codebook.num_positions
        given = features.shape[-1]
        whole = "" if given % dim == 0 else f", which {dim} does not divide"
        raise ValueError(
            f"{type(self).__name__} takes {dim * places} encoder features, the {dim} numbers of a "
            f"code at {places} positions, but the encoder gave a tensor of shape "
            f"{tuple(features.shape)}{whole}: give it out={dim * places}, or maps {tuple(shape)}"
        )

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, d, *positions) to the masses on their codes."""
        value = self.codebook.quantize(features)
        return dist.Delta(value, event_dim=len(self.event_shape))

    def indices(self, x: Tensor, *context: Tensor) -> Tensor:
        """The numbers 0, …, K − 1 of the codes of data (N, *event_shape): (N, *positions)."""
        features = self.features(x, *context).detach()
        return self.codebook.indices(self.codebook.quantize(features))

    def extra_repr(self) -> str:
        """The constructor's arguments except the encoder."""
        return self.codebook.extra_repr()
