"""Base of the amortized guides, the program that they share: x → encoder features → q(z|x)."""

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..models.contexts import context_for, takes_context
from ..models.latent_shape import LatentDim, check_feature_shape, latent_shape
from .own_features import Features, OwnFeatures


class Amortized(PyroModule):
    """Base class of amortized guides; subclass it to add a posterior family.

    The guide is a Pyro program ``guide(x)`` with the site ``"z"`` inside a plate named ``"data"``
    at dimension −1. A subclass says how many encoder features it takes, names them in
    :attr:`layout`, and implements :meth:`family`. If the encoder takes a context, as one made with
    :class:`latente.models.Conditional` does, the program is ``guide(x, c)`` for q(z|x, c).

    Args:
        encoder: a network from x (N, *event_shape) to features (N, width).
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        width: number of features that the family takes; for maps, of their channels.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if the encoder does not give
            one row of ``width`` features for each datum, or for maps (N, width, H, W).

    >>> import torch
    >>> from latente.models import mlp
    >>> class Laplace(Amortized):
    ...     layout = "location, log scale"
    ...     def family(self, features):
    ...         location, log_scale = features.chunk(2, dim=-1)
    ...         return dist.Laplace(location, log_scale.exp()).to_event(1)
    >>> guide = Laplace(mlp(64, 16, out=4), latent_dim=2, width=4)
    >>> guide(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 2])
    """

    layout = "features"
    """The blocks of features, in order, for error messages."""

    infer: ClassVar[dict[str, Any]] = {}
    """Passed to ``pyro.sample`` as ``infer``, where objectives read it."""

    def __init__(self, encoder: nn.Module, latent_dim: LatentDim, width: int):
        super().__init__()
        self.event_shape = latent_shape(latent_dim)
        self.encoder = encoder
        self.latent_dim = latent_dim
        self.width = width

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, width) to q(z|x): batch shape (…), event shape (K,) or (C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} has no posterior family")

    @property
    def conditional(self) -> bool:
        """Whether the encoder takes a context."""
        return takes_context(self.encoder)

    def features(self, x: Tensor, *context: Tensor) -> Tensor:
        """Encode data (N, *event_shape) to features (N, width), or (S, N, width) of S contexts."""
        features = self.arrange(self.encoder(x, *context_for(self.encoder, context)))
        self.check_width(features)
        leading = features.shape[: -len(self.event_shape)]
        # A context, such as a label of which all values are taken, may have samples to the left.
        rows = leading[-1:] if context_for(self.encoder, context) else leading
        if rows != x.shape[:1]:
            raise ValueError(
                f"the encoder gave features of shape {tuple(features.shape)} for data of shape "
                f"{tuple(x.shape)}: it must give one row for each of the N data; an mlp takes the "
                f"shape of a datum, mlp({tuple(x.shape[1:])}, …)"
            )
        return features

    def arrange(self, features: Tensor) -> Tensor:
        """Lay out what the encoder gave as the family takes it; by default as it is."""
        return features

    def check_width(self, features: Tensor) -> None:
        """Refuse features that are not (…, width), or of maps not (…, width, H, W)."""
        part = (
            f"{type(self).__name__} with {self.extra_repr()} takes {self.width} encoder features "
            f"({self.layout}), but the encoder"
        )
        check_feature_shape(features, self.latent_dim, self.width, part)

    def posterior(self, x: Tensor, *context: Tensor) -> dist.TorchDistribution:
        """q(z|x) of data (N, *event_shape): batch shape (N,), event shape (K,) or (C, H, W)."""
        return self._of_latents(self.family(self.features(x, *context)))

    def posterior_of_level(
        self, features: Features, state: tuple[Tensor, ...], prior: dist.TorchDistribution | None
    ) -> dist.TorchDistribution:
        """q(z|features, state) of one level of a hierarchy, with any leading batch shape.

        Args:
            features: what the encoder takes; or what each datum has for itself.
            state: what the level above hands down, for an encoder that takes a context; () at the
                top.
            prior: the model's prior of the level, which this family does not need.
        """
        return self._of_latents(self.family(self.encode(features, state)))

    def encode(self, features: Features, state: tuple[Tensor, ...]) -> Tensor:
        """Encode the features of a level, with the state above, to those of the family."""

        def network(given: Tensor) -> Tensor:
            return self.encoder(given, *context_for(self.encoder, state))

        is_own = isinstance(features, OwnFeatures)
        encoded = self.arrange(features.encode(network) if is_own else network(features))
        self.check_width(encoded)
        return encoded

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the features of the family, for one datum."""
        return (self.width, *self.event_shape[1:])

    def _of_latents(self, distribution: dist.TorchDistribution) -> dist.TorchDistribution:
        if distribution.event_shape != self.event_shape:
            raise ValueError(
                f"{type(self).__name__}.family gave a distribution of event shape "
                f"{tuple(distribution.event_shape)}, not {self.event_shape}: end it with "
                f".to_event({len(self.event_shape)}) to make z one variable"
            )
        return distribution

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z (…, N, K), or (…, N, C, H, W)."""
        posterior = self.posterior(x, *context)
        infer: Any = dict(self.infer)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", posterior, infer=infer)

    def extra_repr(self) -> str:
        """The constructor's arguments except the encoder."""
        return f"latent_dim={self.latent_dim}"
