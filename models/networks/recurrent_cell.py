"""A recurrent cell that takes any leading batch shape, and learns the state that it starts from."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class CellState(NamedTuple):
    """The state of an LSTM cell, each (…, H)."""

    h: Tensor
    """What others see of it."""
    memory: Tensor
    """What it keeps for itself."""


class RecurrentCell(nn.Module):
    """One step of an LSTM (Hochreiter and Schmidhuber 1997), from a learned first state.

    Args:
        features: length of its input.
        hidden: H, length of its state.

    Raises:
        ValueError: if a size is less than 1.

    >>> cell = RecurrentCell(3, 8)
    >>> cell(torch.zeros(4, 5, 3), cell.start()).h.shape
    torch.Size([4, 5, 8])
    """

    def __init__(self, features: int, hidden: int):
        super().__init__()
        if min(features, hidden) < 1:
            raise ValueError(f"a cell has sizes of at least 1, got {features} and {hidden}")
        self.first = nn.Parameter(torch.zeros(2, hidden))
        self.cell = nn.LSTMCell(features, hidden)

    def start(self) -> CellState:
        """The learned state before the first step, (H,)."""
        return CellState(*self.first.unbind(0))

    def forward(self, x: Tensor, state: CellState) -> CellState:
        """The state after an input x (…, features), for any leading shape of x and of the state."""
        batch = torch.broadcast_shapes(x.shape[:-1], state.h.shape[:-1])
        parts = [part.expand(*batch, -1).reshape(-1, part.shape[-1]) for part in (x, *state)]
        h, memory = self.cell(parts[0], (parts[1], parts[2]))
        return CellState(h.reshape(*batch, -1), memory.reshape(*batch, -1))
