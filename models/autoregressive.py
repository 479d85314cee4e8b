"""Fully observed models p(x): nothing latent, each element given those before it."""

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Size, Tensor, nn
from torch.types import _size

from ._zuko import zuko
from .likelihoods import Likelihood
from .networks import FlattenEvent


class AutoregressiveLaw(dist.TorchDistribution):
    """p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁), scored in one pass of its network and drawn in D passes."""

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(self, network: nn.Module, likelihood: Likelihood, batch_shape: Size = Size()):  # noqa: B008
        self.network, self.likelihood = network, likelihood
        super().__init__(batch_shape, likelihood.event_shape)

    @property
    def base_dist(self) -> dist.TorchDistribution:
        """The law of each element, at some values of those before it."""
        return self._law_given(self._blank(Size()))

    @property
    def support(self) -> dist.constraints.Constraint:
        """Where the likelihood's values lie."""
        return self.base_dist.support  # pyright: ignore

    def _blank(self, shape: Size) -> Tensor:
        like = next(self.network.parameters())
        return like.new_zeros(*shape, *self.event_shape)

    def _law_given(self, x: Tensor) -> dist.TorchDistribution:
        return self.likelihood(self.network(x))

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveLaw":
        """The same law in a larger batch."""
        return AutoregressiveLaw(self.network, self.likelihood, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of values (…, *event_shape)."""
        log_px = self._law_given(value).log_prob(value)
        return log_px.expand(torch.broadcast_shapes(log_px.shape, self.batch_shape))

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw element by element."""
        with torch.no_grad():
            x = self._blank(Size(sample_shape) + self.batch_shape)
            elements = x.view(*x.shape[: x.dim() - len(self.event_shape)], -1)
            for index in range(elements.shape[-1]):
                elements[..., index] = self._law_given(x).sample().view_as(elements)[..., index]
        return x


class Autoregressive(PyroModule):
    """A fully observed density, p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁), fitted by maximum likelihood.

    The course's starting point: a model without a latent variable, whose ELBO is log p(x). It is
    fitted as any pair is, with an empty guide: ``fit(model, lambda x: None, data)``. Elements
    are taken in the order of the flattened datum. The network is masked, as in MADE
    (Germain et al. 2015, arXiv 1502.03509): one pass gives all the conditionals.

    Args:
        likelihood: of each element given features, such as ``Bernoulli((8, 8))``.
        hidden: widths of the hidden layers.

    Raises:
        ValueError: if a width is less than 1, a datum holds one value only, or, when run, the
            data's shape is not the likelihood's.

    >>> from latente.models import Bernoulli
    >>> model = Autoregressive(Bernoulli((2, 2)), hidden=(16,))
    >>> model.log_prob(torch.ones(5, 2, 2)).shape
    torch.Size([5])
    """

    def __init__(self, likelihood: Likelihood, hidden: tuple[int, ...] = (200,)):
        super().__init__()
        num_elements = likelihood.event_shape.numel()
        if num_elements < 2:
            raise ValueError("an autoregressive model needs data of two elements or more")
        if min(hidden, default=1) < 1:
            raise ValueError(f"every width must be at least 1, got {hidden}")
        earlier: Any = torch.ones(num_elements, num_elements).tril(-1).bool()
        masked = zuko.nn.MaskedMLP(
            earlier.repeat(likelihood.features_per_element, 1), hidden, nn.ReLU
        )
        self.network = nn.Sequential(FlattenEvent(tuple(likelihood.event_shape)), masked)
        self.likelihood = likelihood

    def law(self) -> AutoregressiveLaw:
        """p(x), batch shape (), event shape that of the data."""
        return AutoregressiveLaw(self.network, self.likelihood)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of data (N, *event_shape), exact, in nats: (N,)."""
        return self.law().log_prob(x)

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns the observed x."""
        self.likelihood.check_data(x)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("x", self.law(), obs=x)
