"""Whether a model could have made the data: quantities of theirs, and of data that it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.progress import progress
from ..data.datasets import evaluation_rows
from ..data.rows import BLOCK
from ..pairs.checks import check_support
from ..pairs.inspection import inspect_drawn
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import global_latent_sites, observed_sites
from ..simulation.simulate import (
    Unobserved,
    check_distribution_ignores_x,
    check_unmasked,
    reshape_like_x,
    simulate_block,
    site_of_x,
)

Quantity = Callable[[Tensor], Any]
"""A function of a data set x (N, *event_shape) that gives one number."""


DEFAULT_QUANTITIES: dict[str, Quantity] = {
    "mean": lambda x: x.double().mean(),
    "standard deviation": lambda x: x.double().std(correction=0),
    "sd of data means": lambda x: x.double().reshape(len(x), -1).mean(1).std(correction=0),
    "smallest": lambda x: x.min(),
    "largest": lambda x: x.max(),
    "share of zeros": lambda x: (x == 0).double().mean(),
}
"""What :func:`predictive_check` looks at, unless told otherwise: level, spread, spread of the data
apart from that within a datum, extremes, and zeros. Where one cannot vary, as the extremes of bits
cannot, its p-value is ½."""


@dataclass(frozen=True)
class PredictiveCheck:
    """A quantity T of the data, and of S replicated data sets."""

    observed: float
    """T(x)."""
    replicated: Tensor
    """T of each replicated data set, (S,), float64, on CPU."""

    @property
    def p_value(self) -> float:
        """P(T(x_rep) > T(x)) + ½ P(T(x_rep) = T(x)), over the replicated data sets."""
        above = (self.replicated > self.observed).double()
        ties = (self.replicated == self.observed).double()
        return (above + ties / 2).mean().item()

    @property
    def two_sided(self) -> float:
        """2 min(p, 1 − p): small where T(x) lies in either tail."""
        return 2 * min(self.p_value, 1 - self.p_value)

    def __repr__(self) -> str:
        return (
            f"PredictiveCheck(observed={self.observed:.4g}, replicated="
            f"{self.replicated.mean().item():.4g} ± {self.replicated.std(correction=0).item():.2g},"
            f" p={self.p_value:.3f}, S={len(self.replicated)})"
        )


def predictive_check(
    model: Program,
    guide: Program,
    data: Any,
    quantities: Mapping[str, Quantity] = DEFAULT_QUANTITIES,
    *,
    num_samples: int = 200,
    from_prior: bool = False,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, PredictiveCheck]:
    """Compare quantities of the data with those of data sets that the fitted model makes.

    ::

        p = P(T(x_rep) > T(x)) + ½ P(T(x_rep) = T(x))
        posterior predictive:  zₙ ~ q(z|xₙ),  x_rep,ₙ ~ p(x|zₙ)
        prior predictive:      zₙ ~ p(z),     x_rep,ₙ ~ p(x|zₙ)

    Latent variables outside the data plate are drawn once for each replicated data set, from the
    guide or from their prior. Contexts stay as they are.

    Prior predictive p-values are uniform if the data come from the model as it stands. Posterior
    predictive ones are not: zₙ was found from the very xₙ that is then checked, so the data are
    used twice, and p keeps nearer to ½ than a uniform number would (Gelman, Meng and Stern 1996;
    Robins, van der Vaart and Ventura 2000). They are conservative: an extreme one says that the
    model cannot make such data even when told what to imitate, a middling one says little.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or (x, *context); the test part, of what :func:`load_data`
            returns.
        quantities: by name, functions of a data set x (N, *event_shape), on CPU, each giving one
            number; :data:`DEFAULT_QUANTITIES` if not given.
        num_samples: S, replicated data sets.
        from_prior: whether latent variables come from the model's prior.
        seed: of the draws.
        show_progress: show the replications done.

    Raises:
        ValueError: if S < 1, there is no quantity, or one gives no finite number, the data cannot
            be used, the pair sums a site out, or the model does not say how x comes about: it
            observes something other than x, or the distribution of x is written with x itself.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(0.8 * x, 0.45))
    >>> x = torch.linspace(-1, 1, 50)
    >>> x[0] = 30.0
    >>> checks = predictive_check(model, guide, x, {"largest": lambda x: x.max()}, from_prior=True)
    >>> checks["largest"].p_value
    0.0
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not quantities:
        raise ValueError("there is no quantity to check: give functions of x by name")
    rows = evaluation_rows(data)
    num_rows = len(rows[0])
    device, dtype = placement(model, guide)
    blocks = [
        place(tuple(part[start : start + BLOCK] for part in rows), device, dtype)
        for start in range(0, num_rows, BLOCK)
    ]
    x = torch.cat([args[0] for args in blocks]).cpu()
    observed = {name: _number(name, quantity(x)) for name, quantity in quantities.items()}
    replicated = {name: torch.empty(num_samples, dtype=torch.float64) for name in quantities}
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        for number, args in enumerate(blocks):
            check_support(model, guide, args, "data", number * BLOCK)
        structure = inspect_drawn(model, guide, blocks[0])
        _check_says_x(model, guide, blocks[0])
        if from_prior:
            _check_untilted(model, blocks[0])
        # A guide may find shared variables from all data: it has to see them together.
        together = structure.global_latents and not from_prior
        whole = tuple(map(torch.cat, zip(*blocks, strict=True))) if together else None
        with (
            pyro.validation_enabled(False),
            progress("predictive check", num_samples, show=show_progress) as advance,
        ):
            for sample in range(num_samples):
                x_rep = _replicate(model, guide, blocks, whole, from_prior)
                for name, quantity in quantities.items():
                    replicated[name][sample] = _number(name, quantity(x_rep))
                advance(1, f"{sample + 1} of {num_samples} replications")
    return {name: PredictiveCheck(observed[name], replicated[name]) for name in quantities}


