"""The variational autoencoder's generative half, p(x|z) p(z), as a Pyro model."""

from typing import Self

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from .contexts import told
from .likelihoods.likelihood import Likelihood


class VAE(PyroModule):
    """The deep latent-variable model of Kingma and Welling (2014, arXiv 1312.6114).

    For each datum n, independently::

        zₙ ~ prior                          p(z)
        xₙ ~ likelihood(decoder(zₙ))        p(x|z)

    The model is a Pyro program ``vae(x)`` with the latent site ``"z"`` and the observed
    site ``"x"``, both inside a plate named ``"data"`` at dimension −1. It says nothing of
    a posterior: pair it with a guide.

    With a context c (a label, say, or a part of the image that is given) it is the conditional VAE
    ``vae(x, c)`` of Sohn, Lee and Yan (2015): z ~ prior(c) where the prior takes the context, such
    as :class:`ConditionalNormal`, and x ~ likelihood(decoder(z, c)) where the decoder does, as one
    made with :class:`Conditional`. A part that takes it has the attribute ``conditional``.

    Args:
        prior: a module that, called, gives the distribution of z, event shape (latent_dim,).
        decoder: a network from z (…, latent_dim) to features (…, likelihood.num_features).
        likelihood: a module from features to the distribution of x.

    Raises:
        ValueError: when run, if the data's event shape is not the likelihood's, or there is a
            context that no part takes, or none where one does.

    >>> import torch
    >>> from latente.models import VAE, StandardNormal, Bernoulli, mlp
    >>> vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> trace = pyro.poutine.trace(vae).get_trace(torch.zeros(5, 8, 8))
    >>> trace.nodes["z"]["value"].shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, likelihood: Likelihood):
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape) and contexts (N, …); returns the observed x."""
        self.likelihood.check_data(x)
        of_prior, of_decoder = told(self.prior, context), told(self.decoder, context)
        if context and not (of_prior or of_decoder):
            raise ValueError(
                "the data bring a context, but neither prior nor decoder takes one: give x alone, "
                "or use ConditionalNormal or Conditional"
            )
        prior = self.prior(*of_prior)
        if len(prior.event_shape) != 1:
            raise ValueError(
                f"the prior gave a distribution of event shape {tuple(prior.event_shape)}, where z "
                "is a vector: end it with .to_event(1)"
            )
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            return pyro.sample("x", self.likelihood(self.decoder(z, *of_decoder)), obs=x)

    def start_at_mean(self, x: Tensor) -> Self:
        """Let the decoder's last bias start at what fits data x (N, *event_shape) without z.

        Training then begins from the best constant rather than from noise (as in Burda et al. 2016,
        arXiv 1509.00519), and a posterior is not drawn to nothing by the rush there: a
        :class:`VampPrior` on images needs it.

        Raises:
            ValueError: if the decoder does not end in a bias for each feature, or the data are not
                finite, or not of the likelihood's shape.
        """
        self.likelihood.check_data(x)
        if len(x) == 0 or not bool(torch.as_tensor(x).isfinite().all()):
            raise ValueError("a start at the mean takes data that are finite, and some")
        # Only what nothing follows is sure to be added to the features as it is.
        name, bias = ([*self.decoder.named_parameters()] or [("", x)])[-1]
        if name.split(".")[-1] != "bias" or bias.shape != (self.likelihood.num_features,):
            raise ValueError(
                "the decoder's last parameter is no bias of one number for each of the "
                f"{self.likelihood.num_features} features, that could start at the mean of the data"
            )
        with torch.no_grad():
            bias.copy_(self.likelihood.constant_features(x.to(bias)))
        return self
