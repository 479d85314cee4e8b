"""A recipe: parts, settings and the paper they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyro.infer import ELBO

from ...guides import Amortized
from ...models import VAE, Bernoulli, Likelihood
from ..data.binarization import Binarization
from .networks import Networks, dense
from .posteriors import find_posterior
from .priors import Prior, standard_normal
from .sizes import Sizes


@dataclass(frozen=True)
class Recipe:
    """A model, a guide and an objective to be built for some data, with the settings to fit by."""

    name: str
    summary: str
    paper: str
    likelihood: Callable[[Sizes], Likelihood] = lambda sizes: Bernoulli(sizes.event_shape)
    """From the sizes of the data to the likelihood."""
    binarize: Binarization = "dynamic"
    """How its data are binarized."""
    networks: Networks = dense
    prior: Prior = standard_normal
    objective: Callable[[], ELBO] | None = None
    """Makes the objective; what suits the pair best, if there is none."""
    posterior: str = "diagonal"
    """The posterior it is fitted with, unless told otherwise: a name in
    :data:`POSTERIOR_FAMILIES`."""
    given: Literal["labels", "quadrant"] | None = None
    """What the model is given, where it is conditional."""
    coded: bool = False
    """Whether the data are codes of classes, of which the likelihood wants the number."""

    def build(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int,
        hidden: tuple[int, ...],
        posterior: str | None = None,
        *,
        context: int = 0,
        num_classes: int = 0,
    ) -> tuple[VAE, Amortized]:
        """The pair for data of this shape, with the same hidden widths in both networks.

        Args:
            posterior: a name in :data:`POSTERIOR_FAMILIES`; the recipe's own if not given.
            context: how many classes, or elements, are given to a conditional model.
            num_classes: how many values the data take, where they are codes of classes.
        """
        sizes = Sizes(event_shape, latent_dim, hidden, context, num_classes)
        likelihood = self.likelihood(sizes)
        encoder, decoder = self.networks(sizes, likelihood)
        guide = find_posterior(posterior or self.posterior).build(encoder, latent_dim)
        return VAE(self.prior(sizes, guide), decoder, likelihood), guide
