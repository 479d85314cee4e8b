"""Guide of a hierarchy from the bottom up: a chain of encoders."""

from collections.abc import Mapping, Sequence

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..models.contexts import context_for, takes_context
from .amortized import Amortized
from .own_features import Features, OwnFeatures
from .own_levels import part_of
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
        first = next(iter(self.posteriors))
        return self._run(len(x), x, context_for(part_of(self.posteriors, first), context))

    def local_parameters(self, x: Tensor, *context: Tensor) -> tuple[Tensor, ...]:
        """Numbers of which each datum may have its own, as the encoders give them, (N, …).

        From the bottom up: what the first encoder gives; and zeros for each other one, which are
        added to what it gives.
        """
        first, *others = (part_of(self.posteriors, name) for name in self.posteriors)
        encoded = first.encode(x, context_for(first, context))
        return encoded, *(encoded.new_zeros(len(x), *part.feature_shape) for part in others)

    def run_local(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """Run the program with :meth:`local_parameters` of each datum's own; returns the draws."""
        own = dict(zip(self.posteriors, parameters, strict=True))
        return self._run(len(parameters[0]), OwnFeatures(parameters[0]), (), own)

    def _run(
        self,
        num_data: int,
        first: Features,
        context: tuple[Tensor, ...],
        shifts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        draws: dict[str, Tensor] = {}
        features = first
        with pyro.plate("data", num_data, dim=-1):
            for name in self.posteriors:
                part, given = part_of(self.posteriors, name), () if draws else context
                if draws and shifts is not None:
                    features = OwnFeatures(shifts[name], [*draws.values()][-1])
                try:
                    posterior = part.posterior_of_level(features, given, None)
                except (ValueError, RuntimeError) as error:
                    raise ValueError(f"level {name!r}: {str(error).splitlines()[0]}") from error
                draws[name] = features = pyro.sample(name, posterior)
        return draws
