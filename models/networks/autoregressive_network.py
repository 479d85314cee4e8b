"""The contract of networks whose features of an element depend only on the elements before it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Size, Tensor, nn

CUTS = 8
"""Number of elements at which :meth:`AutoregressiveNetwork.check_order` tries what is seen."""


class AutoregressiveNetwork(nn.Module, ABC):
    """Base class of networks (x, features of z) → features of each element; subclass it to add one.

    Data x (…, *event_shape) and features of z (…, num_latent_features) give features (…,
    features_per_element · D) for the D elements of a datum, in the order that
    :class:`latente.models.Likelihood` takes: block after block, each a flattened datum. The
    features of an element may depend on z and on the elements before it in :attr:`order`, and on
    nothing else: only then is ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁, z) a density.

    A subclass sets the attributes and implements :meth:`forward`. It can override
    :meth:`features_in_order`, so that drawing x does not take D passes through the whole network.
    """

    event_shape: Size
    """Shape of one datum."""
    features_per_element: int
    """Number of features for each element."""
    num_latent_features: int
    """Number of features of z; 0 if the network takes none."""
    num_classes: int = 0
    """Number of classes of an element, which is then read as an indicator; 0: it is a number."""

    @property
    def order(self) -> Sequence[int]:
        """Places of the elements in the flattened datum, from the first element to the last."""
        return range(self.event_shape.numel())

    @abstractmethod
    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Data (…, *event_shape), features of z (…, num_latent_features) to features."""

    def read(self, x: Tensor, like: Tensor) -> Tensor:
        """Elements (…) as they enter the network: (…, C) indicators of C classes, or (…, 1)."""
        if not self.num_classes:
            return x.to(like).unsqueeze(-1)
        return (x.unsqueeze(-1) == torch.arange(self.num_classes, device=x.device)).to(like)

    def features_in_order(
        self, x: Tensor, latent: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Give element after element its features, while the caller writes the elements into x.

        Each step yields the place of an element in the flattened datum, and features
        (…, features_per_element · D) of which those of this element are right. They may be
        overwritten in the next step. Before it, the caller writes the element into x.
        """
        for index in self.order:
            yield index, self(x, latent)

    @torch.no_grad()
    def check_order(self) -> None:
        """Refuse features that change with elements that do not come before.

        A few elements are tried, at one x.

        Raises:
            ValueError: with an element whose features see an element not before it, or with the
                shape of the features, if it is another one than promised.
        """
        num, order = self.event_shape.numel(), torch.tensor(list(self.order))
        if not torch.equal(order.sort().values, torch.arange(num)):
            raise ValueError(f"order must have each of 0 … {num - 1} once, got {order.tolist()}")
        like = next(self.parameters(), torch.zeros(()))
        x, other = torch.rand(2, num, generator=torch.Generator().manual_seed(0))
        if self.num_classes:
            x = (x * self.num_classes).floor()
            other = (x + 1) % self.num_classes
        cuts = torch.linspace(0, num - 1, min(num, CUTS)).long()
        # Row j has other elements from the cuts[j]-th on; the last row has the elements of x.
        rank = torch.empty_like(order).index_copy_(0, order, torch.arange(num))
        rows = torch.cat([torch.where(rank < cuts[:, None], x, other), x[None]])
        latent = like.new_zeros(self.num_latent_features) if self.num_latent_features else None
        network = copy.deepcopy(self).eval()  # dropout would give each row other features
        features = network(rows.to(like).view(len(rows), *self.event_shape), latent)
        if features.shape != (len(rows), self.features_per_element * num):
            raise ValueError(
                f"{type(self).__name__} promises {self.features_per_element} features for each of "
                f"{num} elements, but gave a tensor of shape {tuple(features.shape)} for "
                f"{len(rows)} data"
            )
        features = features.view(len(rows), -1, num).cpu()
        for row, cut in zip(features, cuts.tolist(), strict=False):
            seen = order[: cut + 1]  # the elements before the cut, and the one at it
            if not torch.allclose(row[:, seen], features[-1][:, seen], rtol=1e-4, atol=1e-4):
                raise ValueError(
                    f"{type(self).__name__} is not autoregressive: features of an element up to "
                    f"{order[cut].item()} change with that element or with later ones"
                )
