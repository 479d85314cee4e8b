"""A generative model of several levels of latent variables, as a Pyro program."""

import inspect
import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from .contexts import context_for
from .level import Level, as_level
from .likelihoods.likelihood import Likelihood
from .priors.vamp_prior import VampPrior
from .start_at_mean import start_at_mean
from .trial import trial


@runtime_checkable
class GuideOfLevels(Protocol):
    """A guide that goes down the model's levels, such as :class:`latente.guides.TopDown`."""

    posteriors: nn.ModuleDict
    """The posteriors of the levels by name, top first."""
    levels: nn.ModuleDict
    """The model's levels below the top."""


class Hierarchy(PyroModule):
    """Levels of latent variables over one another, p(x|z₁, …) p(z₁|z₂, …) … p(z_L).

    For each datum, from the top down::

        z_L ~ prior_L                         state_L = z_L
        zᵢ  ~ priorᵢ(stateᵢ₊₁)                stateᵢ = zᵢ, or what a Level makes of stateᵢ₊₁ and zᵢ
        x   ~ likelihood(decoder(state₁))

    The model is a Pyro program ``model(x)`` with a site for each level and the observed site
    ``"x"``, all inside a plate named ``"data"`` at dimension −1. Deep latent Gaussian models
    (Rezende et al. 2014), the two stochastic layers of Burda et al. (2016), ladder VAEs (Sønderby
    et al. 2016, arXiv 1602.02282), NVAE and VDVAE have this form. Guides are
    :class:`latente.guides.TopDown` and :class:`latente.guides.BottomUp`.

    With a context c the program is ``model(x, c)``; a decoder takes it after its input, and the top
    prior if it is conditional. See :class:`VAE`.

    A level is a vector, or feature maps (C, H, W) where its prior is of such a shape; networks that
    take maps with any leading batch shape are made with :class:`Maps`.

    Args:
        levels: the levels by the names of their sites, from the top down. The first is any prior;
            each other one is a prior given what the level above hands down, such as
            :class:`ConditionalNormal`. A :class:`Level` says itself what it hands down; a prior
            alone hands down its z.
        decoder: a network from the lowest level's state to features
            (…, likelihood.num_features).
        likelihood: a module from features to the distribution of x.

    Raises:
        ValueError: if there is no level, or a level does not fit the one above it, or the decoder
            does not fit the lowest one, or the top is a :class:`VampPrior` of a guide of other
            levels; when run, as :class:`VAE`.

    Warns:
        UserWarning: if a level has more dimensions than the one below it: the upper level can then
            copy the lower one.

    >>> from latente.models import Bernoulli, ConditionalNormal, StandardNormal, mlp
    >>> levels = {"z2": StandardNormal(2), "z1": ConditionalNormal(mlp(2, 16, out=16), 8)}
    >>> model = Hierarchy(levels, mlp(8, 16, out=64), Bernoulli((8, 8)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 8, 8))
    >>> {name: tuple(trace.nodes[name]["value"].shape) for name in levels}
    {'z2': (5, 2), 'z1': (5, 8)}
    """

    def __init__(self, levels: Mapping[str, nn.Module], decoder: nn.Module, likelihood: Likelihood):
        super().__init__()
        if not levels:
            raise ValueError("a hierarchy has at least one level, got none")
        self.levels = nn.ModuleDict({name: as_level(part) for name, part in levels.items()})
        self.decoder = decoder
        self.likelihood = likelihood
        self._check_levels()

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape) and contexts (N, …); returns the observed x."""
        self.likelihood.check_data(x)
        top, *below = self._levels()
        for_prior = context_for(top[1].prior, context)
        for_decoder = context_for(self.decoder, context)
        if context and not (for_prior or for_decoder):
            raise ValueError(
                "the data bring a context, but neither the top prior nor the decoder takes one: "
                "give x alone, or use ConditionalNormal or Conditional"
            )
        prior = top[1](*for_prior)
        with pyro.plate("data", len(x), dim=-1):
            state = top[1].state_below(pyro.sample(top[0], prior))
            for name, level in below:
                state = level.state_below(pyro.sample(name, level(state)), state)
            return pyro.sample("x", self.likelihood(self.decoder(state, *for_decoder)), obs=x)

    @property
    def prior(self) -> nn.Module:
        """The prior of the top level."""
        return self._levels()[0][1].prior

    def start_at_mean(self, x: Tensor) -> Self:
        """Set the decoder's last bias to fit data x without z; see :meth:`VAE.start_at_mean`."""
        start_at_mean(self.decoder, self.likelihood, x)
        return self

    def _levels(self) -> list[tuple[str, Level]]:
        return [(name, level) for name, level in self.levels.items() if isinstance(level, Level)]

    def _check_levels(self) -> None:
        """Draw two data from the model to see that its parts fit, and warn of growing levels."""
        top, *below = self._levels()
        _check_guide(top, below)
        _check_order([top[0], *(name for name, _ in below)], below)
        if context_for(top[1].prior, (torch.empty(0),)) or context_for(
            self.decoder, (torch.empty(0),)
        ):
            return  # it cannot be drawn from without a context
        with trial(self):
            self._draw_levels(top, below)

    def _draw_levels(self, top: tuple[str, Level], below: list[tuple[str, Level]]) -> None:
        above, level = top
        try:
            prior = level()
        except TypeError as error:
            raise ValueError(
                f"the top level {above!r} must be a prior, such as StandardNormal, NormalMixture, "
                f"VampPrior or FlowPrior, got {type(level.prior).__name__}: {error}"
            ) from error
        draws = {above: prior.expand((2,)).sample()}
        state = level.state_below(draws[above])
        for name, level in below:
            try:
                draws[name] = level(state).sample()
                state = level.state_below(draws[name], state)
            except (ValueError, RuntimeError, IndexError) as error:
                raise ValueError(_do_not_meet(f"level {name!r}", above, state, error)) from error
            above = name
        try:
            self.likelihood(self.decoder(state))
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(_do_not_meet("the decoder", above, state, error)) from error
        _warn_of_growth({name: tuple(draw.shape[1:]) for name, draw in draws.items()})


