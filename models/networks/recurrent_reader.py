"""Recurrent networks that read padded sequences, forwards, backwards or both ways."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..padding import reverse_steps

Direction = Literal["forward", "backward", "both"]
"""Which steps are read for step t: 1 … t, t … T, or both."""


class RecurrentReader(nn.Module):
    """A recurrent network from a sequence x (N, T, …) to features h (N, T, H) of its steps.

    ::

        backward:   h_t = rnn(h_{t+1}, x_t), a function of x_t … x_T
        forward:    h_t = rnn(h_{t−1}, x_t), a function of x₁ … x_t

    Each row is read within its length, so that the padding reaches no state of a step that is
    there.

    Args:
        step_shape: shape of one step x_t, or its number of values.
        hidden: width of a state.
        direction: ``"backward"``, which is what q(z_t | z_{t−1}, x_t … x_T) needs, ``"forward"``,
            or ``"both"``, which gives H = 2 · hidden.
        cell: ``nn.GRU``, ``nn.LSTM`` or ``nn.RNN``.
        num_layers: number of layers of each direction.
        embed: what maps a step to a vector first, such as ``OneHot(C)`` for classes, an
            ``nn.Embedding`` or an ``mlp``.

    Raises:
        ValueError: if a size is less than 1, or the direction is none of these; when called, if
            the steps of x do not have the shape.

    >>> reader = RecurrentReader(88, 16)
    >>> reader(torch.zeros(2, 7, 88)).shape, reader.num_features
    (torch.Size([2, 7, 16]), 16)
    """

    def __init__(
        self,
        step_shape: int | tuple[int, ...],
        hidden: int,
        *,
        direction: Direction = "backward",
        cell: Callable[..., nn.RNNBase] = nn.GRU,
        num_layers: int = 1,
        embed: nn.Module | None = None,
    ):
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(f"direction is 'forward', 'backward' or 'both', got {direction!r}")
        self.step_shape = (step_shape,) if isinstance(step_shape, int) else tuple(step_shape)
        if min(*self.step_shape, hidden, num_layers, 1) < 1:
            raise ValueError(
                f"every size of a RecurrentReader must be at least 1, got {step_shape}, {hidden} "
                f"and num_layers={num_layers}"
            )
        self.embed = embed
        width = math.prod(self.step_shape) if embed is None else self._embedded_width(embed)
        self.direction: Direction = direction
        self.directions = ("forward", "backward") if direction == "both" else (direction,)
        self.networks = nn.ModuleList(
            [cell(width, hidden, num_layers, batch_first=True) for _ in self.directions]
        )
        self.num_features = hidden * len(self.directions)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sequences (N, T, *step_shape), and which steps are there, (N, T), to (N, T, H)."""
        if x.shape[2:] != self.step_shape and not (self.step_shape == (1,) and x.dim() == 2):
            raise ValueError(
                f"the RecurrentReader reads steps of shape {self.step_shape}, and the data "
                f"{tuple(x.shape)} have steps of shape {tuple(x.shape[2:])}"
            )
        if self.embed is not None:
            x = self.embed(x)
        x = x.reshape(*x.shape[:2], -1)
        read = []
        for direction, network in zip(self.directions, self.networks, strict=True):
            if direction == "forward":
                read.append(network(x)[0])
            else:
                read.append(reverse_steps(network(reverse_steps(x, mask))[0], mask))
        return torch.cat(read, -1)

    def _embedded_width(self, embed: nn.Module) -> int:
        """The number of values that an embedding gives for one step."""
        with torch.no_grad():
            weight = next(embed.parameters(), torch.zeros(()))
            steps = torch.zeros(1, 1, *self.step_shape, device=weight.device)
            for value in (steps.to(weight.dtype), steps.long()):
                try:
                    return embed(value)[0, 0].numel()
                except (RuntimeError, TypeError):  # of the other dtype: an nn.Embedding takes int64
                    continue
        raise ValueError(f"the embedding {embed} does not take steps of shape {self.step_shape}")

    def extra_repr(self) -> str:
        """What it reads, and in which direction."""
        return f"{self.step_shape}, direction={self.direction!r}"
