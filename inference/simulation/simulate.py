"""Simulate data from a model, together with their latent variables."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.batches import epoch_seed
from ..pairs.calling import give_back, is_one_datum
from ..pairs.inspection import inspect_pair
from ..pairs.observed_values import ObservedValues, find_observed_values
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import check_prior_has_draws, latent_sites, observed_sites, value_rows_dim
from .ancestral import check_unmasked, draw_data, snapshot_of, was_observed

SIMULATED_ROWS_AT_ONCE = 1000
"""Rows that one run of the model simulates."""


CHECKED_ROWS = 100
"""Real rows on which it is checked that the model observes x itself."""


def simulate(
    model: Program, guide: Program, like: Any, num: int, *, seed: int = 0
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Simulate data whose latent variables are known: z* ~ p(z), x* ~ p(x|z*), ``num`` times.

    With several observed sites all are drawn, in their order, each given those before it, so that
    x_t ~ p(x_t|x_{t−1}, z) of a time loop is right; :func:`find_observed_values` tells which
    elements of which argument each observes. The other arguments are covariates and stay as they
    are; so do the values of conditioned sites.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites; nothing is drawn from it.
        like: data whose shape the draws take, and whose contexts they take in turn; the values of
            x do not matter. Of what :func:`load_data` returns, the test part is used.
        num: number of draws, at least 1.
        seed: seed of the draws.

    Returns:
        The arguments (x*, *context) as the pair takes them, x* of shape (num, *event_shape), on
        the pair's device; and the values of each latent site by name, (num, *event_shape), with
        the plates inside a datum before the data dimension, if there are any.

    Raises:
        ValueError: if ``num`` < 1, the data cannot be used, a site stands outside the data plate,
            or the model does not define how its data are generated: a site observes a transform of
            an argument, or its distribution depends on its own value or on later ones; a factor, or
            the value of a conditioned site, says something about latent variables.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 0.01), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x, 0.01))
    >>> (x,), values = simulate(model, guide, torch.zeros(3), 500)
    >>> x.shape, bool((x - values["z"]).abs().max() < 0.1)
    (torch.Size([500]), True)
    """
    if num < 1:
        raise ValueError(f"the number of simulations must be at least 1, got {num}")
    as_given = model
    model, guide, rows = open_pair(model, guide, like)
    device, dtype = placement(model, guide)
    xs: list[tuple[Tensor, ...]] = []
    values: list[dict[str, tuple[Tensor, int]]] = []

    def given(start: int, stop: int) -> tuple[Tensor, ...]:
        index = torch.arange(start, stop) % len(rows[0])
        return place(tuple(part[index] for part in rows), device, dtype)

    with evaluating(model, guide), torch.random.fork_rng():
        _check_generative(model, guide, given(0, min(len(rows[0]), CHECKED_ROWS)))
        observed: dict[int, ObservedValues] = {}
        # Another seed than the caller's: a guide drawn with that seed would else use the same
        # noise as z*.
        set_seed(epoch_seed(seed, 0))
        # Where a datum is a whole data set, each is a run of its own.
        at_once = 1 if is_one_datum(model) else SIMULATED_ROWS_AT_ONCE
        for start in range(0, num, at_once):
            stop = min(num, start + at_once)
            args = given(start, stop)
            if stop - start not in observed:
                observed[stop - start] = find_observed_values(model, args)
            args, drawn = draw_data(model, args, observed[stop - start])
            xs.append(args)
            values.append(
                {
                    name: _value_and_data_dim(site)
                    for name, site in latent_sites(drawn).items()
                    if not was_observed(site)
                }
            )
    latents = {
        name: torch.cat([block[name][0] for block in values], data_dim)
        for name, (_, data_dim) in values[0].items()
    }
    drawn = tuple(torch.cat(part) for part in zip(*xs, strict=True))
    return give_back(as_given, model, drawn), latents


def _value_and_data_dim(site: Any) -> tuple[Tensor, int]:
    """The value of a site, and its data dimension."""
    return site["value"], site["value"].dim() + value_rows_dim(site)


def _check_generative(model: Program, guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a model from which data cannot be simulated datum by datum."""
    with pyro.validation_enabled(False):  # the values of x do not matter
        structure = inspect_pair(model, guide, args)
    observed = find_observed_values(model, args)
    outside = structure.global_sites + structure.observed_outside + structure.enumerated_outside
    for name in outside:
        if name not in observed.held:
            raise ValueError(
                f"the site {name!r} stands outside {structure.data_plate}, but data and their "
                "latent variables are simulated one by one, so they must be independent"
            )
    check_defines_data(model, args, observed)
    check_prior_can_be_drawn(model, args, observed)


def check_defines_data(
    program: Program, args: tuple[Tensor, ...], observed: ObservedValues
) -> None:
    """Refuse a model that does not define how its data are drawn.

    Raises:
        ValueError: naming the site, if it observes something other than elements of the arguments
            as they are, or is masked; or if no site observes any.
    """
    for name, reason in observed.refused.items():
        raise ValueError(f"data cannot be drawn from the model: {name!r} observes {reason}")
    if not observed.places:
        raise ValueError(
            "data cannot be drawn from the model: none of its sites observes an argument; give the "
            "data as arguments, and observe them with obs="
        )
    with torch.random.fork_rng(), pyro.validation_enabled(False), plain_errors():
        sites = observed_sites(poutine.trace(program).get_trace(*args))
    for name in observed.places:
        check_unmasked(name, sites[name])


def check_prior_can_be_drawn(
    model: Program, args: tuple[Tensor, ...], observed: ObservedValues
) -> None:
    """Refuse a prior that is masked, or that a factor or a held value says something about.

    Draws of latent variables from their priors would ignore the factor; and draws of what comes
    before a conditioned site would ignore its value.

    Raises:
        ValueError: naming the site.
    """
    with pyro.validation_enabled(False), plain_errors():
        trace = poutine.trace(model).get_trace(*args)
        check_prior_has_draws(trace)
        first = observed_sites(trace)
        with torch.random.fork_rng():
            second = observed_sites(poutine.trace(model).get_trace(*args))
        for name, site in first.items():
            if isinstance(site["fn"], Unit):
                raise ValueError(
                    f"the factor {name!r} weighs the prior, which can then not be drawn from"
                )
            if name not in observed.held or name not in second:
                continue
            value = site["value"]
            if not snapshot_of(site, value).is_like(snapshot_of(second[name], value)):
                raise ValueError(
                    f"{name!r} is held at a value, and its distribution depends on latent "
                    "variables, which can then not be drawn from their prior: give the value to "
                    "the model as an argument, and observe it"
                )


def site_of_x(trace: Trace, args: tuple[Tensor, ...]) -> Any:
    """The site that observes x, or observed it before :class:`SampleObserved` drew it."""
    drawn = {name: site for name, site in latent_sites(trace).items() if was_observed(site)}
    for site in {**observed_sites(trace), **drawn}.values():
        if site["value"].numel() == args[0].numel():
            return site
    raise ValueError(
        f"no observed site of the model holds as many values as its data, {args[0].numel()}"
    )


def reshape_like_x(values: Tensor, site: Any, x: Tensor) -> Tensor:
    """Bring draws or means of a site to the shape of x: data first, then the plates in a datum."""
    distribution = site["fn"]
    values = values.expand((*distribution.batch_shape, *distribution.event_shape))
    return values.movedim(value_rows_dim(site), 0).reshape(x.shape)
