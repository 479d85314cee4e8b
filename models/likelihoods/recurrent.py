"""Recurrent likelihood of a sequence: each step given the steps before it, and z."""

import math
from collections.abc import Callable
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.types import _size

from ..networks.recurrent_decoder import RecurrentDecoder
from ..padding import fill_padding, steps_until_end
from .categorical import Categorical
from .likelihood import Likelihood

Steps = int | Tensor
"""T, the number of steps, all of which are there; or which of them are, (…, T) of bool."""

VALUES_AT_ONCE = 2**25
"""Numbers in memory while sequences are scored without gradients: 128 MB of float32."""


class RecurrentDistribution(dist.TorchDistribution):
    """p(x₁ … x_T | z) = ∏ₜ p(x_t | x₁ … x_{t−1}, z): scored in one pass, drawn step by step.

    Where a token ends a sequence, what follows it counts 0, and those that end at any step, or do
    not end within T steps, have a probability of 1 together.
    """

    arg_constraints: ClassVar = {}  # pyright: ignore

    def __init__(
        self,
        source: "RecurrentLikelihood",
        latent: Tensor,
        steps: Steps,
        batch_shape: _size | None = None,
    ):
        self.source = source
        self.latent = latent  # features of z, (*batch_shape, num_features)
        self.present = None if isinstance(steps, int) else steps
        self.num_steps = steps if isinstance(steps, int) else steps.shape[-1]
        if batch_shape is None:
            rows = () if self.present is None else self.present.shape[:-1]
            batch_shape = torch.broadcast_shapes(latent.shape[:-1], rows)
        shape = Size(batch_shape)  # pyright: ignore
        super().__init__(shape, Size((self.num_steps, *source.event_shape)))

    @property
    def base_dist(self) -> dist.TorchDistribution:
        """The distribution of a step at features of 0: its kind, and its support."""
        step = self.source.likelihood
        return step(self.latent.new_zeros(*self.latent.shape[:-1], step.num_features))

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        """The support of the likelihood, at each step that is there."""
        return _SequenceSupport(self.base_dist.support, self)  # pyright: ignore

    def expand(self, batch_shape: _size, _instance: object = None) -> "RecurrentDistribution":
        """Expand the batch shape."""
        steps = self.num_steps if self.present is None else self.present
        return RecurrentDistribution(self.source, self.latent, steps, batch_shape)

    def present_in(self, value: Tensor) -> Tensor | None:
        """Which steps of values (…, T, *event of a step) count, (…, T); ``None`` if all do."""
        end = self.source.end
        return self.present if end is None else steps_until_end(value, end)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of values (…, T, *event of a step), in nats."""
        present, step_dim = self.present_in(value), self.event_dim - 1
        value = fill_padding(value, present, step_dim)
        rows = value.shape[: value.dim() - self.event_dim]
        batch = torch.broadcast_shapes(rows, self.latent.shape[:-1], self.batch_shape)
        value = value.expand(*batch, *self.event_shape).reshape(-1, *self.event_shape)
        latent = self.latent.expand(*batch, -1).reshape(-1, self.latent.shape[-1])
        size = len(value)
        if not torch.is_grad_enabled():
            size = max(1, VALUES_AT_ONCE // (self.num_steps * self.source.network.values_per_step))
        log_px = torch.cat(
            [
                self.source.likelihood(self.source.network.read(x, z)).log_prob(x)
                for x, z in zip(value.split(size), latent.split(size), strict=True)
            ]
        ).reshape(*batch, self.num_steps)
        # What does not count reaches no gradient: it is a copy of the first step, see above.
        return (log_px if present is None else torch.where(present, log_px, 0.0)).sum(-1)

    def sample(self, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step, up to the end."""
        return self.draw(sample_shape=sample_shape)

    def draw(self, temperature: float = 1.0, *, sample_shape: _size = Size()) -> Tensor:  # noqa: B008
        """Draw step by step, with the logits of each step divided by a temperature.

        Args:
            temperature: 1 draws from p(x|z); 0 takes the most probable token at each step (greedy
                decoding). Others than 1 are for tokens.
            sample_shape: of the draws.

        Raises:
            ValueError: if the temperature is negative, or is not 1 and steps are no tokens.
        """
        if temperature != 1:
            self.source.check_tokens("a temperature")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be a number of at least 0, got {temperature}")
        network, end = self.source.network, self.source.end
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            latent = self.latent.expand(*shape, -1).reshape(-1, self.latent.shape[-1])
            state, steps = network.first_state(latent), []
            ended = torch.zeros(len(latent), dtype=torch.bool, device=latent.device)
            x = None
            for _ in range(self.num_steps):
                if end is not None and bool(ended.all()):
                    steps.append(torch.full_like(steps[-1], end))
                    continue
                features, state = network.advance(x, latent, state)
                if temperature == 0:
                    x = features.argmax(-1)
                else:
                    x = self.source.likelihood(features / temperature).sample()
                if end is not None:
                    x = x.masked_fill(ended, end)
                    ended = ended | (x == end)
                steps.append(x)
            value = torch.stack(steps, 1).reshape(*shape, *self.event_shape)
            if self.present is None or end is not None:
                return value
            return value.masked_fill(~self.present[(..., *[None] * (self.event_dim - 1))], 0)


