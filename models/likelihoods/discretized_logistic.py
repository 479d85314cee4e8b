"""Discretized logistic likelihood: images of 256 grey levels."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

from .likelihood import Likelihood


class DiscretizedLogistic(Likelihood):
    """Independent grey levels, each a mixture of logistics rounded to the nearest level.

    The levels are x = k/(L − 1) for k = 0, …, L − 1; with L = 256 they are bytes divided by 255. A
    level has the mass of the mixture within half a step of it, where a step is w = 1/(L − 1),

        p(x|z) = Σ_c π_c [σ((x + w/2 − μ_c)/s_c) − σ((x − w/2 − μ_c)/s_c)],

    and the first and the last level also have all the mass beyond them. One logistic: Kingma et al.
    (2016), arXiv 1606.04934; a mixture: Salimans et al. (2017), arXiv 1701.05517, but here the
    channels of a colour image are independent. Nearby levels get similar mass; :class:`Categorical`
    would have to learn this.

    Features are the C logits of π (none for one component), then C of μ, then C of s:
    μ_c = (c − ½)/C + f for c = 1, …, C and s_c = e^f / 10, in the units of x. So with features of 0
    the components are spread over [0, 1], and no two of them are equal.

    Args:
        event_shape: shape of one datum.
        num_components: C, the number of logistics.
        levels: L, the number of levels.

    Raises:
        ValueError: if C is less than 1 or L is less than 2.

    >>> likelihood = DiscretizedLogistic((8, 8), num_components=5)
    >>> likelihood.num_features == 3 * 5 * 8 * 8
    True
    >>> p = DiscretizedLogistic((), levels=3)(torch.zeros(2))  # μ = ½, s = 0.1
    >>> p.log_prob(torch.tensor([0.0, 0.5, 1.0])).exp()
    tensor([0.0759, 0.8483, 0.0759])
    """

    def __init__(self, event_shape: tuple[int, ...], num_components: int = 1, *, levels: int = 256):
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1, got {num_components}")
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        features_per_element = 2 if num_components == 1 else 3 * num_components
        super().__init__(event_shape, features_per_element=features_per_element)
        self.num_components = num_components
        self.levels = levels

    def constant_features(self, x: Tensor) -> Tensor:
        """The mean of the data for one component; zero for several, which spreads them."""
        if self.num_components == 1:
            return self._first_block(x.mean(0) - 0.5)
        return x.new_zeros(self.num_features)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits, shifts and log scales of the components to independent levels."""
        num = self.num_components
        features = torch.stack(blocks, -1)
        shift, log_scale = features[..., -2 * num : -num], features[..., -num:]
        logits = features[..., : -2 * num] if num > 1 else torch.zeros_like(shift)
        spread = (torch.arange(num, dtype=shift.dtype, device=shift.device) + 0.5) / num
        return DiscretizedLogisticDistribution(
            logits, spread + shift, log_scale.exp() / 10, self.levels
        )

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, num_components={self.num_components}, levels={self.levels}"


class DiscretizedLogisticDistribution(dist.TorchDistribution):
    """A mixture of logistics rounded to the levels k/(L − 1), with tails to the first and last.

    Args:
        logits: of the components, (…, C).
        loc: the components' means, (…, C), in the units of x.
        scale: the components' scales, (…, C), in the units of x; their standard deviation is
            π/√3 times that.
        levels: L.

    >>> one = torch.ones(1)
    >>> DiscretizedLogisticDistribution(0 * one, 0.7 * one, 1e-3 * one, levels=11).mean
    tensor(0.7000)
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        levels: int,
        validate_args: bool | None = None,
    ):
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.levels = levels
        super().__init__(self.logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticDistribution":
        """Expand the batch shape."""
        shape = (*batch_shape, self.logits.shape[-1])
        logits, loc, scale = (part.expand(shape) for part in (self.logits, self.loc, self.scale))
        new = DiscretizedLogisticDistribution(logits, loc, scale, self.levels, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """Constraints of the parameters."""
        positive = constraints.independent(constraints.positive, 1)
        real = constraints.real_vector
        return {"logits": real, "loc": real, "scale": positive}

    @property
    def support(self) -> constraints.Constraint:
        """The levels k/(L − 1)."""
        return _Levels(self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of levels, accurate in the tails too."""
        if self._validate_args:
            self._validate_sample(value)
        step = 1 / (self.levels - 1)
        level = (value * (self.levels - 1)).round().unsqueeze(-1)
        upper = ((level + 0.5) * step - self.loc) / self.scale
        lower = ((level - 0.5) * step - self.loc) / self.scale
        # σ(u) − σ(l) = σ(u) σ(−l) (1 − e^(l−u)): a product, so no digits cancel in the tails. The
        # outer edges of the first and the last level are at infinity, where the factors are 1.
        first, last = level == 0, level == self.levels - 1
        within = logsigmoid(upper).masked_fill(last, 0) + logsigmoid(-lower).masked_fill(first, 0)
        width = (-torch.expm1(-step / self.scale)).log()
        log_mass = within + width.masked_fill(first | last, 0)
        return (self.logits.log_softmax(-1) + log_mass).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw a component, draw its value, and round it to a level."""
        shape = self._extended_shape(sample_shape)
        component = dist.Categorical(logits=self.logits).sample(sample_shape).unsqueeze(-1)
        loc, scale = (
            part.expand(*shape, -1).gather(-1, component).squeeze(-1)
            for part in (self.loc, self.scale)
        )
        value = loc + scale * torch.rand_like(loc).logit()
        return (value.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """E[x] = Σₖ P(x > k/(L − 1)) / (L − 1)."""
        weights, step = self.logits.softmax(-1), 1 / (self.levels - 1)
        total = torch.zeros_like(weights)
        for level in range(self.levels - 1):  # vectorized it would take L times the memory
            total = total + ((self.loc - (level + 0.5) * step) / self.scale).sigmoid()
        return step * (weights * total).sum(-1)


class _Levels(constraints.Constraint):
    """The levels k/(L − 1), k = 0, …, L − 1, to within a hundredth of a step."""

    is_discrete = True

    def __init__(self, levels: int):
        self.levels = levels

    def check(self, value: Tensor) -> Tensor:
        level = value * (self.levels - 1)
        nearest = level.round()
        # float32 rounds 65,536 levels by less than a hundredth of a step, but not a thousandth.
        return ((level - nearest).abs() < 1e-2) & (nearest >= 0) & (nearest < self.levels)
