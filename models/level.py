"""A level of a hierarchy: its prior given the levels above, and what the next level sees."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class Level(nn.Module):
    """A level of a :class:`Hierarchy`: the prior of its z, and the state that it hands down.

    ::

        z ~ prior(state),   next state = join(state, z)

    The state is what a level knows of all levels above it. Without ``join`` it is the z of the
    level above, so the levels form a Markov chain; a prior alone stands for such a level. With
    ``Concatenation()`` each level and the decoder see all levels above. With a network such as
    ``h + project(z)`` the state is a deterministic path, as in NVAE (Vahdat and Kautz 2020, arXiv
    2007.03898) and VDVAE (Child 2021, arXiv 2011.10650).

    Args:
        prior: a module from the state to the distribution of z, such as
            :class:`ConditionalNormal`; at the top, from nothing.
        join: a module from (state, z) to the next state; at the top, from z alone.

    >>> from latente.models import Concatenation, ConditionalNormal, mlp
    >>> level = Level(ConditionalNormal(mlp(2, out=6), latent_dim=3), Concatenation())
    >>> z_above = torch.zeros(5, 2)
    >>> z = level(z_above).sample()
    >>> z.shape, level.state_below(z, z_above).shape
    (torch.Size([5, 3]), torch.Size([5, 5]))
    """

    def __init__(self, prior: nn.Module, join: nn.Module | None = None):
        super().__init__()
        self.prior = prior
        self.join = join

    def forward(self, *state: Tensor) -> dist.TorchDistribution:
        """p(z|state); at the top p(z), without a state."""
        return self.prior(*state)

    def state_below(self, z: Tensor, *state: Tensor) -> Tensor:
        """What the next level sees: z (…, *event_shape), joined to the state if there is one."""
        return z if self.join is None else self.join(*state, z)


def as_level(part: nn.Module) -> Level:
    """A part of a hierarchy as a level: a prior alone hands on its z."""
    return part if isinstance(part, Level) else Level(part)


class Concatenation(nn.Module):
    """Concatenate the state of the levels above with z, along the first axis of an event.

    Args:
        event_dim: number of axes of an event: 1 for vectors (…, K), 3 for maps (…, C, H, W), which
            are joined along their channels.

    Raises:
        ValueError: if ``event_dim`` is less than 1; when called, if maps are not of one size.

    >>> Concatenation()(torch.zeros(4, 5, 2), torch.zeros(4, 5, 3)).shape
    torch.Size([4, 5, 5])
    >>> Concatenation(3)(torch.zeros(5, 8, 7, 7), torch.zeros(5, 2, 7, 7)).shape
    torch.Size([5, 10, 7, 7])
    """

    def __init__(self, event_dim: int = 1):
        super().__init__()
        if event_dim < 1:
            raise ValueError(f"event_dim must be at least 1, got {event_dim}")
        self.event_dim = event_dim

    def forward(self, *parts: Tensor) -> Tensor:
        """Tensors (…, Cᵢ, *sizes) to one tensor (…, Σ Cᵢ, *sizes)."""
        sizes = {tuple(part.shape[part.dim() - self.event_dim + 1 :]) for part in parts}
        if len(sizes) > 1:
            listed = " and ".join(" × ".join(map(str, size)) for size in sorted(sizes))
            raise ValueError(
                f"maps of {listed} cannot be joined along their channels: bring them to one size, "
                "with nn.Upsample or a convolution of stride 2"
            )
        batch = torch.broadcast_shapes(*[part.shape[: -self.event_dim] for part in parts])
        spread = [part.expand(*batch, *part.shape[-self.event_dim :]) for part in parts]
        return torch.cat(spread, dim=-self.event_dim)

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"{self.event_dim}"
