"""Finite scalar quantization: the guide of codes on a grid."""

from collections.abc import Sequence

from torch import nn

from ..models.code_grid import CodeGrid
from .on_codes import OnCodes


class FiniteScalar(OnCodes):
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

    def __init__(
        self, encoder: nn.Module, levels: Sequence[int], positions: int | tuple[int, ...] = ()
    ):
        super().__init__(encoder, CodeGrid(levels, positions))
