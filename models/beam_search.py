"""Beam search: a probable sequence of tokens, as a recurrent likelihood has it."""

import torch
from torch import Tensor

from .likelihoods.recurrent import RecurrentDistribution
from .networks.recurrent_decoder import State


def beam_search(distribution: RecurrentDistribution, width: int = 5) -> tuple[Tensor, Tensor]:
    """Search for the sequence of tokens x that maximizes log p(x|z).

    At each step the ``width`` most probable beginnings are kept, those that have ended among them.
    With a width of 1 it is greedy decoding, with as many as there are sequences the exact maximum.
    Log p is that of the sequence, its end included: it is not divided by the length. Where p(x|z)
    is given lengths, as without an end, steps beyond them are token 0 and count nothing.

    Args:
        distribution: p(x|z) of tokens, ``likelihood(decoder(z), T)`` with a
            :class:`RecurrentLikelihood`; T is the most steps that a sequence may have. In place
            of T may stand which steps are there, (*batch, T).
        width: how many beginnings are kept.

    Returns:
        The tokens (*batch, T), int64, the end repeated after the end; and their log p(x|z),
        (*batch), in nats.

    Raises:
        ValueError: if the width is less than 1, or steps are no tokens.

    >>> from latente.models import Categorical, RecurrentLikelihood
    >>> likelihood = RecurrentLikelihood(Categorical((), 5), 16, latent_features=3, end=0)
    >>> tokens, log_prob = beam_search(likelihood(torch.zeros(2, 3), 7), width=3)
    >>> tokens.shape, log_prob.shape
    (torch.Size([2, 7]), torch.Size([2]))
    """
    network, end = distribution.source.network, distribution.source.end
    present = distribution.present if end is None else None
    distribution.source.check_tokens("beam_search")
    if width < 1:
        raise ValueError(f"the width of a beam must be at least 1, got {width}")
    with torch.no_grad():
        latent = distribution.latent
        latent = latent.expand(*distribution.batch_shape, -1).reshape(-1, latent.shape[-1])
        rows = len(latent)
        latent = latent.repeat_interleave(width, 0)
        state = network.first_state(latent)
        # All beginnings are the same before the first step, so that one of them stands for all.
        total = latent.new_full((rows, width), -torch.inf)
        total[:, 0] = 0
        tokens = torch.zeros(rows, width, 0, dtype=torch.int64, device=latent.device)
        if present is not None:
            present = present.expand(*distribution.batch_shape, -1).reshape(rows, -1)
        for step in range(distribution.num_steps):
            last = tokens[..., -1].flatten() if tokens.shape[-1] else None
            features, state = network.advance(last, latent, state)
            log_prob = features.log_softmax(-1).view(rows, width, -1)
            if end is not None and last is not None:
                log_prob = _only(end, (last == end).view(rows, width, 1), log_prob)
            if present is not None:
                log_prob = _only(0, ~present[:, step, None, None], log_prob)
            total, best = (total[..., None] + log_prob).flatten(1).topk(width, 1)
            parent = best // log_prob.shape[-1]
            kept = tokens.gather(1, parent[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([kept, (best % log_prob.shape[-1])[..., None]], -1)
            first = torch.arange(rows, device=latent.device)[:, None] * width
            state = _select(state, (first + parent).flatten())
        shape = distribution.batch_shape
        # topk sorts from the most probable.
        return tokens[:, 0].reshape(*shape, -1), total[:, 0].reshape(shape)


def _only(token: int, where: Tensor, log_prob: Tensor) -> Tensor:
    """The log masses of the next token, and of one token alone where nothing else may follow."""
    alone = torch.full_like(log_prob, -torch.inf)
    alone[..., token] = 0
    return torch.where(where, alone, log_prob)


def _select(state: State, rows: Tensor) -> State:
    """The state of some rows of the network."""
    if isinstance(state, tuple):
        return tuple(part.index_select(1, rows) for part in state)
    return state.index_select(1, rows)
