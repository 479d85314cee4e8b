"""Ordinal likelihood: levels in an order, such as the answers of a questionnaire."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from .likelihood import Likelihood


class Ordinal(Likelihood):
    """Independent levels in an order: the cumulative logit, or proportional odds, model.

        P(x ≤ k|z) = σ(c_k − f),  k = 0, …, K − 2,  with cutpoints c₀ < … < c_{K−2}

    The data are the integers 0, …, K − 1, in any dtype. One feature f(z) of each element moves it
    up or down all levels; :class:`Categorical` takes K features, and learns the order at best. The
    cutpoints are learned, those of each element for itself; the optimizer sees the first one and
    the logarithms of the gaps between them. With K = 2 it is a :class:`Bernoulli` of logit f − c₀.
    The levels have no metric, so there is no mean, and a reconstruction is a draw of x.

    McCullagh (1980), Regression models for ordinal data, J. R. Stat. Soc. B 42.

    Args:
        event_shape: shape of one datum.
        num_classes: K, the number of levels.

    Raises:
        ValueError: if K is less than 2.

    >>> likelihood = Ordinal((), num_classes=4)
    >>> likelihood(torch.zeros(1)).probs.detach()  # of a feature of 0, before training
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, event_shape: tuple[int, ...], num_classes: int):
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        super().__init__(event_shape)
        self.num_classes = num_classes
        start = (torch.arange(1, num_classes) / num_classes).logit()
        start = start.expand(*event_shape, num_classes - 1)
        self.first_cutpoint = nn.Parameter(start[..., 0].clone())
        self.log_gaps = nn.Parameter(start.diff(dim=-1).log())

    @property
    def cutpoints(self) -> Tensor:
        """c, (*event_shape, K − 1), in rising order."""
        return self.first_cutpoint[..., None] + pad(self.log_gaps.exp().cumsum(-1), (1, 0))

    def constant_features(self, x: Tensor) -> Tensor:
        """Features that shift the cutpoints to the log odds of the data, on average over them."""
        below = torch.stack([(x <= k).sum(0) for k in range(self.num_classes - 1)], -1)
        log_odds = ((below + 0.5) / (len(x) + 1)).logit()
        return (self.cutpoints.detach() - log_odds).mean(-1).flatten().to(self.first_cutpoint)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Features (…, *event_shape) to independent distributions of levels."""
        upper = self.cutpoints - blocks[0][..., None]
        # σ(u) − σ(l) = σ(u) σ(−l) (1 − e^(l−u)): a product, so no digits cancel in the tails. The
        # lowest level has no lower cutpoint and the highest no upper one: a factor of 1.
        below, above = pad(logsigmoid(upper), (0, 1)), pad(logsigmoid(-upper), (1, 0))
        between = pad((-torch.expm1(-self.log_gaps.exp())).log(), (1, 1))
        return dist.Categorical(logits=below + above + between)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, num_classes={self.num_classes}"
