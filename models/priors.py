"""Priors p(z): each gives the distribution of one datum's latent variables."""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from ._zuko import FlowLaw, in_whole_space, zuko


class StandardNormal(nn.Module):
    """The standard normal prior, p(z) = N(z; 0, I) over z of shape (latent_dim,).

    Raises:
        ValueError: if ``latent_dim`` is less than 1.

    >>> prior = StandardNormal(2)
    >>> prior().batch_shape, prior().event_shape
    (torch.Size([]), torch.Size([2]))
    >>> round(prior().log_prob(torch.zeros(2)).item(), 4)  # -log 2π, in nats
    -1.8379
    """

    zero: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        _check_dim(latent_dim)
        self.latent_dim = latent_dim
        # A buffer, so that the prior follows its model to another device or dtype.
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.latent_dim}"


class NormalMixture(nn.Module):
    """A mixture of diagonal normals, p(z) = Σ_c π_c N(z; μ_c, diag σ_c²), all of it learned.

    Its KL has no closed form: fit it with ``Trace_ELBO``, which ``fit`` takes by itself.

    Args:
        latent_dim: K.
        num_components: C. Means start at draws of N(0, I), scales at 1, weights at 1/C.

    Raises:
        ValueError: if one of them is less than 1.

    >>> prior = NormalMixture(2, 10)
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, latent_dim: int, num_components: int):
        super().__init__()
        _check_dim(latent_dim)
        _check_components(num_components)
        self.latent_dim = latent_dim
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.means = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim))

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        components = dist.Normal(self.means, self.log_scales.exp()).to_event(1)
        return _mixture(self.logits, components)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.latent_dim}, {len(self.logits)}"


class VampPrior(nn.Module):
    """A mixture of the guide's own posteriors at C learned pseudo-inputs u (Tomczak and Welling
    2018, arXiv 1705.07120)::

        p(z) = 1/C Σ_c q(z|u_c)

    The best prior for a guide is its posterior averaged over the data; this is that average, over a
    few data that are learned. The guide's encoder belongs to the model, too.

    Args:
        guide: an amortized guide, of the pair that the prior is for.
        pseudo_inputs: where they start, (C, *event_shape); some of the training data are
            a good start. They are free to leave the range of the data.

    Raises:
        ValueError: if there are none, they hold NaN or infinity, or do not fit the guide's encoder;
            or if the guide takes a context, or is a point without a density.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import VAE, Bernoulli, mlp
    >>> guide = DiagonalNormal(mlp(64, 16, out=4), latent_dim=2)
    >>> prior = VampPrior(guide, torch.rand(10, 8, 8))
    >>> vae = VAE(prior, mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, guide: Any, pseudo_inputs: Tensor):
        super().__init__()
        if not callable(getattr(guide, "posterior", None)):
            raise ValueError(
                "a VampPrior mixes the posteriors of an amortized guide, such as DiagonalNormal, "
                f"not of a {type(guide).__name__}"
            )
        if getattr(guide, "conditional", False):
            raise ValueError(
                "the guide takes a context, which the pseudo-inputs of a VampPrior do not have: "
                "take a ConditionalNormal prior, or an encoder without a context"
            )
        inputs = torch.as_tensor(pseudo_inputs).detach()
        like = next((value for value in guide.parameters()), torch.zeros(()))
        inputs = inputs.to(like)
        if inputs.dim() == 0 or len(inputs) == 0 or not bool(inputs.isfinite().all()):
            raise ValueError(
                f"pseudo-inputs are finite numbers (C, *event_shape), got shape "
                f"{tuple(inputs.shape)}" + (" with NaN or infinity" if inputs.numel() else "")
            )
        training = guide.training
        try:
            with torch.no_grad(), torch.random.fork_rng():
                law = guide.eval().posterior(inputs)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"pseudo-inputs of shape {tuple(inputs.shape)} do not fit the guide's encoder; "
                f"give them the shape of the data, (C, *event_shape): {str(error).splitlines()[0]}"
            ) from error
        finally:
            guide.train(training)
        if isinstance(law, dist.Delta):
            raise ValueError(
                f"the posterior of {type(guide).__name__} is a point without a density, which a "
                "VampPrior cannot mix"
            )
        self.guide = guide
        self.latent_dim = law.event_shape[-1]
        self.pseudo_inputs = nn.Parameter(inputs.clone())

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        components = self.guide.posterior(self.pseudo_inputs)
        return _mixture(self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)), components)

    def extra_repr(self) -> str:
        """How many pseudo-inputs of what shape."""
        count, *shape = self.pseudo_inputs.shape
        return f"{count} pseudo-inputs of {tuple(shape)}"


