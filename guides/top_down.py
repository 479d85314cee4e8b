"""Guide of a hierarchy from the top down, which follows the model's own network."""

from collections.abc import Collection, Mapping, Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ..models.contexts import context_for, takes_context
from ..models.level import Level, as_level
from ..models.networks.stages import Stages
from ..models.trial import trial
from .amortized import Amortized
from .own_features import Features
from .own_levels import own_levels, own_parameters, part_of
from .relative import Relative


class TopDown(PyroModule):
    """The guide q(z_L|x) q(z_{L−1}|z_L, x) … q(z₁|z₂ …, x) of a :class:`latente.models.Hierarchy`.

    It draws the levels in the model's order and goes down the model's own network: each level's
    posterior may start from the model's prior of that level given the draws above
    (:class:`PrecisionWeighted`: ladder VAEs; :class:`Residual`: NVAE) or see the state of the level
    above (an encoder that is a :class:`latente.models.Conditional`: VDVAE, HVAE). A recorded step
    computes that network once for both programs.

    The guide is a Pyro program ``guide(x)`` with a site for each level inside a plate named
    ``"data"`` at dimension −1. If the encoder takes a context, it is ``guide(x, c)``.

    Args:
        posteriors: posteriors of the levels by the names of their sites, from the top down, such as
            :class:`DiagonalNormal`; below the top also :class:`PrecisionWeighted` and
            :class:`Residual`. Their encoders map the features of the level to those of the family.
        levels: the model's levels, as its :class:`latente.models.Hierarchy` takes them; the guide
            does not use the prior of the top one.
        encoder: from x to the features of each level by name, such as
            :class:`latente.models.Stages`. ``None``: each posterior's encoder takes x itself.

    Raises:
        ValueError: if the names of posteriors and levels are not the same in the same order, or
            the top posterior is relative to a prior, or a posterior cannot be a part of a guide;
            if stages miss a level or are not listed from the bottom up;
            if the encoder gives no features for a level, or features, state and posterior of a
            level do not fit (seen when built if the encoder is a :class:`Stages` that shows the
            shape of its data, else when run).

    >>> import torch
    >>> from latente.models import Bernoulli, ConditionalNormal, Hierarchy, Stages, StandardNormal
    >>> from latente.models import mlp
    >>> from latente.guides import DiagonalNormal, PrecisionWeighted
    >>> levels = {"z2": StandardNormal(2), "z1": ConditionalNormal(mlp(2, 16, out=16), 8)}
    >>> model = Hierarchy(levels, mlp(8, 16, out=64), Bernoulli((8, 8)))
    >>> posteriors = {
    ...     "z2": DiagonalNormal(mlp(8, out=4), 2),
    ...     "z1": PrecisionWeighted(mlp(16, out=16), 8),
    ... }
    >>> guide = TopDown(posteriors, levels, Stages({"z1": mlp(64, out=16), "z2": mlp(16, out=8)}))
    >>> {name: tuple(z.shape) for name, z in guide(torch.zeros(5, 8, 8)).items()}
    {'z2': (5, 2), 'z1': (5, 8)}
    """

    def __init__(
        self,
        posteriors: Mapping[str, Amortized],
        levels: Mapping[str, nn.Module],
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        check_parts(posteriors)
        if [*posteriors] != [*levels]:
            raise ValueError(
                f"the guide has posteriors of {', '.join(posteriors)}, and the model has levels "
                f"{', '.join(levels)}: give one for each level, in the same order, top first"
            )
        top, *below = posteriors
        if isinstance(posteriors[top], Relative):
            raise ValueError(
                f"level {top!r} is the top, with no level above whose draws its prior depends on: "
                f"give it a DiagonalNormal, not a {type(posteriors[top]).__name__}"
            )
        _check_stages(encoder, [*posteriors])
        self.posteriors = nn.ModuleDict(posteriors)
        self.levels = nn.ModuleDict({name: as_level(levels[name]) for name in below})
        # The top level's prior stays outside: a VampPrior holds this guide.
        self.join = as_level(levels[top]).join
        self.encoder = encoder
        if isinstance(encoder, Stages) and not self.conditional:
            _check_levels(self, encoder.example())

    @property
    def conditional(self) -> bool:
        """Whether the encoder takes a context."""
        return takes_context(self.encoder)

    def posterior(self, x: Tensor, *context: Tensor) -> dist.TorchDistribution:
        """q(z_L|x) of the top level: batch shape (N,)."""
        top = next(iter(self.posteriors))
        return self._posterior(top, self._features(x, context), (), None)

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Run the program on data (N, *event_shape); returns the draws (…, N, …) by site."""
        return self._run(len(x), self._features(x, context))

    def local_parameters(self, x: Tensor, *context: Tensor) -> tuple[Tensor, ...]:
        """Numbers of which each datum may have its own, as the encoders give them, (N, …).

        From the top down, what the encoder of a level gives. Of an encoder that takes the state
        above: its features, and zeros, which are added to what it gives.
        """
        return own_parameters(self.posteriors, self._features(x, context), [*self.levels])

    def run_local(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        """Run the program with :meth:`local_parameters` of each datum's own; returns the draws."""
        own = own_levels(self.posteriors, parameters, [*self.levels])
        return self._run(len(parameters[0]), own)

    def _run(self, num_data: int, features: Mapping[str, Features]) -> dict[str, Tensor]:
        draws: dict[str, Tensor] = {}
        state: tuple[Tensor, ...] = ()
        with pyro.plate("data", num_data, dim=-1):
            for name in self.posteriors:
                prior = self._level(name)(*state) if state else None
                draws[name] = pyro.sample(name, self._posterior(name, features, state, prior))
                if len(draws) < len(self.posteriors):
                    state = (self._state_below(name, draws[name], state),)
        return draws

    def _level(self, name: str) -> Level:
        level = self.levels[name]
        assert isinstance(level, Level)
        return level

    def _state_below(self, name: str, z: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        if state:
            return self._level(name).state_below(z, *state)
        return z if self.join is None else self.join(z)

    def _features(self, x: Tensor, context: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        if self.encoder is None:
            return dict.fromkeys(self.posteriors, x)
        features = self.encoder(x, *context_for(self.encoder, context))
        _check_features(features, [*self.posteriors])
        return features

    def _posterior(
        self,
        name: str,
        features: Mapping[str, Features],
        state: tuple[Tensor, ...],
        prior: dist.TorchDistribution | None,
    ) -> dist.TorchDistribution:
        part = part_of(self.posteriors, name)
        if prior is not None and prior.event_shape != part.event_shape:
            raise ValueError(
                f"level {name!r}: the model's z has shape {tuple(prior.event_shape)}, and the "
                f"{type(part).__name__} {part.event_shape}: give both the same latent_dim"
            )
        try:
            return part.posterior_of_level(features[name], state, prior)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"level {name!r}: {str(error).splitlines()[0]}") from error


def _check_levels(guide: TopDown, x: Tensor | None) -> None:
    """Draw once given data x, to see that features, states and posteriors fit."""
    kinds = {(value.dtype, value.device) for value in guide.parameters()}
    if x is None or len(kinds) != 1:  # as in Stages.example
        return
    with trial(guide):
        try:
            guide.forward(x)  # not guide(x), which would register parameters with Pyro
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"the parts of the guide do not fit one another: {str(error).splitlines()[0]}"
            ) from error


def _check_stages(encoder: nn.Module | None, names: list[str]) -> None:
    """Refuse stages of other levels, or listed from the top down, as posteriors are."""
    if not isinstance(encoder, Stages):
        return
    stages = [*encoder.stages]
    _check_features(stages, names)
    if [name for name in stages if name in names] != names[::-1]:
        raise ValueError(
            f"the stages of the encoder are {', '.join(stages)}: list them from the bottom up, "
            f"{', '.join(names[::-1])}; posteriors and levels go from the top down"
        )


def _check_features(given: Collection[str], names: Collection[str]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"the encoder gives features for {', '.join(given)}, but not for "
            f"{', '.join(missing)}: give it a stage for each level"
        )


def check_parts(posteriors: Mapping[str, nn.Module]) -> None:
    """Refuse a guide of no levels, or of parts that are no amortized posteriors."""
    if not posteriors:
        raise ValueError("a guide of a hierarchy has at least one level, got none")
    for name, part in posteriors.items():
        if not isinstance(part, Amortized):
            raise ValueError(
                f"the posterior of level {name!r} must be an amortized one, such as "
                f"DiagonalNormal, got {type(part).__name__}"
            )
