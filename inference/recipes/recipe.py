"""A recipe: a named set of defaults for the axes."""

from dataclasses import dataclass

from ..data.binarization import Binarization


@dataclass(frozen=True)
class Recipe:
    """A named composition from a paper: the text of a choice on each axis.

    Each is the default of the option of the same name of ``latente train``, and can be overridden.
    """

    name: str
    summary: str
    paper: str
    likelihood: str | None = "bernoulli"
    """``None``: the one that suits the data; see :func:`likelihood_of`."""
    prior: str = "standard"
    posterior: str = "diagonal"
    network: str = "mlp"
    objective: str = "elbo"
    beta: str | None = None
    """Weight of the KL; ``None``: the objective's default."""
    free_bits: float = 0.0
    """Nats of each latent dimension's KL that are free."""
    given: str = "none"
    binarize: Binarization | None = None
    """How the data are binarized; ``None``: the likelihood's default."""
    levels: str = "one"
