"""Likelihoods p(x|z) of images: grey levels, classes, and intensities on [0, 1]."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

from .likelihoods import Likelihood


class DiscretizedLogistic(Likelihood):
    """Independent grey levels, each a mixture of logistics rounded to the nearest level.

    The levels are x = k/(L − 1) for k = 0, …, L − 1: bytes divided by 255, for L = 256. Level x
    has the mass that each logistic puts within half a step of it, w = 1/(L − 1),

        p(x|z) = Σ_c π_c [σ((x + w/2 − μ_c)/s_c) − σ((x − w/2 − μ_c)/s_c)],

    and the first and the last level all the mass beyond. One logistic: Kingma et al. (2016),
    arXiv 1606.04934; a mixture: Salimans et al. (2017), arXiv 1701.05517, though here the
    channels of a colour image are independent. Nearby levels share their mass, which
    :class:`Categorical` would have to learn.

    Features are the C logits of π (none for one component), then C of μ, then C of s:
    μ_c = (c − ½)/C + f for c = 1, …, C and s_c = e^f / 10, in the units of x. So features of 0
    spread the components over [0, 1], and no two of them start alike.

    Args:
        event_shape: shape of one datum.
        num_components: C, the number of logistics.
        levels: L, the number of levels.

    Raises:
        ValueError: if there is no component, or if there are fewer than two levels.

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
        """The data's mean for one component; several start spread over the levels."""
        if self.num_components == 1:
            return self._first_block(x.mean(0) - 0.5)
        return x.new_zeros(self.num_features)

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits, shifts and log scales of the components to independent laws of levels."""
        num = self.num_components
        features = torch.stack(blocks, -1)
        shift, log_scale = features[..., -2 * num : -num], features[..., -num:]
        logits = features[..., : -2 * num] if num > 1 else torch.zeros_like(shift)
        spread = (torch.arange(num, dtype=shift.dtype, device=shift.device) + 0.5) / num
        return DiscretizedLogisticLaw(logits, spread + shift, log_scale.exp() / 10, self.levels)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, num_components={self.num_components}, levels={self.levels}"


class DiscretizedLogisticLaw(dist.TorchDistribution):
    """A mixture of logistics rounded to the levels k/(L − 1), the tails to the first and last.

    Args:
        logits: of the components, (…, C).
        loc: the components' means, (…, C), in the units of x.
        scale: the components' scales, (…, C), in the units of x; their standard deviation is
            π/√3 times that.
        levels: L.

    >>> one = torch.ones(1)
    >>> DiscretizedLogisticLaw(0 * one, 0.7 * one, 1e-3 * one, levels=11).mean
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

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticLaw":
        """The same law, in another batch shape."""
        shape = (*batch_shape, self.logits.shape[-1])
        logits, loc, scale = (part.expand(shape) for part in (self.logits, self.loc, self.scale))
        new = DiscretizedLogisticLaw(logits, loc, scale, self.levels, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters must be."""
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
        # σ(u) − σ(l) = σ(u) σ(−l) (1 − e^(l−u)): a product, so no digits cancel in the tails. An
        # edge beyond the first or the last level is at infinity, and its factors are 1.
        first, last = level == 0, level == self.levels - 1
        within = logsigmoid(upper).masked_fill(last, 0) + logsigmoid(-lower).masked_fill(first, 0)
        width = (-torch.expm1(-step / self.scale)).log()
        log_mass = within + width.masked_fill(first | last, 0)
        return (self.logits.log_softmax(-1) + log_mass).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw a component, a value of it, and round that."""
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
        for level in range(self.levels - 1):  # all at once would take L times the memory
            total = total + ((self.loc - (level + 0.5) * step) / self.scale).sigmoid()
        return step * (weights * total).sum(-1)


class _Levels(constraints.Constraint):
    """The values k/(L − 1), k = 0, …, L − 1, up to a hundredth of a step for rounding."""

    is_discrete = True

    def __init__(self, levels: int):
        self.levels = levels

    def check(self, value: Tensor) -> Tensor:
        level = value * (self.levels - 1)
        nearest = level.round()
        # float32 holds 65,536 levels to less than a hundredth of a step, but not a thousandth.
        return ((level - nearest).abs() < 1e-2) & (nearest >= 0) & (nearest < self.levels)


class Categorical(Likelihood):
    """Independent classes, p(x = c|z) = e^{f_c} / Σ_d e^{f_d}, of no order.

    The data are the integers 0, …, C − 1, of any dtype. Block c of the features holds the logits
    of class c of every element. The law knows no mean, so a reconstruction does not exist.

    Args:
        event_shape: shape of one datum.
        num_classes: C.

    Raises:
        ValueError: if there are fewer than two classes.

    >>> likelihood = Categorical((2,), num_classes=3)
    >>> features = torch.tensor([9.0, 0.0, 0.0, 9.0, 0.0, 0.0])  # of class 0, of class 1, of 2
    >>> likelihood(features).sample()
    tensor([0, 1])
    """

    def __init__(self, event_shape: tuple[int, ...], num_classes: int):
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        super().__init__(event_shape, features_per_element=num_classes)
        self.num_classes = num_classes

    def constant_features(self, x: Tensor) -> Tensor:
        """The logarithms of the classes' frequencies, each counted once more."""
        counts = [(x == c).sum(0) + 1 for c in range(self.num_classes)]
        return (torch.stack(counts) / (len(x) + self.num_classes)).log().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits of each class, each (…, *event_shape), to independent Categorical laws."""
        return dist.Categorical(logits=torch.stack(blocks, -1))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{super().extra_repr()}, num_classes={self.num_classes}"


class ContinuousBernoulli(Likelihood):
    """Independent intensities on [0, 1], p(x|z) = ∏ᵢ e^{fᵢ xᵢ} fᵢ / (e^{fᵢ} − 1).

    What a Bernoulli's formula becomes for grey values once it is normalized: Loaiza-Ganem and
    Cunningham (2019), arXiv 1907.06845. A density, in nats for x in units of 1: it has no upper
    bound at x = 0 and 1, so its figures do not compare to those of laws of bits or levels.

    Args:
        event_shape: shape of one datum.

    >>> p = ContinuousBernoulli((2,))(torch.tensor([0.0, 2.0]))
    >>> p.mean  # uniform at a logit of 0
    tensor([0.5000, 0.6565])
    """

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__(event_shape)

    def constant_features(self, x: Tensor) -> Tensor:
        """The logits of the data's mean, were it a Bernoulli's."""
        return x.mean(0).clamp(0.01, 0.99).logit().flatten()

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """Logits (…, *event_shape) to independent continuous Bernoulli laws."""
        (logits,) = blocks
        return ContinuousBernoulliLaw(logits=logits)


class ContinuousBernoulliLaw(dist.ContinuousBernoulli):
    """PyTorch's law, whose density, mean and draws hold at every logit.

    Its own go through a probability, which float32 rounds to 0 or 1 from logits of 16 on, where
    the background of an image soon is; near 0, its figures lose half of their digits.

    >>> law = ContinuousBernoulliLaw(logits=torch.tensor(-100.0))
    >>> law.mean, law.log_prob(torch.tensor(0.0))  # 1/100 and log 100
    (tensor(0.0100), tensor(4.6052))
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density f x − A(f), where A(f) = log((e^f − 1)/f)."""
        if self._validate_args:
            self._validate_sample(value)
        square, large = self.logits.square(), self._large.abs()
        series = self.logits / 2 + square / 24 - square**2 / 2880 + square**3 / 181440
        closed = self.logits.clamp(min=0) + (-torch.expm1(-large) / large).log()
        return self.logits * value - torch.where(self._is_small, series, closed)

    @property
    def mean(self) -> Tensor:
        """E[x] = A′(f) = 1/(1 − e^(−f)) − 1/f."""
        f, large = self.logits, self._large
        series = 0.5 + f / 12 - f**3 / 720 + f**5 / 30240
        return torch.where(self._is_small, series, -1 / torch.expm1(-large) - 1 / large)

    def icdf(self, value: Tensor) -> Tensor:
        """The x below which the law puts a given mass."""
        # Worked out for a falling density, of logit −|f|; a rising one is its mirror image.
        rising = self.logits > 0
        fall = -self.logits.abs().clamp(min=torch.finfo(self.logits.dtype).eps)
        mass = torch.where(rising, 1 - value, value)
        x = (torch.log1p(mass * torch.expm1(fall)) / fall).clamp(0, 1)
        return torch.where(rising, 1 - x, x)

    @property
    def _is_small(self) -> Tensor:
        """Where closed forms lose digits, and the series' next terms are below 1e-10."""
        return self.logits.abs() < 0.25

    @property
    def _large(self) -> Tensor:
        """The logits; 1 where they are small, so that the form not taken has a gradient."""
        return self.logits.masked_fill(self._is_small, 1)
