"""The variational autoencoder's generative half, p(x|z) p(z), as a Pyro model."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from .likelihoods import Likelihood


class VAE(PyroModule):
    """The deep latent-variable model of Kingma and Welling (2014, arXiv 1312.6114).

    For each datum n, independently::

        zₙ ~ prior                          p(z)
        xₙ ~ likelihood(decoder(zₙ))        p(x|z)

    The model is a Pyro program ``vae(x)`` with the latent site ``"z"`` and the observed
    site ``"x"``, both inside a plate named ``"data"`` at dimension −1. It says nothing of
    a posterior: pair it with a guide.

    Args:
        prior: a module that, called, gives the distribution of z, event shape (latent_dim,).
        decoder: a network from z (…, latent_dim) to features (…, likelihood.num_features).
        likelihood: a module from features to the distribution of x.

    Raises:
        ValueError: when run, if the data's event shape is not the likelihood's.

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

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns the observed x."""
        self.likelihood.check_data(x)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
