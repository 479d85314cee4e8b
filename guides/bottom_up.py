"""Guide of a hierarchy from the bottom up: a chain of encoders."""

from collections.abc import Mapping

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..models.contexts import context_for, takes_context
from .amortized import Amortized
from .top_down import check_parts


class BottomUp(PyroModule):
    """The guide q(z₁|x) q(z₂|z₁) … q(z_L|z_{L−1}) of a :class:`latente.models.Hierarchy`.

    Each level sees a draw of the level below (Rezende et al. 2014, arXiv 1401.4082; Burda et al.
    2016, arXiv 1509.00519). A Markov chain's exact posterior has this form. The levels are drawn in
    another order than in the model, so their KLs are estimated from the draws: a KL in closed form
    of a level would hold given the levels above it, which are not drawn yet.

    The guide is a Pyro program ``guide(x)`` with a site for each level inside a plate named
    ``"data"`` at dimension −1. If the first encoder takes a context, it is ``guide(x, c)``.

    Args:
        posteriors: posteriors of the levels by the names of their sites, from the bottom up, such
            as :class:`DiagonalNormal`. The first one's encoder takes x, each other one's the z of
            the level below.

    Raises:
        ValueError: if there is no level, or a posterior cannot be a part of a guide; when run, if
            an encoder does not fit the level below.

    >>> import torch
    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import mlp
    >>> first, second = DiagonalNormal(mlp(64, out=16), 8), DiagonalNormal(mlp(8, out=4), 2)
    >>> guide = BottomUp({"z1": first, "z2": second})
    >>> {name: tuple(z.shape) for name, z in guide(torch.zeros(5, 8, 8)).items()}
    {'z1': (5, 8), 'z2': (5, 2)}
    """

    def __init__(self, posteriors: Mapping[str, Amortized]):
        super().__init__()
        check_parts(posteriors)
        self.posteriors = nn.ModuleDict(posteriors)

    @property
    def conditional(self) -> bool:
        """Whether the first encoder takes a context."""
        return takes_context(next(iter(self.posteriors.values())))

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Run the program on data (N, *event_shape); returns the draws (…, N, …) by site."""
        draws: dict[str, Tensor] = {}
        below = x
        with pyro.plate("data", len(x), dim=-1):
            for name, part in self.posteriors.items():
                assert isinstance(part, Amortized)
                given = context_for(part, context) if not draws else ()
                try:
                    posterior = part.posterior_of_level(below, given, None)
                except (ValueError, RuntimeError) as error:
                    raise ValueError(f"level {name!r}: {str(error).splitlines()[0]}") from error
                draws[name] = below = pyro.sample(name, posterior)
        return draws
