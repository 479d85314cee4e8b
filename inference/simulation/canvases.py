"""What a model that paints step by step has on its canvas after each step."""

from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating, unwrapped
from ..pairs.sites import latent_sites


@runtime_checkable
class PaintsInSteps(Protocol):
    """A decoder that paints on a canvas step by step, such as ``DrawDecoder`` is."""

    num_steps: int
    """T."""

    def canvases(self, z: Tensor) -> Tensor:
        """The canvas after each step, (…, T, num_features), from z (…, T, D)."""
        ...


def is_painted(model: Program) -> bool:
    """Whether a model has a decoder that paints step by step, as DRAW does."""
    program = unwrapped(model)
    decoder = getattr(program, "decoder", None)
    return isinstance(decoder, PaintsInSteps) and callable(getattr(program, "likelihood", None))


def canvases(
    model: Program, guide: Program, data: Any, *, from_prior: bool = False, seed: int = 0
) -> Tensor:
    """Compute E[x | c_t] of the canvas after each step, c₁ … c_T, at one draw z for each datum.

    Args:
        data: x, which the canvases reconstruct.
        from_prior: draw z ~ p(z) in place of z ~ q(z|x); the values of x then do not matter.
        seed: seed of the draws.

    Returns:
        (N, T, *event_shape), on CPU.

    Raises:
        ValueError: if the model does not paint step by step, or has several latent sites.

    >>> from latente.guides import DiagonalNormal, DrawPosterior
    >>> from latente.models import VAE, Bernoulli, DrawDecoder, StandardNormal, mlp
    >>> likelihood, decoder = Bernoulli((8, 8)), DrawDecoder((8, 8), (5, 2), hidden=16)
    >>> model = VAE(StandardNormal((5, 2)), decoder, likelihood)
    >>> family = DiagonalNormal(mlp(16, out=4), latent_dim=2)
    >>> guide = DrawPosterior(family, decoder, likelihood, hidden=16)
    >>> canvases(model, guide, torch.zeros(3, 8, 8)).shape
    torch.Size([3, 5, 8, 8])
    """
    program: Any = unwrapped(model)
    if not is_painted(model):
        raise ValueError(
            "the model does not paint step by step: give a VAE whose decoder is a DrawDecoder"
        )
    model, guide, rows = open_pair(model, guide, data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        set_seed(seed)
        trace = poutine.trace(model if from_prior else guide).get_trace(*args)
        sites = latent_sites(trace)
        if len(sites) != 1:
            raise ValueError(f"canvases are of one latent site, and there are {', '.join(sites)}")
        ((_, site),) = sites.items()
        z = site["value"].expand(len(args[0]), *site["fn"].event_shape)
        return program.likelihood(program.decoder.canvases(z)).mean.cpu()
