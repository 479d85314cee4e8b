"""Finite scalar quantization: the guide of codes on a grid."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from ..models.code_grid import CodeGrid
from .amortized import Amortized


class FiniteScalar(Amortized):
    """Finite scalar quantization (FSQ): the encoder's features, bounded and rounded to a grid.

    The posterior is a mass of 1 on the code z(x), so log q(z|x) = 0, and with the prior
    :class:`latente.models.UniformCodes` of the same levels ::

        ELBO = log p(x|z(x)) − M log K ≤ log p(x)

    Gradients pass through the rounding as if it were not there. It is a mass on a finite set, not
    a point without a density as :class:`PointPosterior` is: the ELBO is a bound, whose KL is the
    constant M log K. Where the grid is small, ``enumerated_evidence`` gives log p(x) exactly.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, d, *positions), or flattened,
            (N, d · M).
        levels: (L₁, …, L_d): see :class:`latente.models.UniformCodes`.
        positions: M, or the shape of the positions, (H, W); () for one code.

    Raises:
        ValueError: if there is no level, one is less than 2, or a size is less than 1; or, when
            run, if the encoder does not give d · M features.

    Source: Mentzer, Minnen, Agustsson and Tschannen 2023 (arXiv 2309.15505).

    >>> import torch
    >>> from latente.models import mlp
    >>> guide = FiniteScalar(mlp(64, 16, out=8), levels=(4, 4), positions=4)
    >>> guide(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 2, 4])
    >>> guide.indices(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 4])
    """

    layout = "the numbers of each code"

    def __init__(
        self, encoder: nn.Module, levels: Sequence[int], positions: int | tuple[int, ...] = ()
    ):
        grid = CodeGrid(levels, positions)
        super().__init__(encoder, grid.event_shape, len(grid.levels))
        self.grid = grid

    def arrange(self, features: Tensor) -> Tensor:
        """Unflatten features (…, d · M) to (…, d, *positions)."""
        shape = self.grid.event_shape
        laid_out = features.dim() > len(shape) and features.shape[-len(shape) :] == shape
        is_flat = not laid_out and features.shape[-1] == shape.numel()
        return features.unflatten(-1, shape) if is_flat else features

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, d, *positions) to the masses on their codes."""
        value = self.grid.quantize(features)
        return dist.Delta(value, event_dim=len(self.event_shape))

    def indices(self, x: Tensor, *context: Tensor) -> Tensor:
        """The numbers 0, …, K − 1 of the codes of data (N, *event_shape): (N, *positions)."""
        return self.grid.indices(self.grid.quantize(self.features(x, *context)))

    def extra_repr(self) -> str:
        """The constructor's arguments except the encoder."""
        return self.grid.extra_repr()
