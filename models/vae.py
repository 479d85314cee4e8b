"""The generative model of a variational autoencoder, p(x|z) p(z), as a Pyro program."""

from collections.abc import Iterator
from typing import Protocol, Self

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from .contexts import context_for
from .likelihoods.likelihood import Likelihood
from .padding import check_same_number, step_mask
from .start_at_mean import start_at_mean


class Prior(Protocol):
    """What a :class:`VAE` asks of its prior, a module."""

    def __call__(self, *context: Tensor) -> dist.TorchDistribution:
        """p(z), or p(z|c): batch shape () or (N,), event shape (latent_dim,)."""
        ...


class Decoder(Protocol):
    """What a :class:`VAE` asks of its decoder, a module."""

    def __call__(self, z: Tensor, *context: Tensor) -> Tensor:
        """z (…, latent_dim) to features (…, likelihood.num_features)."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters; :meth:`VAE.start_at_mean` sets the last one."""
        ...


class VAE(PyroModule):
    """The deep latent-variable model of Kingma and Welling (2014, arXiv 1312.6114).

    For each datum n, independently::

        zₙ ~ prior                          p(z)
        xₙ ~ likelihood(decoder(zₙ))        p(x|z)

    The model is a Pyro program ``vae(x)`` with the latent site ``"z"`` and the observed site
    ``"x"``, both inside a plate named ``"data"`` at dimension −1. It has no posterior: pair it with
    a guide.

    With a context c (such as a label, or a given part of the image) it is the conditional VAE
    ``vae(x, c)`` of Sohn, Lee and Yan (2015): z ~ prior(c) if the prior takes the context, such as
    :class:`ConditionalNormal`, and x ~ likelihood(decoder(z, c)) if the decoder does, such as a
    :class:`Conditional`. A part takes the context if its attribute ``conditional`` is true.

    Of sequences, with a :class:`RecurrentLikelihood`, it is ``vae(x, lengths)``, or
    ``vae(x, lengths, c)``: x (N, T, …), padded at the end, and lengths (N,), int64, which only the
    likelihood takes. All sequences have T steps if none are given.

    Args:
        prior: a module that, when called, gives the distribution of z, event shape (latent_dim,).
        decoder: a network from z (…, latent_dim) to features (…, likelihood.num_features).
        likelihood: a module from features to the distribution of x.

    Raises:
        ValueError: when run, if the data's event shape is not the likelihood's, if there is a
            context that no part takes, or if a part takes a context and there is none.

    >>> import torch
    >>> from latente.models import VAE, StandardNormal, Bernoulli, mlp
    >>> vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> trace = pyro.poutine.trace(vae).get_trace(torch.zeros(5, 8, 8))
    >>> trace.nodes["z"]["value"].shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: Prior, decoder: Decoder, likelihood: Likelihood):
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape) and contexts (N, …); returns the observed x."""
        self.likelihood.check_data(x)
        steps, context = self._steps(x, context)
        for_prior = context_for(self.prior, context)
        for_decoder = context_for(self.decoder, context)
        if context and not (for_prior or for_decoder):
            raise ValueError(
                "the data bring a context, but neither prior nor decoder takes one: give x alone, "
                "or use ConditionalNormal or Conditional"
            )
        prior = self.prior(*for_prior)
        if not prior.event_shape:
            raise ValueError(
                "the prior gave a distribution of event shape (), but z is one variable for each "
                "datum: end it with .to_event(1), or .to_event(3) for maps"
            )
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            given_z = self.likelihood(self.decoder(z, *for_decoder), *steps)
            return pyro.sample("x", given_z, obs=x)

    @property
    def takes_lengths(self) -> bool:
        """Whether the first context is the lengths (N,) of sequences x, for the likelihood."""
        return bool(getattr(self.likelihood, "takes_lengths", False))

    @property
    def end(self) -> int | None:
        """The token that ends each sequence, of a likelihood that has one."""
        return getattr(self.likelihood, "end", None)

    @property
    def num_tokens(self) -> int | None:
        """K, where x is a sequence of tokens 0 … K − 1 for the likelihood."""
        return getattr(self.likelihood, "num_tokens", None)

    def _steps(
        self, x: Tensor, context: tuple[Tensor, ...]
    ) -> tuple[tuple[int | Tensor, ...], tuple[Tensor, ...]]:
        """What the likelihood is told of the steps of sequences; and the other contexts."""
        if not self.takes_lengths:
            return (), context
        lengths = context[0] if context else None
        check_same_number(x, lengths)
        present = step_mask(lengths, x.shape[1])
        return (x.shape[1] if present is None else present,), context[1:]

    def start_at_mean(self, x: Tensor) -> Self:
        """Set the decoder's last bias to fit data x (N, *event_shape) without z, before training.

        Training then starts from the best constant instead of noise (as in Burda et al. 2016, arXiv
        1509.00519). Otherwise the fast first steps towards it may collapse the posterior; with a
        :class:`VampPrior` on images they do.

        Returns:
            the model itself.

        Raises:
            ValueError: if the decoder does not end in a bias for each feature, or the data are
                empty, not finite, or not of the likelihood's shape.
        """
        start_at_mean(self.decoder, self.likelihood, x)
        return self
