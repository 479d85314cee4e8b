"""Vector quantization: the guide of codes in a learned codebook."""

from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ..models.codebook import Codebook
from .on_codes import OnCodes


class VectorQuantized(OnCodes):
    """Vector quantization (VQ): the encoder's features, put on the nearest vectors of a codebook.

    The posterior is a mass of 1 on the code z(x), so log q(z|x) = 0, and with the prior
    :class:`latente.models.UniformCodes` of the same codebook ::

        ELBO = log p(x|z(x)) − M log K ≤ log p(x)

    a true bound, whatever moves encoder and codebook. Gradients pass through as if features were
    not replaced. What keeps the features near the vectors is no part of the bound: it is in
    ``pyro.deterministic`` sites, one number for each datum, sums over d numbers and M positions,
    which ``AuxiliaryLoss`` weighs (sg: without gradient)::

        commitment = ‖features − sg(vectors)‖²
        codebook   = ‖sg(features) − vectors‖²       where the vectors are parameters

    They stand beside log p(x|z) in nats per datum, so their balance does not depend on the size of
    a batch. The paper has weights 0.25 and 1: ``AuxiliaryLoss(Beta_ELBO(), {"commitment": 0.25})``.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, d, *positions), or flattened,
            (N, d · M).
        codebook: the codebook, the same object as that of the prior.

    Raises:
        ValueError: when run, if the encoder does not give d · M features.

    Source: van den Oord, Vinyals and Kavukcuoglu 2017 (arXiv 1711.00937).

    >>> import torch
    >>> from latente.models import Codebook, mlp
    >>> guide = VectorQuantized(mlp(64, 16, out=12), Codebook(16, dim=3, positions=4))
    >>> guide(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 3, 4])
    >>> guide.indices(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 4])
    """

    def __init__(self, encoder: nn.Module, codebook: Codebook):
        super().__init__(encoder, codebook)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z (…, N, d, *positions)."""
        features = self.features(x, *context)
        value = self.codebook.quantize(features)
        event_dim = len(self.event_shape)

        def distance(a: Tensor, b: Tensor) -> Tensor:
            return (a - b).square().flatten(-event_dim).sum(-1)

        terms = {"commitment": distance(features, value.detach())}
        if self.codebook.decay is None:
            vectors = self.codebook.codes(self.codebook.indices(value))
            terms["codebook"] = distance(features.detach(), vectors)
        with pyro.plate("data", len(x), dim=-1):
            for name, term in terms.items():
                # pyro.deterministic, marked besides as of the guide alone, of which Pyro warns.
                infer: Any = {"_deterministic": True, "is_auxiliary": True}
                pyro.sample(name, dist.Delta(term).mask(False), obs=term, infer=infer)
            return pyro.sample("z", dist.Delta(value, event_dim=event_dim))
