"""Gumbel–softmax: the guide of relaxed indicators of codes."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..models.priors.uniform_concrete import check_temperature, indicator_shape
from .amortized import Amortized

MAX_LOGIT = 10.0
"""Logits are bounded by a tanh, as far apart as e²⁰ times the probability: see the temperature."""


class GumbelSoftmax(Amortized):
    """The Gumbel–softmax, or Concrete, posterior: relaxed indicators of K codes, at M positions.

    ::

        z = softmax((a + g) / T),   a = 10 tanh(features / 10),   g Gumbel numbers

    z has a density on the simplex, and a reparameterized gradient. With the prior
    :class:`latente.models.UniformConcrete` there are two models, and the bound is one of the model
    that is written down:

    - A decoder that takes z as it is: the ELBO is a bound of log p(x) of *that* model, whose latent
      variable is continuous. It is none of a model of codes, log Σ_c p(c) p(x|c): a z between two
      codes may explain x better than any code does.
    - A decoder that begins with :class:`latente.models.StraightThrough` sees the code c of z alone.
      The largest number of z is at c with the probability p(c), so log p(x) = log Σ_c p(c) p(x|c),
      and the ELBO, whose KL is that of z, is a bound of it: looser than the one with the KL of the
      codes, which it never beats. The gradient is then biased, the bound is not.

    The mixture of both in the literature, a decoder of relaxed z with the KL of categorical
    distributions, is a bound of neither, and is not built here. Pyro's
    ``RelaxedOneHotCategoricalStraightThrough`` draws hard values and keeps the relaxed ones in an
    attribute of the tensor, which is lost where draws are reshaped: hence the module before the
    decoder.

    Args:
        encoder: a network from x (N, *event_shape) to features (N, *positions, K), or flattened.
        num_codes: K.
        positions: M, or their shape, (H, W); () for one.
        temperature: T; 2/3 in the paper. At least 0.45, for float32.

    Raises:
        ValueError: if a size is less than 1, K less than 2, or T less than 0.45; when run, if the
            encoder does not give M · K features.

    Source: Maddison, Mnih and Teh 2017 (arXiv 1611.00712); Jang, Gu and Poole 2017 (arXiv
    1611.01144).

    >>> from latente.models import mlp
    >>> guide = GumbelSoftmax(mlp(64, 16, out=4 * 16), num_codes=16, positions=4)
    >>> guide(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 4, 16])
    """

    layout = "the logits of the codes"

    scale: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        num_codes: int,
        positions: int | tuple[int, ...] = (),
        temperature: float = 2 / 3,
    ):
        shape = indicator_shape(num_codes, positions)
        super().__init__(encoder, tuple(shape), shape[0])
        self.temperature = check_temperature(temperature)
        self.register_buffer("scale", torch.tensor(float(temperature)), persistent=False)

    def arrange(self, features: Tensor) -> Tensor:
        """Unflatten features (…, M · K) to (…, *positions, K)."""
        shape = self.event_shape
        laid_out = features.dim() > len(shape) and features.shape[-len(shape) :] == shape
        is_flat = not laid_out and features.shape[-1] == torch.Size(shape).numel()
        return features.unflatten(-1, shape) if is_flat else features

    def check_width(self, features: Tensor) -> None:
        """Refuse features that are not (…, *positions, K)."""
        shape = torch.Size(self.event_shape)
        if features.shape[-len(shape) :] != shape:
            raise ValueError(
                f"GumbelSoftmax takes {shape.numel()} encoder features, {shape[-1]} logits at "
                f"{shape[:-1].numel()} positions, but the encoder gave a tensor of shape "
                f"{tuple(features.shape)}: give it out={shape.numel()}"
            )

    def family(self, features: Tensor) -> dist.TorchDistribution:
        """Features (…, *positions, K) to q(z|x): batch shape (…), event shape (*positions, K)."""
        logits = MAX_LOGIT * (features / MAX_LOGIT).tanh()
        relaxed = dist.RelaxedOneHotCategorical(self.scale, logits=logits)
        return relaxed.to_event(len(self.event_shape) - 1)

    def extra_repr(self) -> str:
        """The constructor's arguments except the encoder."""
        *positions, num_codes = self.event_shape
        return f"{num_codes}, positions={tuple(positions)}, temperature={self.temperature:.3g}"
