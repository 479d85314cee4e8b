"""Amortized posterior of a state-space model: a Markov chain given what a network read of x."""

from typing import Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..models.contexts import takes_context
from ..models.markov_chain import MarkovChain
from ..models.padding import check_same_number, step_mask
from ..models.state_space_model import TransitionPart
from .amortized import Amortized
from .relative import Relative


class Reader(Protocol):
    """What a :class:`SequencePosterior` asks of its reader, a module."""

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Sequences (N, T, …), and which steps are there (N, T), to features h (N, T, H)."""
        ...


class SequencePosterior(PyroModule):
    """The posterior q(z|x) = ∏ₜ q(z_t | z_{t−1}, h_t(x)) of the latent variables of a sequence.

    A reader makes features h_t of x, and a posterior family makes the distribution of z_t of them.
    The family is an amortized guide of one z_t (:class:`DiagonalNormal`, :class:`FullRankNormal`,
    :class:`NormalizingFlow`), whose encoder decides what it depends on:

    - a :class:`latente.models.Combiner`, or another encoder that takes a context, sees z_{t−1}.
      With a backward reader that is the factorization of the exact posterior,
      q(z_t | z_{t−1}, x_t … x_T) (Krishnan, Shalit and Sontag 2017, arXiv 1609.09869);
    - an ``mlp`` sees h_t alone: the steps are independent given x (mean field). Its reader should
      read both ways.

    The guide is a Pyro program ``guide(x, lengths)``, as :class:`StateSpaceModel` is, with the site
    ``"z"`` of shape (T, D) inside a plate named ``"data"`` at dimension −1. z₀ is a parameter.

    With the model's transition it can start from p(z_t | z_{t−1}), as the exact posterior does ::

        p(z_t | z_{t−1}, x) ∝ p(z_t | z_{t−1}) p(x_t … x_T | z_t)

    :class:`PrecisionWeighted` makes the second factor of h_t, a normal density of z_t alone, so its
    encoder may be an ``mlp``; :class:`Residual` tells how the posterior differs from the prior.

    Args:
        reader: a module from x (N, T, …) and its mask to h (N, T, H), such as a
            :class:`latente.models.RecurrentReader`.
        family: the posterior of one z_t.
        transition: that of the model, for a family that starts from the prior.

    Raises:
        ValueError: if the family is not of vectors, or starts from a prior, and there is no
            transition, or the other way round; when run, if reader, family and data do not fit, or
            a length is less than 1 or beyond the padding.

    Source: Fraccaro et al. 2016 (arXiv 1605.07571), for posteriors that start from the prior.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import Combiner, RecurrentReader
    >>> guide = SequencePosterior(
    ...     RecurrentReader(88, 16), DiagonalNormal(Combiner(16, 3, out=6), latent_dim=3)
    ... )
    >>> guide(torch.zeros(2, 7, 88), torch.tensor([7, 4])).shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self, reader: Reader, family: Amortized, *, transition: TransitionPart | None = None
    ):
        super().__init__()
        if not isinstance(family, Amortized) or not isinstance(family.latent_dim, int):
            raise ValueError(
                "the family of a SequencePosterior is an amortized guide of a vector z_t, such as "
                f"DiagonalNormal(Combiner(…), latent_dim=3), got {type(family).__name__}"
            )
        if isinstance(family, Relative) != (transition is not None):
            name = type(family).__name__
            raise ValueError(
                f"{name} starts from the prior of z_t: give transition=model.transition"
                if transition is None
                else f"{name} does not start from the prior of z_t: leave transition= out, or take "
                "PrecisionWeighted or Residual"
            )
        self.reader = reader
        self.family = family
        self.transition = transition
        self.start = nn.Parameter(torch.zeros(family.latent_dim)) if self._sees_past else None

    @property
    def _sees_past(self) -> bool:
        return self.transition is not None or takes_context(self.family.encoder)

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> MarkovChain:
        """q(z|x) of sequences (N, T, …): batch shape (N,), event shape (T, D)."""
        if x.dim() < 2 or not x.shape[1]:
            raise ValueError(f"the guide takes sequences of shape (N, T, …), got {tuple(x.shape)}")
        check_same_number(x, lengths)
        mask = step_mask(lengths, x.shape[1])
        if mask is not None:  # NaN in the padding would reach the gradient of the reader
            x = torch.where(mask[(..., *[None] * (x.dim() - 2))], x, 0)
        read = self.reader(x, mask)
        if read.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"the reader gave features of shape {tuple(read.shape)} for data of shape "
                f"{tuple(x.shape)}: it must give (N, T, H)"
            )
        # Taken apart once: T indexings would each have a gradient of the size of all steps.
        each = read.unbind(1)

        def given(z: Tensor, steps: int | slice) -> dist.TorchDistribution:
            return self._step(read[:, steps] if isinstance(steps, slice) else each[steps], z)

        return MarkovChain(
            self._step(each[0], self.start),
            given,
            x.shape[1],
            mask,
            memoryless=not self._sees_past,
        )

    def _step(self, read: Tensor, z: Tensor | None) -> dist.TorchDistribution:
        """q(z_t | z_{t−1}, h_t) of h_t (…, H) and z_{t−1} (…, D)."""
        if not self._sees_past or z is None:
            return self.family.posterior_of_level(read, (), None)
        prior = None if self.transition is None else self.transition(z)
        return self.family.posterior_of_level(read, (z,), prior)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the program on sequences (N, T, …) and lengths (N,); returns z (…, N, T, D)."""
        posterior = self.posterior(x, lengths)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", posterior)
