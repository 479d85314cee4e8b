"""Combiner of a structured posterior: joins z of the step before with what a network has read."""

import torch
from torch import Tensor, nn


class Combiner(nn.Module):
    """The combiner of a deep Markov model's guide (Krishnan et al. 2017, arXiv 1609.09869).

    ::

        features = W ½ (tanh(V z_{t−1} + c) + h_t) + b

    As the encoder of a posterior family it gives q(z_t | z_{t−1}, x), where h_t is what a
    :class:`RecurrentReader` made of x.

    Args:
        num_features: length of h_t.
        latent_dim: D.
        out: number of features, which the family names: 2D for a ``DiagonalNormal``.

    Raises:
        ValueError: if a size is less than 1, or, when called, if h_t has another length.

    >>> Combiner(16, 3, out=6)(torch.zeros(5, 16), torch.zeros(4, 5, 3)).shape
    torch.Size([4, 5, 6])
    """

    conditional = True
    """It takes z_{t−1} after what was read; see :class:`latente.models.contexts.TakesContext`."""

    def __init__(self, num_features: int, latent_dim: int, *, out: int):
        super().__init__()
        if min(num_features, latent_dim, out) < 1:
            raise ValueError(
                f"every size of a Combiner must be at least 1, got {num_features}, {latent_dim} "
                f"and out={out}"
            )
        self.num_features = num_features
        self.from_z = nn.Sequential(nn.Linear(latent_dim, num_features), nn.Tanh())
        self.to_features = nn.Linear(num_features, out)

    def forward(self, read: Tensor, z: Tensor) -> Tensor:
        """h_t (…, num_features) and z_{t−1} (…, D) to features (…, out)."""
        if read.shape[-1] != self.num_features:
            raise ValueError(
                f"the Combiner takes {self.num_features} numbers that were read of x, got "
                f"{read.shape[-1]}: give it the reader's num_features"
            )
        return self.to_features(torch.lerp(self.from_z(z), read, 0.5))
