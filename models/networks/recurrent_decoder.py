"""Recurrent decoder: features of each step of a sequence, made of the steps before it and of z."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...]
"""The state of a recurrent network, each tensor (layers, rows, hidden)."""


class RecurrentDecoder(nn.Module):
    """A recurrent network over the steps of a sequence that sees features f of z at each of them.

    ::

        s₁ = W f,   s_{t+1} = rnn(s_t, [embed(x_{t−1}), f]),   features_t = V s_{t+1} + b

    :class:`latente.models.RecurrentLikelihood` says what the arguments are.

    Args:
        step_shape: shape of one step x_t.
        hidden: width of the state.
        latent_features: F, the length of f.
        out: number of features of a step.
        cell: ``nn.GRU``, ``nn.LSTM`` or ``nn.RNN``.
        num_layers: number of layers.
        embed: what maps a step to a vector first; ``None``: its values as they are.
        word_dropout: probability with which a step is hidden, in training mode.

    >>> network = RecurrentDecoder((), 16, 3, 5, embed=nn.Embedding(5, 8))
    >>> network.read(torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 3)).shape
    torch.Size([2, 7, 5])
    """

    def __init__(
        self,
        step_shape: tuple[int, ...],
        hidden: int,
        latent_features: int,
        out: int,
        *,
        cell: Callable[..., nn.RNNBase] = nn.GRU,
        num_layers: int = 1,
        embed: nn.Module | None = None,
        word_dropout: float = 0.0,
    ):
        super().__init__()
        if min(hidden, latent_features, num_layers) < 1:
            raise ValueError(
                f"every size of a recurrent network must be at least 1, got hidden={hidden}, "
                f"latent_features={latent_features} and num_layers={num_layers}"
            )
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout must be at least 0 and below 1, got {word_dropout}")
        self.step_shape, self.word_dropout, self.embed = tuple(step_shape), word_dropout, embed
        with torch.no_grad():
            width = self._embedded(torch.zeros(1, 1, *step_shape)).numel()
        self.start = nn.Parameter(torch.zeros(width))  # what the first step sees as the one before
        self.initial = nn.Linear(latent_features, num_layers * hidden)
        self.rnn = cell(width + latent_features, hidden, num_layers, batch_first=True)
        self.to_features = nn.Linear(hidden, out)

    @property
    def values_per_step(self) -> int:
        """About how many numbers it holds in memory for each step of a sequence."""
        gates = 4 * self.rnn.hidden_size * self.rnn.num_layers
        return 2 * self.rnn.input_size + 2 * gates + 3 * self.to_features.out_features

    def read(self, x: Tensor, latent: Tensor) -> Tensor:
        """Features of all steps of x (R, T, …), each made of those before it, (R, T, out)."""
        told = self._embedded(x[:, :-1])
        if self.training and self.word_dropout:
            told = told * (torch.rand_like(told[..., :1]) >= self.word_dropout)
        told = torch.cat([self.start.expand(len(x), 1, -1), told], 1)
        every = latent[:, None].expand(-1, x.shape[1], -1)
        read = self.rnn(torch.cat([told, every], -1), self.first_state(latent))[0]
        return self.to_features(read)

    def first_state(self, latent: Tensor) -> State:
        """The state before the first step, of features (R, F) of z."""
        layers = self.initial(latent).view(len(latent), -1, self.rnn.hidden_size)
        layers = layers.transpose(0, 1).contiguous()
        return (layers, torch.zeros_like(layers)) if isinstance(self.rnn, nn.LSTM) else layers

    def advance(self, x: Tensor | None, latent: Tensor, state: State) -> tuple[Tensor, State]:
        """The features of one step, and the state after it.

        Args:
            x: the step before, (R, *step_shape); ``None`` at the first.
            latent: features of z, (R, F).
            state: the state after the step before.
        """
        told = self.start.expand(len(latent), 1, -1) if x is None else self._embedded(x[:, None])
        read, state = self.rnn(torch.cat([told, latent[:, None]], -1), state)
        return self.to_features(read[:, 0]), state

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.zeros_(self.start)
        for part in self.modules():
            reset = getattr(part, "reset_parameters", None)
            if part is not self and callable(reset):
                reset()

    def _embedded(self, x: Tensor) -> Tensor:
        """Steps (R, T, *step_shape) as vectors (R, T, E)."""
        if self.embed is None:
            return x.reshape(*x.shape[:2], math.prod(self.step_shape))
        return self.embed(x.long() if isinstance(self.embed, nn.Embedding) else x)

    def extra_repr(self) -> str:
        """The share of hidden steps."""
        return f"word_dropout={self.word_dropout}"
