"""State-space models: latent variables that follow one another in time, as a Pyro program."""

from typing import Protocol, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from .emissions import Emissions
from .likelihoods.likelihood import Likelihood
from .markov_chain import MarkovChain
from .padding import check_same_number, step_mask
from .start_at_mean import start_at_mean
from .trial import trial


class TransitionPart(Protocol):
    """What a :class:`StateSpaceModel` asks of its transition, a module."""

    latent_dim: int
    """D, the dimension of z_t."""

    def __call__(self, z: Tensor) -> dist.TorchDistribution:
        """z_{t−1} (…, D) to p(z_t | z_{t−1}): batch shape (…), event shape (D,)."""
        ...


class StateSpaceModel(PyroModule):
    """A state-space model p(x, z) = ∏ₜ p(x_t|z_t) p(z_t | z_{t−1}) of sequences.

    ::

        z₁  ~ initial                          or transition(z₀), z₀ a parameter
        z_t ~ transition(z_{t−1})
        x_t ~ likelihood(emission(z_t))

    With a :class:`GatedTransition` it is the deep Markov model of Krishnan, Shalit and Sontag
    (2017, arXiv 1609.09869). Any module from z_{t−1} to a distribution is a transition, such as a
    :class:`ConditionalNormal` of any network or a :class:`LinearTransition`; the likelihood is any
    of a step, such as :class:`Bernoulli`, or :class:`AutoregressiveLikelihood`, with which each
    note of a step depends on those before it.

    The model is a Pyro program ``model(x, lengths)`` of sequences x (N, T, *event of a step),
    padded at the end, and their lengths (N,), int64; without lengths all have T steps. All steps
    of z are one site ``"z"`` of shape (T, D), and those of x one observed site ``"x"``, both inside
    a plate named ``"data"`` at dimension −1. What stands in the padding, NaN included, has no
    effect; z is 0 there.

    Args:
        transition: a module from z_{t−1} to the distribution of z_t.
        emission: a network from z_t (…, D) to features (…, likelihood.num_features).
        likelihood: a module from features to the distribution of one step x_t.
        initial: a module that, when called, gives the distribution of z₁, such as
            ``StandardNormal(D)``. By default z₁ follows from a learned z₀, which starts at 0.

    Raises:
        ValueError: if transition, emission, likelihood and initial do not fit one another; when
            run, if the data are no sequences of the likelihood's steps, or a length is less than 1
            or beyond the padding.

    >>> from latente.models import Bernoulli, GatedTransition, mlp
    >>> model = StateSpaceModel(GatedTransition(3, 16), mlp(3, 16, out=88), Bernoulli((88,)))
    >>> x, lengths = torch.zeros(2, 7, 88), torch.tensor([7, 4])
    >>> trace = pyro.poutine.trace(model).get_trace(x, lengths)
    >>> trace.nodes["z"]["value"].shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self,
        transition: TransitionPart,
        emission: nn.Module,
        likelihood: Likelihood,
        *,
        initial: nn.Module | None = None,
    ):
        super().__init__()
        self.transition = transition
        self.emission = emission
        self.likelihood = likelihood
        self.initial = initial
        self.start = None if initial is not None else nn.Parameter(torch.zeros(self.latent_dim))
        self._check_parts()

    @property
    def latent_dim(self) -> int:
        """D, the dimension of z_t."""
        return self.transition.latent_dim

    def prior(self, num_steps: int, lengths: Tensor | None = None) -> MarkovChain:
        """p(z) of T steps: event shape (T, D), batch shape (N,), or () without lengths."""
        if self.initial is not None:
            initial = self.initial()
        else:
            assert self.start is not None
            initial = self.transition(self.start)
        return MarkovChain(
            initial, lambda z, _: self.transition(z), num_steps, step_mask(lengths, num_steps)
        )

    def emit(self, z: Tensor) -> dist.TorchDistribution:
        """z_t (…, D) to p(x_t|z_t): batch shape (…), event shape of a step."""
        return self.likelihood(self.emission(z))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the program on sequences (N, T, …) and lengths (N,); returns the observed x."""
        self._check_data(x, lengths)
        prior = self.prior(x.shape[1], lengths)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            if z.shape[-1] != self.latent_dim:
                raise ValueError(
                    f"the guide's z_t has {z.shape[-1]} dimensions, the model's {self.latent_dim}: "
                    "give transition and guide the same latent dimension"
                )
            return pyro.sample("x", Emissions(self.emit, z, prior.present), obs=x)

    def start_at_mean(self, x: Tensor, lengths: Tensor | None = None) -> Self:
        """Set the emission's last bias to fit the steps of data (N, T, …) without z.

        See :meth:`latente.models.VAE.start_at_mean`. Steps in the padding do not count.

        Returns:
            the model itself.

        Raises:
            ValueError: if the emission does not end in a bias for each feature, or the data are
                empty, not finite, or not of the likelihood's shape.
        """
        self._check_data(x, lengths)
        mask = step_mask(lengths, x.shape[1])
        steps = x.flatten(0, 1) if mask is None else x[mask]
        start_at_mean(self.emission, self.likelihood, steps)
        return self

    def _check_parts(self) -> None:
        """Refuse parts that do not fit, before any data are seen."""
        dim = self.latent_dim
        with trial(self):
            like = next(self.parameters(), torch.zeros(()))
            after = self.transition(like.new_zeros(dim)).event_shape
            first = after if self.initial is None else self.initial().event_shape
            if after != (dim,) or first != (dim,):
                name, shape = ("transition", after) if after != (dim,) else ("initial", first)
                raise ValueError(
                    f"the {name} gives z of shape {tuple(shape)}, and latent_dim of the transition "
                    f"is {dim}: each z_t is one vector, ({dim},)"
                )
            try:
                features = self.emission(like.new_zeros(dim))
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"the emission does not take z_t of {dim} dimensions: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        self.likelihood.check_features(features)

    def _check_data(self, x: Tensor, lengths: Tensor | None) -> None:
        event = tuple(self.likelihood.event_shape)
        if x.dim() != 2 + len(event) or x.shape[2:] != event or not x.shape[1]:
            shape = ", ".join(map(str, ("N", "T", *event)))
            raise ValueError(f"the model takes sequences of shape ({shape}), got {tuple(x.shape)}")
        check_same_number(x, lengths)
