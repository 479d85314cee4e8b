"""The choice ``--levels sequence``: one latent variable for a whole sequence."""

from typing import Annotated

from torch import nn

from ...guides import Amortized
from ...models import (
    VAE,
    RecurrentLikelihood,
    RecurrentReader,
    SequenceEncoder,
    StandardNormal,
    mlp,
)
from .chain_level import CELLS
from .parameters import Count, Share, one_of
from .sequence_parts import SequenceParts


def sequence_level(
    parts: SequenceParts,
    *,
    dim: Count = 32,
    state: Count = 200,
    cell: Annotated[str, one_of(*CELLS)] = "gru",
    word_dropout: Share = 0.0,
) -> tuple[VAE, Amortized]:
    """One z of ``dim`` dimensions for each sequence, and recurrent networks that read and write it.

    The encoder reads x both ways; the decoder writes each step given those before it, and z at
    every step. ``state`` is the width of both networks. In training the decoder sees each step with
    probability 1 − ``word_dropout``. Where the steps are those of a text, its end is a token.
    """

    def encoder(out: int) -> nn.Module:
        reader = RecurrentReader(
            parts.step_shape, state, direction="both", cell=CELLS[cell], embed=parts.embed(state)
        )
        return SequenceEncoder(reader, mlp(reader.num_features, out=out), end=parts.end)

    guide = parts.posterior(encoder, dim)
    likelihood = RecurrentLikelihood(
        parts.likelihood,
        state,
        latent_features=dim,
        cell=CELLS[cell],
        embed=parts.embed(state),
        word_dropout=word_dropout,
        end=parts.end,
    )
    return VAE(StandardNormal(dim), nn.Identity(), likelihood), guide
