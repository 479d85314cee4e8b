"""Features of a table's columns for an encoder: standardized numbers and indicators of classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..likelihoods.column_family import COUNTED, ColumnFamily, as_column_family, count_families


class ColumnFeatures(nn.Module):
    """Map rows (…, D) in the data's units to features for a network, (…, num_features).

    ============================= ====================================================
    columns                       features
    ============================= ====================================================
    normal, student-t             (x − location)/scale
    lognormal                     (log x − location)/scale
    count, poisson                log(1 + x) (Lopez et al. 2017, arXiv 1709.02082)
    binary                        x
    ordinal                       the code, from −1 at the lowest level to 1
    categorical                   indicators of the classes, (…, C)
    ============================= ====================================================

    A network takes codes of classes for amounts, and values in the thousands do not train. Put it
    before the encoder, ``nn.Sequential(features, mlp(features.num_features, …))``. It has no
    parameters; location and scale are those of the :class:`ColumnFamily`.

    Args:
        columns: for each column its :class:`ColumnFamily`, or the name of a family that has no
            classes; the same as the :class:`ColumnLikelihood`'s.

    Raises:
        ValueError: if there is no column, or, when called, if x does not have D columns.

    >>> level = ColumnFamily("ordinal", num_classes=3)
    >>> height = ColumnFamily("normal", location=170.0, scale=10.0)
    >>> colour = ColumnFamily("categorical", num_classes=2)
    >>> ColumnFeatures([level, height, colour])(torch.tensor([[0.0, 185.0, 1.0]]))
    tensor([[-1.0000,  1.5000,  0.0000,  1.0000]])
    """

    def __init__(self, columns: Sequence[ColumnFamily | str]):
        super().__init__()
        if not columns:
            raise ValueError("ColumnFeatures need at least one column")
        self.columns = tuple(as_column_family(column, n) for n, column in enumerate(columns))
        # Each is a list of (column, location, scale), or (column, class).
        linear: list[tuple[int, float, float]] = []
        logarithms: list[tuple[int, float, float]] = []
        counts: list[tuple[int, float, float]] = []
        classes: list[tuple[int, int]] = []
        for place, column in enumerate(self.columns):
            if column.family == "categorical":
                classes += [(place, code) for code in range(column.num_classes)]
            elif column.family == "ordinal":
                half = (column.num_classes - 1) / 2
                linear.append((place, half, half))
            elif column.family in COUNTED:
                counts.append((place, 0.0, 1.0))
            elif column.family == "lognormal":
                logarithms.append((place, column.location, column.scale))
            else:
                linear.append((place, column.location, column.scale))
        numbers = [*linear, *logarithms, *counts]
        self.sizes = len(linear), len(logarithms), len(counts)
        self.num_features = len(numbers) + len(classes)
        _, location, scale = zip(*numbers, strict=True) if numbers else ((), (), ())
        places = [place for place, *_ in [*numbers, *classes]]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("location", torch.tensor(location))
        self.register_buffer("scale", torch.tensor(scale))
        codes = torch.tensor([float(code) for _, code in classes])
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows (…, D) to features (…, num_features)."""
        if x.dim() == 0 or x.shape[-1] != len(self.columns):
            raise ValueError(
                f"features of {len(self.columns)} columns got a tensor of shape {tuple(x.shape)}"
            )
        location, scale = self.get_buffer("location"), self.get_buffer("scale")
        values = x.index_select(-1, self.get_buffer("places")).to(scale.dtype)
        sizes = [*self.sizes, self.num_features - len(scale)]
        linear, positive, counts, classes = values.split(sizes, -1)
        numbers = torch.cat([linear, positive.log(), counts.log1p()], -1)
        indicators = (classes == self.get_buffer("codes")).to(scale.dtype)
        return torch.cat([(numbers - location) / scale, indicators], -1)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return count_families(self.columns)
