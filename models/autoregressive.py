"""A fully observed autoregressive model: each element given the elements before it."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from .likelihoods.autoregressive import AutoregressiveDistribution, autoregressive_network
from .likelihoods.likelihood import Likelihood
from .networks.autoregressive_network import AutoregressiveNetwork
from .networks.masked_mlp import MaskedMLP


class Autoregressive(PyroModule):
    """The fully observed model p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁), fitted by maximum likelihood.

    It has no latent variable, so its ELBO is log p(x), and it is fitted with an empty guide:
    ``fit(model, lambda x: None, data)``. A network gives all conditionals in one pass: by default
    a :class:`MaskedMLP`, as in MADE (Germain et al. 2015, arXiv 1502.03509), which takes elements
    in the order of the flattened datum; or another one, such as a :class:`PixelCNN`.

    Args:
        likelihood: the distribution of each element given features, such as ``Bernoulli((8, 8))``.
        hidden: widths of the hidden layers of a :class:`MaskedMLP`; by default ``(200,)``.
        network: another network in its place, without features of z.

    Raises:
        ValueError: if a width is less than 1, a datum has only one element, widths and a network
            are given, the network is not for such data or takes features of z, or, when run, the
            data's shape is not the likelihood's.

    >>> from latente.models import Bernoulli
    >>> import torch
    >>> model = Autoregressive(Bernoulli((2, 2)), hidden=(16,))
    >>> model.log_prob(torch.ones(5, 2, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        likelihood: Likelihood,
        hidden: tuple[int, ...] | None = None,
        *,
        network: AutoregressiveNetwork | None = None,
    ):
        super().__init__()
        self.network = autoregressive_network(likelihood, hidden, network)
        if self.network.num_latent_features and not isinstance(self.network, MaskedMLP):
            raise ValueError(
                f"the {type(self.network).__name__} takes features of z, and this model has no z: "
                "build it with latent_features=0"
            )
        self.likelihood = likelihood

    def distribution(self) -> AutoregressiveDistribution:
        """p(x), batch shape (), event shape that of the data."""
        return AutoregressiveDistribution(self.network, self.likelihood)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of data (N, *event_shape), exact, in nats: (N,)."""
        return self.distribution().log_prob(x)

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns the observed x."""
        self.likelihood.check_data(x)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("x", self.distribution(), obs=x)
