"""Normalizing flows as posteriors: any zuko flow, conditioned on the encoder's features."""

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import AffineTransform, Transform, constraints

from ..models._zuko import FlowDistribution, in_whole_space, zuko
from ..models.latent_shape import check_vector
from ..models.networks.mlp import shrink
from .amortized import Amortized

Flow = zuko.lazy.Flow


class _BatchedAffine(AffineTransform):
    """u → μ + σ ⊙ u, where batch dimensions of μ and σ are not part of the event shape."""

    def forward_shape(self, shape: Size) -> Size:
        return shape

    inverse_shape = forward_shape


class NormalizingFlow(Amortized):
    """A normalizing flow as the posterior (Rezende and Mohamed 2015, arXiv 1505.05770).

    The encoder's features of a datum are (μ, log σ, h). The flow, conditioned on h, draws a
    standardized variable u, which is then shifted and scaled::

        z = μ(x) + σ(x) ⊙ u,   u ~ flow(h(x)),   log q(z|x) = log flow(u; h(x)) − Σₖ log σₖ(x)

    So the flow only models how the posterior differs from a diagonal normal one. The KL has no
    closed form: fit with ``Trace_ELBO``, which :func:`latente.inference.fit` chooses by default.

    Args:
        encoder: a network from x (N, *event_shape) to (N, 2 · latent_dim + context) features.
        latent_dim: dimension of z.
        flow: a zuko flow over the whole space, with ``latent_dim`` features and ``context`` context
            features, such as ``zuko.flows.NSF(2, 16)``, ``inverse(zuko.flows.MAF(2, 16))``, or
            ``planar(2, 16)``.
        context: length of h; 0 for a flow that is the same for all data.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or a shape, ``context`` is negative, or the
            flow does not have these dimensions; when run, if the encoder gives another number of
            features.

    >>> import zuko
    >>> from latente.models import mlp
    >>> encoder = mlp(64, 16, out=NormalizingFlow.num_features(2, context=16))
    >>> guide = NormalizingFlow(encoder, 2, inverse(zuko.flows.NSF(2, 16)), context=16)
    >>> guide.posterior(torch.zeros(5, 8, 8)).rsample().shape
    torch.Size([5, 2])
    """

    layout = "μ, log σ, context of the flow"

    def __init__(self, encoder: nn.Module, latent_dim: int, flow: Flow, *, context: int):
        if context < 0:
            raise ValueError(f"context must not be negative, got {context}")
        if not isinstance(flow, Flow):
            raise ValueError(
                "NormalizingFlow takes a zuko flow, such as "
                f"zuko.flows.NSF({latent_dim}, {context}), not a {type(flow).__name__}"
            )
        super().__init__(encoder, latent_dim, self.num_features(latent_dim, context))
        self.flow = flow
        self.context = context
        self._check_flow()

    @staticmethod
    def num_features(latent_dim: int, context: int) -> int:
        """Number of features that the encoder gives: 2 · latent_dim + context."""
        check_vector(latent_dim, "a NormalizingFlow")
        return 2 * latent_dim + context

    def _check_flow(self) -> None:
        like = next((part for part in self.flow.parameters()), torch.zeros(()))
        features = like.new_zeros(3, self.width)
        advice = (
            f"make it for {self.latent_dim} features (latent_dim) and {self.context} of context"
        )
        try:
            with torch.no_grad(), torch.random.fork_rng():
                distribution = self.family(features)
                shapes = {distribution.event_shape, distribution.sample().shape[1:]}
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"the flow and context={self.context} do not fit: {advice}") from error
        if shapes != {torch.Size(self.event_shape)}:
            raise ValueError(f"the flow has {distribution.event_shape[-1]} features: {advice}")
        if not in_whole_space(distribution):
            raise ValueError(
                f"{type(self.flow).__name__} draws in a bounded region, but a posterior may lie "
                "outside: take a flow over the whole space"
            )

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, 2 · latent_dim + context) to q(z|x)."""
        dim = self.latent_dim
        mean, log_scale, context = features.split([dim, dim, self.context], dim=-1)
        standardized = self.flow(context if self.context else None)
        # One composed transform, not a flow of a flow: a draw then comes with its density.
        affine = _BatchedAffine(mean, log_scale.exp(), event_dim=1)
        transform = zuko.transforms.ComposedTransform(affine.inv, standardized.transform)
        base = standardized.base.expand(features.shape[:-1])
        return FlowDistribution(zuko.distributions.NormalizingFlow(transform, base))

    def extra_repr(self) -> str:
        """The constructor's arguments except encoder and flow."""
        return f"latent_dim={self.latent_dim}, context={self.context}"