def _check_order(names: list[str], below: list[tuple[str, Level]]) -> None:
    """Refuse priors below the top that take no state, as in levels listed from the bottom up."""
    for above, (name, level) in zip(names, below, strict=False):
        # Of a prior of one's own, only its signature tells.
        if not inspect.signature(level.prior.forward).parameters:
            raise ValueError(
                f"level {name!r} takes nothing from level {above!r} above it: list the levels from "
                "the top down, and give those below the top a prior such as ConditionalNormal, got "
                f"{type(level.prior).__name__}"
            )


def _check_guide(top: tuple[str, Level], below: list[tuple[str, Level]]) -> None:
    """Refuse a VampPrior whose guide is the one of other levels: it has networks of its own."""
    name, level = top
    guide = level.prior.guide if isinstance(level.prior, VampPrior) else None
    if not isinstance(guide, GuideOfLevels):
        return  # of one level, as far as can be seen
    first, *_ = guide.posteriors
    own = {name: as_level(part).prior for name, part in guide.levels.items()}
    if first != name or own != {name: part.prior for name, part in below}:
        raise ValueError(
            f"the VampPrior of level {name!r} mixes the posterior of {first!r} of a guide of other "
            "levels: make the guide of this model's levels first, TopDown(posteriors, levels, …), "
            "and then the model of the same levels with a VampPrior of that guide at the top"
        )


def _do_not_meet(part: str, above: str, state: Tensor, error: Exception) -> str:
    shape = tuple(state.shape[1:])
    return (
        f"{part} does not fit level {above!r}, which hands down a state of shape {shape}: "
        f"{str(error).splitlines()[0]}"
    )


def _warn_of_growth(shapes: dict[str, tuple[int, ...]]) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    for (upper, wide), (lower, narrow) in itertools.pairwise(sizes.items()):
        if wide > narrow:
            warnings.warn(
                f"level {upper!r} has {wide} dimensions and {lower!r} below it has "
                f"{narrow}: an upper level that is larger can copy the lower one; make it "
                "smaller",
                stacklevel=5,
            )
