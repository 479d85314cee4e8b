"""Encoder of a whole sequence: a reader's state after its last step, and a network of it."""

from typing import Protocol

import torch
from torch import Tensor, nn

from ..contexts import context_for
from ..padding import check_same_number, step_mask, steps_until_end
from .recurrent_reader import Direction


class StateReader(Protocol):
    """What a :class:`SequenceEncoder` asks of its reader, such as a :class:`RecurrentReader`."""

    direction: Direction
    """In which direction steps are read, which says where the last state is."""

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Sequences (N, T, …), and which steps are there (N, T), to states (N, T, H)."""
        ...


class SequenceEncoder(nn.Module):
    """Encode sequences x (N, T, …) of lengths (N,) into features (N, out), one row each.

    ::

        features = network(h),   h the reader's state after all steps that are there

    Of a reader in both directions, h is both last states. As the encoder of a posterior family it
    gives q(z|x) of one z for each sequence, and the guide is called ``guide(x, lengths)``. What
    stands in the padding has no effect.

    Args:
        reader: a :class:`RecurrentReader`, with ``embed=nn.Embedding(K, E)`` for tokens.
        network: from h (N, H) to features, such as ``mlp(reader.num_features, out=2 * D)``; a
            :class:`Conditional` takes further contexts after it.
        end: the token that ends a sequence, as in :class:`RecurrentLikelihood`: steps after it are
            not read. So sequences that a model draws are read up to their own end.

    Raises:
        ValueError: when called, if a length is less than 1 or beyond the padding, or x has another
            shape.

    >>> from latente.models import RecurrentReader, mlp
    >>> reader = RecurrentReader((), 16, embed=nn.Embedding(5, 8))
    >>> encoder = SequenceEncoder(reader, mlp(16, out=4), end=0)
    >>> encoder(torch.tensor([[3, 1, 0], [2, 0, 0]]), torch.tensor([3, 2])).shape
    torch.Size([2, 4])
    """

    conditional = True
    """It takes the lengths after x; see :class:`latente.models.contexts.TakesContext`."""

    def __init__(self, reader: StateReader, network: nn.Module, *, end: int | None = None):
        super().__init__()
        self.reader, self.network, self.end = reader, network, end

    def forward(self, x: Tensor, lengths: Tensor | None = None, *context: Tensor) -> Tensor:
        """Sequences (N, T, …), lengths (N,) and further contexts to features (N, out)."""
        check_same_number(x, lengths)
        if self.end is not None and x.dim() != 2:
            raise ValueError(
                f"the encoder takes sequences of tokens of shape (N, T), got {tuple(x.shape)}"
            )
        mask = step_mask(lengths, x.shape[1])
        if self.end is not None:
            mask = steps_until_end(x, self.end)
        if mask is not None:  # NaN in the padding would reach the gradient of the reader
            x = torch.where(mask[(..., *[None] * (x.dim() - 2))], x, 0)
        read = self.reader(x, mask)
        half = read.shape[-1] // 2
        if self.reader.direction == "backward":
            state = read[:, 0]
        elif self.reader.direction == "forward":
            state = _last(read, mask)
        else:
            state = torch.cat([_last(read[..., :half], mask), read[:, 0, half:]], -1)
        return self.network(state, *context_for(self.network, context))

    def extra_repr(self) -> str:
        """The token that ends a sequence."""
        return f"end={self.end}"


def _last(read: Tensor, mask: Tensor | None) -> Tensor:
    """The state (N, H) at the last step that is there."""
    if mask is None:
        return read[:, -1]
    last = mask.sum(-1) - 1
    return read.gather(1, last[:, None, None].expand(-1, 1, read.shape[-1]))[:, 0]
