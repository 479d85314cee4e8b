"""Simulate data from a model, together with their latent variables."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from ..data.arguments import open_pair
from ..data.batches import epoch_seed
from ..pairs.calling import is_one_datum
from ..pairs.inspection import inspect_pair
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import (
    in_data_plate,
    is_deterministic,
    latent_sites,
    observed_sites,
    sample_sites,
    value_rows_dim,
)

SIMULATED_ROWS_AT_ONCE = 1000
"""Rows that one run of the model simulates."""


CHECKED_ROWS = 100
"""Real rows on which it is checked that the model observes x itself."""


def simulate(
    model: Program, guide: Program, like: Any, num: int, *, seed: int = 0
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Simulate data whose latent variables are known: z* ~ p(z), x* ~ p(x|z*), ``num`` times.

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
            or the model does not define how x is generated: it observes something other than x,
            or more than x, or the distribution of x depends on x itself.

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
    model, guide, rows = open_pair(model, guide, like)
    device, dtype = placement(model, guide)
    xs: list[tuple[Tensor, ...]] = []
    values: list[dict[str, tuple[Tensor, int]]] = []

    def given(start: int, stop: int) -> tuple[Tensor, ...]:
        index = torch.arange(start, stop) % len(rows[0])
        return place(tuple(part[index] for part in rows), device, dtype)

    with evaluating(model, guide), torch.random.fork_rng():
        _check_generative(model, guide, given(0, min(len(rows[0]), CHECKED_ROWS)))
        # Another seed than the caller's: a guide drawn with that seed would else use the same
        # noise as z*.
        torch.manual_seed(epoch_seed(seed, 0))
        # Where a datum is a whole data set, each is a run of its own.
        at_once = 1 if is_one_datum(model) else SIMULATED_ROWS_AT_ONCE
        for start in range(0, num, at_once):
            stop = min(num, start + at_once)
            args, sites = simulate_block(model, given(start, stop))
            if start == 0:
                check_distribution_ignores_x(model, args, sites)
            xs.append(args)
            values.append(
                {n: _value_and_data_dim(s) for n, s in sites.items() if not was_observed(s)}
            )
    drawn = {
        name: torch.cat([block[name][0] for block in values], data_dim)
        for name, (_, data_dim) in values[0].items()
    }
    return tuple(torch.cat(part) for part in zip(*xs, strict=True)), drawn


def _value_and_data_dim(site: Any) -> tuple[Tensor, int]:
    """The value of a site, and its data dimension."""
    return site["value"], site["value"].dim() + value_rows_dim(site)


def simulate_block(
    model: Program, args: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Simulate one block of rows.

    Returns:
        the arguments with a drawn x, and all drawn sites by name, that of x included.
    """
    with pyro.validation_enabled(False), plain_errors():
        drawn = poutine.trace(SampleObserved()(model)).get_trace(*args)
    site = site_of_x(drawn, args)
    x = reshape_like_x(site["value"], site, args[0]).to(args[0])
    return (x, *args[1:]), latent_sites(drawn)


class SampleObserved(UnconditionMessenger):
    """Pyro handler under which a program draws its observed sites.

    A deterministic site is left alone: if it were drawn, a plate would expand its values again.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if not is_deterministic(msg):
            super()._pyro_sample(msg)


def _check_generative(model: Program, guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a model from which x cannot be simulated datum by datum."""
    with pyro.validation_enabled(False):  # the values of x do not matter
        structure = inspect_pair(model, guide, args)
        trace = poutine.trace(model).get_trace(*args)
    for name in (*structure.global_latents, *structure.observed_outside):
        raise ValueError(
            f"the site {name!r} stands outside the plate 'data', but data and their latent "
            "variables are simulated one by one, so they must be independent"
        )
    observed = {name: s for name, s in observed_sites(trace).items() if in_data_plate(s)}
    for name in sorted(name for name, site in observed.items() if holds(site, args[0])):
        check_unmasked(name, observed[name])
        del observed[name]
        for other in observed:
            raise ValueError(
                f"the model observes {other!r} beside x, at {name!r}: it does not define how x "
                "alone is generated, so data cannot be simulated from it"
            )
        return
    raise ValueError(
        f"the model observes something other than x at {next(iter(observed))!r}, so data cannot be "
        "simulated from it: transform x before it is given to the model"
    )


def holds(site: Any, x: Tensor) -> bool:
    """Whether a site observes x itself."""
    value = site["value"]
    return value.numel() == x.numel() and torch.equal(reshape_like_x(value, site, x).to(x), x)


def check_unmasked(name: str, site: Any) -> None:
    """Refuse a site of x that is partly masked: the model does not define x there.

    Raises:
        ValueError: with the name of the site.
    """
    distribution = site["fn"]
    masks = [site["mask"]]
    while hasattr(distribution, "base_dist"):
        masks.append(getattr(distribution, "_mask", None))
        distribution = distribution.base_dist
    if any(mask is not None and not torch.as_tensor(mask).all() for mask in masks):
        raise ValueError(
            f"{name!r} is masked for some data: the model does not define x there, so x cannot be "
            "simulated from it"
        )


def was_observed(site: Any) -> bool:
    """Whether a site was observed before :class:`SampleObserved` drew it."""
    return bool(site["infer"].get("was_observed"))


def check_distribution_ignores_x(
    model: Program, args: tuple[Tensor, ...], sites: dict[str, Any]
) -> None:
    """Refuse a model whose distribution of x depends on the x it is given.

    The drawn x* would not be a draw from that distribution.
    """
    trace = Trace()
    for name, site in sites.items():
        if not was_observed(site):
            trace.add_node(name, type="sample", is_observed=False, value=site["value"], infer={})
    with pyro.validation_enabled(False), plain_errors():
        again = poutine.trace(poutine.replay(model, trace=trace)).get_trace(*args)
    name, drawn = next((name, site) for name, site in sites.items() if was_observed(site))
    before = drawn["fn"].log_prob(drawn["value"])
    after = sample_sites(again)[name]["fn"].log_prob(drawn["value"])
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"the distribution at {name!r} depends on the x that the model is given: x cannot be "
            "drawn from it at once, so data cannot be simulated"
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