def _number(name: str, value: Any) -> float:
    """What a quantity gave, as a number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        shown = f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape else "")
    else:
        if isfinite(number):
            return number
        shown = str(number)
    raise ValueError(
        f"the quantity {name!r} gives {shown}: it must give one finite number for a data set x"
    )


def _replicate(
    model: Program,
    guide: Program,
    blocks: list[tuple[Tensor, ...]],
    whole: tuple[Tensor, ...] | None,
    from_prior: bool,
) -> Tensor:
    """One replicated data set, (N, *event_shape), on CPU.

    Args:
        whole: all data at once, where the guide draws latent variables that they share.
    """
    shared = Trace()
    if whole is not None:
        shared = global_latent_sites(poutine.trace(guide).get_trace(*whole))
    parts = []
    for args in blocks:
        given = shared
        if not from_prior:
            given = poutine.trace(poutine.replay(guide, trace=shared)).get_trace(*args)
        with plain_errors():
            program = poutine.replay(Unobserved()(model), trace=given)
            drawn = poutine.trace(program).get_trace(*args)
        shared = shared or global_latent_sites(drawn)
        site = site_of_x(drawn, args)
        parts.append(reshape_like_x(site["value"], site["fn"], args[0]).to(args[0]).cpu())
    return torch.cat(parts)


def _check_untilted(model: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse to draw from a prior that a factor has tilted: its draws are of what was before."""
    with pyro.validation_enabled(False), plain_errors():
        trace = poutine.trace(model).get_trace(*args)
    for name, site in observed_sites(trace).items():
        if isinstance(site["fn"], Unit):
            raise ValueError(
                f"the factor {name!r} weighs the prior, which can then not be drawn from: check "
                "the posterior predictive"
            )


def _check_says_x(model: Program, guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a model that does not say how x itself comes about."""
    with pyro.validation_enabled(False), plain_errors():
        given = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=given)).get_trace(*args)
    site = site_of_x(trace, args)
    if not torch.equal(reshape_like_x(site["value"], site["fn"], args[0]).to(args[0]), args[0]):
        raise ValueError(
            f"the model observes something other than x at {site['name']!r}, so no x can be drawn "
            "from it: transform x before it is given to the model"
        )
    check_unmasked(site["name"], site)
    check_distribution_ignores_x(model, *simulate_block(model, args))