class _SequenceSupport(constraints.independent):
    """A support that asks nothing of steps that are not there."""

    def __init__(self, base: constraints.Constraint, distribution: RecurrentDistribution):
        super().__init__(base, 1)
        self._distribution, self._step_dim = distribution, base.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Which sequences lie in the support."""
        present = self._distribution.present_in(value)
        return super().check(fill_padding(value, present, self._step_dim))


class RecurrentLikelihood(Likelihood):
    """The likelihood p(x|z) = ∏ₜ p(x_t | x₁ … x_{t−1}, z) of a sequence, by a recurrent network.

    ::

        s₁ = W f,   s_{t+1} = rnn(s_t, [embed(x_{t−1}), f]),   x_t ~ likelihood(V s_{t+1} + b)

    where f are the decoder's features of z, which the network sees at every step. Of tokens it is
    the decoder of Bowman et al. (2016, arXiv 1511.06349), of frames or other steps it works
    likewise. All steps of x are scored in one pass, and drawn one by one. In a :class:`VAE`, whose
    z is one for each sequence, the model is called ``vae(x, lengths)`` on padded sequences
    (N, T, *event of a step), or ``vae(x)`` if all have T steps.

    Such a network models text well without z, so the posterior easily collapses: see the warm-up
    and the free bits of ``Beta_ELBO``, and ``word_dropout``.

    Args:
        likelihood: the distribution of one step, such as ``Categorical((), K)`` for K tokens.
        hidden: width of the state.
        latent_features: F, the number of features of z.
        cell: ``nn.GRU``, ``nn.LSTM`` or ``nn.RNN``.
        num_layers: number of layers.
        embed: what maps a step to a vector first; by default an ``nn.Embedding`` of tokens into
            ``hidden`` numbers, and nothing for other steps.
        word_dropout: probability with which a step is hidden from the network, as zeros, in
            training mode; each step is still scored. Evaluation hides none.
        end: the token that ends a sequence, which is a part of it: 0 for texts of ``load_data``.
            Then x itself says where each sequence ends, also when it is drawn, and lengths have to
            agree. ``None``: p(x|z) is given the lengths.

    Raises:
        ValueError: if a size is less than 1, the probability not in [0, 1), or the end no token;
            when called, if the decoder does not give F features.

    >>> likelihood = RecurrentLikelihood(Categorical((), 5), 16, latent_features=3, end=0)
    >>> x = likelihood(torch.zeros(2, 3), 4)
    >>> x.event_shape, x.log_prob(torch.tensor([[4, 2, 1, 0], [3, 0, 0, 0]])).shape
    (torch.Size([4]), torch.Size([2]))
    """

    takes_lengths = True
    """It takes which steps are there after the features; see :class:`latente.models.VAE`."""

    def __init__(
        self,
        likelihood: Likelihood,
        hidden: int,
        *,
        latent_features: int,
        cell: Callable[..., nn.RNNBase] = nn.GRU,
        num_layers: int = 1,
        embed: nn.Module | None = None,
        word_dropout: float = 0.0,
        end: int | None = None,
    ):
        super().__init__(tuple(likelihood.event_shape))
        self.likelihood, self.num_features, self.end = likelihood, latent_features, end
        if end is not None:
            self.check_tokens("an end")
            if not 0 <= end < likelihood.num_features:
                raise ValueError(f"end={end} is none of the {likelihood.num_features} tokens")
        if embed is None and _are_tokens(likelihood) and hidden > 0:
            embed = nn.Embedding(likelihood.num_features, hidden)
        self.network = RecurrentDecoder(
            tuple(self.event_shape),
            hidden,
            latent_features,
            likelihood.num_features,
            cell=cell,
            num_layers=num_layers,
            embed=embed,
            word_dropout=word_dropout,
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, features: Tensor, steps: Steps
    ) -> RecurrentDistribution:
        """Features (…, F), and the number of steps or which are there, to p(x|z)."""
        self.check_features(features)
        return RecurrentDistribution(self, features, steps)

    def reset_parameters(self) -> None:
        """Draw all weights anew, as for a decoder that is trained again (Li et al. 2019)."""
        self.network.reset_parameters()

    def check_features(self, features: Tensor) -> None:
        """Refuse features that do not have the shape (…, F)."""
        if features.dim() == 0 or features.shape[-1] != self.num_features:
            raise ValueError(
                f"the RecurrentLikelihood takes latent_features={self.num_features}, but the "
                f"decoder gave a tensor of shape {tuple(features.shape)}"
            )

    def check_data(self, x: Tensor) -> None:
        """Refuse data that do not have the shape (N, T, *event of a step)."""
        event = tuple(self.event_shape)
        if x.dim() != 2 + len(event) or x.shape[2:] != event or not x.shape[1]:
            shape = ", ".join(map(str, ("N", "T", *event)))
            raise ValueError(f"the model takes sequences of shape ({shape}), got {tuple(x.shape)}")

    def check_tokens(self, what: str) -> None:
        """Refuse steps that are no tokens, for what is of tokens alone."""
        if not _are_tokens(self.likelihood):
            raise ValueError(
                f"{what} is for sequences of tokens, Categorical((), K), not of {self.likelihood}"
            )

    def constant_features(self, x: Tensor) -> Tensor:
        """There are none: the features of z are not added to those of a step."""
        raise ValueError(
            "a recurrent network does not add the features of z to its own, so the decoder cannot "
            "start at the mean of the data: leave start_at_mean out"
        )

    def distribution(self, *blocks: Tensor) -> dist.TorchDistribution:
        """The distributions of steps at these features, without the network."""
        return self.likelihood.distribution(*blocks)

    @property
    def num_tokens(self) -> int | None:
        """K, of tokens 0 … K − 1; ``None`` of other steps."""
        return self.likelihood.num_features if _are_tokens(self.likelihood) else None

    def extra_repr(self) -> str:
        """The constructor's arguments except the parts."""
        dropout = self.network.word_dropout
        return f"latent_features={self.num_features}, word_dropout={dropout}, end={self.end}"


def _are_tokens(likelihood: Likelihood) -> bool:
    return isinstance(likelihood, Categorical) and not likelihood.event_shape
