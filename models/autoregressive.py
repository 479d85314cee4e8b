"""A fully observed autoregressive model: each element given the elements before it."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from .likelihoods.autoregressive import AutoregressiveDistribution, masked_network
from .likelihoods.likelihood import Likelihood


class Autoregressive(PyroModule):
    """The fully observed model p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁), fitted by maximum likelihood.

    It has no latent variable, so its ELBO is log p(x), and it is fitted with an empty guide:
    ``fit(model, lambda x: None, data)``. Elements are taken in the order of the flattened datum. A
    masked network, as in MADE (Germain et al. 2015, arXiv 1502.03509), gives all conditionals in
    one pass: the features of each element are a linear function of all elements before it, plus
    the output of hidden units that see some of these.

    Args:
        likelihood: the distribution of each element given features, such as ``Bernoulli((8, 8))``.
        hidden: widths of the hidden layers.

    Raises:
        ValueError: if a width is less than 1, a datum has only one element, or, when run, the
            data's shape is not the likelihood's.

    >>> from latente.models import Bernoulli
    >>> import torch
    >>> model = Autoregressive(Bernoulli((2, 2)), hidden=(16,))
    >>> model.log_prob(torch.ones(5, 2, 2)).shape
    torch.Size([5])
    """

    def __init__(self, likelihood: Likelihood, hidden: tuple[int, ...] = (200,)):
        super().__init__()
        self.network = masked_network(likelihood, hidden)
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