class FlowPrior(nn.Module):
    """A normalizing flow as the prior: p(z) is the law of a zuko flow without a context.

    Scoring z is what a fit does at each step, and what zuko's autoregressive flows do in one pass:
    they are taken as they are, not inverted. There is no closed-form KL.

    Args:
        flow: over the whole space of z, such as ``zuko.flows.MAF(2)`` (Papamakarios et al. 2017,
            arXiv 1705.07057; as a prior, Chen et al. 2017, arXiv 1611.02731).

    Raises:
        ValueError: if it is no zuko flow, takes a context, or draws in a bounded region only.

    >>> prior = FlowPrior(zuko.flows.NSF(2, transforms=2))
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, flow: Any):
        super().__init__()
        advice = "take one without a context, such as zuko.flows.MAF(latent_dim)"
        if not isinstance(flow, zuko.lazy.Flow):
            raise ValueError(f"a FlowPrior is made of a zuko flow, not a {type(flow).__name__}")
        try:
            with torch.no_grad(), torch.random.fork_rng():
                law = FlowLaw(flow(None))
                law.log_prob(law.sample())
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"the flow of a FlowPrior cannot be run by itself: {advice}"
            ) from error
        if not in_whole_space(law):
            raise ValueError(
                f"{type(flow).__name__} draws in a bounded region, where z need not lie: take a "
                "flow over the whole space"
            )
        self.flow = flow
        self.latent_dim = law.event_shape[-1]

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        return FlowLaw(self.flow(None))


class ConditionalNormal(nn.Module):
    """The prior p(z|c) = N(z; μ(c), diag σ²(c)) of a conditional VAE (Sohn, Lee and Yan 2015).

    Args:
        network: from the context c (N, …) to features (N, 2 · latent_dim), which are (μ, log σ);
            of several contexts, a :class:`Conditional`.
        latent_dim: dimension of z.

    Raises:
        ValueError: if ``latent_dim`` is less than 1, or, when run, if there is no context or the
            network's features are not 2 · latent_dim.

    >>> from latente.models import OneHot, mlp
    >>> prior = ConditionalNormal(nn.Sequential(OneHot(10), mlp(10, out=4)), latent_dim=2)
    >>> prior(torch.tensor([3, 7, 7])).batch_shape
    torch.Size([3])
    """

    conditional = True

    def __init__(self, network: nn.Module, latent_dim: int):
        super().__init__()
        _check_dim(latent_dim)
        self.network = network
        self.latent_dim = latent_dim

    def forward(self, *context: Tensor) -> dist.TorchDistribution:
        """Contexts (N, …) to p(z|c): batch shape (N,), event shape (latent_dim,)."""
        if not context:
            raise ValueError("the prior takes a context: give the data as a tuple (x, context)")
        features = self.network(*context)
        if features.shape[-1] != 2 * self.latent_dim:
            raise ValueError(
                f"a ConditionalNormal of {self.latent_dim} dimensions takes {2 * self.latent_dim} "
                f"features (μ, log σ), but its network gave a tensor of shape "
                f"{tuple(features.shape)}: give it out={2 * self.latent_dim}"
            )
        mean, log_scale = features.chunk(2, dim=-1)
        return dist.Normal(mean, log_scale.exp()).to_event(1)

    def extra_repr(self) -> str:
        """The constructor's arguments, the network aside."""
        return f"latent_dim={self.latent_dim}"


def _check_dim(latent_dim: int) -> None:
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")


def _check_components(num_components: int) -> None:
    if num_components < 1:
        raise ValueError(f"a mixture has at least 1 component, got {num_components}")


class _DiagonalNormals(dist.TorchDistribution):
    """C diagonal normals whose density takes a quarter of the time of PyTorch's.

    A mixture of hundreds spends most of a training step there: fewer passes over (…, C, K).
    """

    arg_constraints: ClassVar = {}  # pyright: ignore
    support = dist.constraints.real_vector  # pyright: ignore
    has_rsample = True

    def __init__(self, law: Any, batch_shape: Size | None = None):
        self.law = law  # never expanded: what its parameters go through is done once for each
        shape = law.batch_shape if batch_shape is None else batch_shape
        super().__init__(shape, law.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """That of the law."""
        return self.law.mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """That of the law."""
        return self.law.variance.expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draw from the law."""
        return self.law.expand(self.batch_shape).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ Σₖ ((zₖ − μₖ) / σₖ)² − Σₖ log σₖ − K/2 log 2π."""
        location, scale = self.law.base_dist.loc, self.law.base_dist.scale
        standardized = (value - location) * (1 / scale)
        constant = scale.log().sum(-1) + 0.5 * location.shape[-1] * math.log(2 * math.pi)
        log_prob = -0.5 * torch.linalg.vecdot(standardized, standardized) - constant
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_DiagonalNormals":
        """The same laws in a larger batch."""
        return _DiagonalNormals(self.law, Size(batch_shape))


def _mixture(logits: Tensor, components: Any) -> dist.TorchDistribution:
    normal = isinstance(components, torch.distributions.Independent) and isinstance(
        components.base_dist, torch.distributions.Normal
    )
    if normal and components.reinterpreted_batch_ndims == 1:
        components = _DiagonalNormals(components)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