def inverse(flow: Flow) -> Flow:
    """Invert a flow: its transformation is replaced by the inverse.

    An autoregressive flow of zuko takes one pass to score a value and K passes to draw one. A guide
    draws, and scores only its own draws. The inverted flow draws in one pass, and the density comes
    with the draw: ``inverse(zuko.flows.MAF(K, C))`` is the inverse autoregressive flow (Kingma et
    al. 2016, arXiv 1606.04934), ``inverse(zuko.flows.NSF(K, C))`` the same with splines (Durkan et
    al. 2019, arXiv 1906.04032).

    >>> import zuko
    >>> inverse(zuko.flows.MAF(3, 4, transforms=2))(torch.zeros(4)).sample().shape
    torch.Size([3])
    """
    transform = flow.transform
    if isinstance(transform, zuko.lazy.LazyComposedTransform):
        # A lazy composition has no inverse of its own before it gets a context.
        return Flow([part.inv for part in reversed(transform.transforms)], flow.base)  # pyright: ignore
    return Flow(transform.inv, flow.base)


def planar(
    features: int, context: int, *, transforms: int = 8, hidden_features: tuple[int, ...] = ()
) -> Flow:
    """Make a planar flow that takes a context (Rezende and Mohamed 2015, arXiv 1505.05770).

    Each of its transformations, from the base outwards, is::

        f(u) = u + v tanh(wᵀu + b),   log |det J| = log |1 + wᵀv (1 − tanh²(wᵀu + b))|

    A network gives (v, w, b) from the context, and v is corrected so that wᵀv > −1, which makes f
    invertible. f starts close to the identity. Values that the flow did not draw are scored by
    inverting f along w, by bisection.

    Args:
        features: dimension of the variable.
        context: length of the context; 0 for none.
        transforms: number of transformations.
        hidden_features: widths of the hidden layers of the networks that give (v, w, b); with none
            the networks are linear.

    Raises:
        ValueError: if ``features`` or ``transforms`` is less than 1, or ``context`` is negative.

    >>> planar(2, 4)(torch.zeros(7, 4)).sample().shape
    torch.Size([7, 2])
    """
    if min(features, transforms, context + 1) < 1:
        raise ValueError(
            "a planar flow takes at least 1 feature, 1 transformation and no negative context, got "
            f"features={features}, context={context}, transforms={transforms}"
        )
    base = zuko.flows.MAF(features, transforms=1).base
    layers = [_LazyPlanar(features, context, hidden_features) for _ in range(transforms)]
    return Flow([layer.inv for layer in layers], base)


class _LazyPlanar(zuko.lazy.LazyTransform):
    """A planar transformation whose parameters come from the context."""

    def __init__(self, features: int, context: int, hidden_features: tuple[int, ...]):
        super().__init__()
        self.features = features
        self.parameters_of = zuko.nn.MLP(max(context, 1), 2 * features + 1, hidden_features)
        # v starts small, so f starts close to the identity.
        shrink(list(self.parameters_of.children())[-1], rows=slice(features))

    def forward(self, c: Tensor | None = None) -> Transform:
        """Context (…, C), or none, to the transformation."""
        if c is None:
            c = next(self.parameters_of.parameters()).new_ones(1)
        v, w, b = self.parameters_of(c).split([self.features, self.features, 1], dim=-1)
        return Planar(v, w, b)


class Planar(Transform):
    """f(u) = u + v̂ tanh(wᵀu + b), with v̂ = v + (m(wᵀv) − wᵀv) w / ‖w‖².

    m(a) = 0.999 (softplus(a + log(e − 1)) − 1) is above −0.999, so f is invertible and its Jacobian
    is not singular, in float32 too. This is the m of Rezende and Mohamed's appendix except for the
    shift, which makes m(0) = 0: then v = 0 gives the identity, and v̂ stays bounded as w goes to 0.

    Args:
        v: (…, K).
        w: (…, K).
        b: (…, 1).

    >>> f = Planar(torch.ones(2), torch.ones(2), torch.zeros(1))
    >>> u = torch.tensor([0.3, -1.0])
    >>> bool(torch.allclose(f.inv(f(u)), u, atol=1e-5))
    True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, v: Tensor, w: Tensor, b: Tensor):
        super().__init__()
        inner = (w * v).sum(-1, keepdim=True)
        bounded = 0.999 * (nn.functional.softplus(inner + math.log(math.e - 1)) - 1)
        squared = w.square().sum(-1, keepdim=True)
        step = (bounded - inner) / (squared + 1e-12)
        self.v = v + step * w
        self.slope = inner + step * squared
        self.w, self.b = w, b

    def _call(self, x: Tensor) -> Tensor:
        along = (self.w * x).sum(-1, keepdim=True) + self.b
        return x + self.v * along.tanh()

    def _inverse(self, y: Tensor) -> Tensor:
        # With a = wᵀu + b: wᵀy + b = a + wᵀv̂ tanh a, which is monotone in a because wᵀv̂ > −1.
        target = (self.w * y).sum(-1, keepdim=True) + self.b
        slope = self.slope.expand_as(target)
        reach = slope.abs().detach()
        steps = 30 if y.dtype == torch.float32 else 60
        along = zuko.utils.bisection(
            lambda a: a + slope * a.tanh(),
            target,
            target.detach() - reach,
            target.detach() + reach,
            n=steps,
            phi=(slope,),
        )
        return y - self.v * along.tanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det J| at x, (…)."""
        along = (self.w * x).sum(-1, keepdim=True) + self.b
        return (self.slope * (1 - along.tanh().square())).log1p().squeeze(-1)
