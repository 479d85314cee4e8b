"""What a pair says of data: posterior means, reconstructions, and samples of its prior."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from .data import Data
from .pairs import Program, evaluating, place, placement, plain_errors
from .rows import BLOCK, as_rows, epoch_seed
from .terms import in_data_plate, inspect_pair, latent_sites, observed_sites, sample_sites

MEAN_DRAWS = 1000
"""Runs whose average stands for a posterior mean that has no closed form: its noise, a
thousandth of the posterior's variance, is well below what makes a unit active."""

SIMULATED = 1000
"""Data drawn from the model at once."""

CHECKED = 100
"""Real data by which it is seen whether a model observes x itself."""


def posterior_means(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """E_q[z|x] of each latent site, (N, *event_shape), on CPU.

    Exact for a guide of one site that knows its mean; else an average over
    :data:`MEAN_DRAWS` runs of the guide (of a discrete site, of its codes).
    """
    rows = as_rows(data, "data")
    device, dtype = placement(model, guide)
    blocks: list[dict[str, Tensor]] = []
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        for start in range(0, len(rows[0]), BLOCK):
            args = place(tuple(part[start : start + BLOCK] for part in rows), device, dtype)
            blocks.append(_block_means(guide, args))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _block_means(guide: Program, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    sites = latent_sites(poutine.trace(guide).get_trace(*args))
    means = {name: _mean(site) for name, site in sites.items()}
    runs = 1 if len(sites) == 1 and all(exact for _, exact in means.values()) else MEAN_DRAWS
    total = {name: value for name, (value, _) in means.items()}
    for _ in range(runs - 1):
        for name, site in latent_sites(poutine.trace(guide).get_trace(*args)).items():
            total[name] = total[name] + _mean(site)[0]
    return {name: (value / runs).cpu() for name, value in total.items()}


def reconstruct(model: Program, guide: Program, data: Any) -> Tensor:
    """E[x|z] at one draw z ~ q(z|x) of each datum, in the shape of the data, on CPU.

    A draw x ~ p(x|z), where the law of x knows no mean.
    """
    args = _args(model, guide, data)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        trace = poutine.trace(guide).get_trace(*args)
        return _observed_mean(poutine.replay(model, trace=trace), args)


def decode(model: Program, guide: Program, values: dict[str, Tensor], like: Any) -> Tensor:
    """E[x|z] at given values z of the latent sites, each (N, *event_shape), on CPU.

    A draw x ~ p(x|z), where the law of x knows no mean.

    Args:
        like: data whose shape, and context, the result takes; x's values do not matter. Where it
            has fewer rows than there are values, they are taken again in turn.
    """
    num_rows = len(next(iter(values.values())))
    args = _like(model, guide, like, num_rows)
    trace = Trace()
    for name, value in values.items():
        (value,) = place((value,), *placement(model, guide))
        trace.add_node(name, type="sample", is_observed=False, value=value, infer={})
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        return _observed_mean(poutine.replay(model, trace=trace), args)


def sample_prior(
    model: Program, guide: Program, num: int, like: Any, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw z ~ p(z) and x ~ p(x|z), ``num`` times.

    Args:
        like: data whose shape, and context, the draws take; x's values do not matter.

    Returns:
        The means E[x|z], or the draws again where the law of x knows none, and the draws x,
        each (num, *event_shape), on CPU.
    """
    if num < 1:
        raise ValueError(f"the number of samples must be at least 1, got {num}")
    args = _like(model, guide, like, num)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        with plain_errors():
            prior = poutine.trace(_Unobserved()(model)).get_trace(*args)
    site, shape = _main_site(prior, args), args[0].shape
    return _mean(site)[0].reshape(shape).cpu(), site["value"].reshape(shape).cpu()


def simulate(
    model: Program, guide: Program, like: Any, num: int, *, seed: int = 0
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Draw z* ~ p(z), x* ~ p(x|z*), ``num`` times: data whose latent variables are known.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites; nothing is drawn from it.
        like: data whose shape, and contexts in turn, the draws take; x's values do not matter. Of
            what :func:`load_data` returns, the test part.
        num: how many, at least 1.
        seed: of the draws.

    Returns:
        The arguments (x*, *context) as the pair takes them, x* of shape (num, *event_shape), on
        the pair's device; and each latent site's values by name, (num, *event_shape), after the
        site's plates inside a datum, if any.

    Raises:
        ValueError: if ``num`` < 1, the data cannot be used, a site stands outside the data plate,
            or the model does not say how x comes about: it observes something other than x, or
            more than x, or the law of x is written with x itself.

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
    rows = as_rows(like.rows("test") if isinstance(like, Data) else like, "data")
    device, dtype = placement(model, guide)
    xs: list[tuple[Tensor, ...]] = []
    values: list[dict[str, tuple[Tensor, int]]] = []

    def given(start: int, stop: int) -> tuple[Tensor, ...]:
        index = torch.arange(start, stop) % len(rows[0])
        return place(tuple(part[index] for part in rows), device, dtype)

    with evaluating(model, guide), torch.random.fork_rng():
        _check_generative(model, guide, given(0, min(len(rows[0]), CHECKED)))
        # A stream of its own: whoever draws from the guide by the same seed would else meet
        # the very noise that z* was made of.
        torch.manual_seed(epoch_seed(seed, 0))
        for start in range(0, num, SIMULATED):
            args, sites = _simulate_block(model, given(start, min(num, start + SIMULATED)))
            if start == 0:
                _check_own_law(model, args, sites)
            xs.append(args)
            values.append({n: _along_data(s) for n, s in sites.items() if not _was_observed(s)})
    drawn = {
        name: torch.cat([block[name][0] for block in values], data_dim)
        for name, (_, data_dim) in values[0].items()
    }
    return tuple(torch.cat(part) for part in zip(*xs, strict=True)), drawn


def _along_data(site: Any) -> tuple[Tensor, int]:
    """A site's value, and along which of its dimensions the data lie."""
    return site["value"], site["value"].dim() - site["fn"].event_dim - 1


def _simulate_block(
    model: Program, args: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Arguments with a drawn x, and the sites that were drawn, that of x among them."""
    with pyro.validation_enabled(False), plain_errors():
        drawn = poutine.trace(_Unobserved()(model)).get_trace(*args)
    x = _main_site(drawn, args)["value"].reshape(args[0].shape).to(args[0])
    return (x, *args[1:]), latent_sites(drawn)


class _Unobserved(UnconditionMessenger):
    """Let a program draw what it observes.

    A deterministic site is left alone: drawn, a plate would spread its values once more.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


def _check_generative(model: Program, guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a model from which x cannot be drawn datum by datum."""
    with pyro.validation_enabled(False):  # the values of x do not matter
        structure = inspect_pair(model, guide, args)
        trace = poutine.trace(model).get_trace(*args)
    for name in (*structure.global_latents, *structure.observed_outside):
        raise ValueError(
            f"the site {name!r} stands outside the plate 'data': data and their latent variables "
            "are simulated one by one, which needs them to be independent"
        )
    observed = {name: s for name, s in observed_sites(trace).items() if in_data_plate(s)}
    for name in sorted(name for name, site in observed.items() if _holds(site, args[0])):
        del observed[name]
        for other in observed:
            raise ValueError(
                f"the model observes {other!r} beside x, at {name!r}: it does not say how x alone "
                "comes about, so data cannot be simulated from it"
            )
        return
    raise ValueError(
        f"the model observes something other than x at {next(iter(observed))!r}, so data cannot be "
        "simulated from it: transform x before it is given to the model"
    )


def _holds(site: Any, x: Tensor) -> bool:
    """Whether a site observes x itself."""
    value = site["value"]
    return value.numel() == x.numel() and torch.equal(value.reshape(x.shape).to(x), x)


def _was_observed(site: Any) -> bool:
    return bool(site["infer"].get("was_observed"))


def _check_own_law(model: Program, args: tuple[Tensor, ...], sites: dict[str, Any]) -> None:
    """Refuse a model whose law of x was made from the x it was given: x* is then no draw of it."""
    trace = Trace()
    for name, site in sites.items():
        if not _was_observed(site):
            trace.add_node(name, type="sample", is_observed=False, value=site["value"], infer={})
    with pyro.validation_enabled(False), plain_errors():
        again = poutine.trace(poutine.replay(model, trace=trace)).get_trace(*args)
    name, drawn = next((name, site) for name, site in sites.items() if _was_observed(site))
    before = drawn["fn"].log_prob(drawn["value"])
    after = sample_sites(again)[name]["fn"].log_prob(drawn["value"])
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"the law at {name!r} depends on the x that the model is given: x cannot be drawn from "
            "it at once, so data cannot be simulated"
        )


def _args(model: Program, guide: Program, data: Any) -> tuple[Tensor, ...]:
    rows = as_rows(data, "data")
    return place(tuple(part[: len(part)] for part in rows), *placement(model, guide))


def _like(model: Program, guide: Program, like: Any, num: int) -> tuple[Tensor, ...]:
    """Arguments of ``num`` rows, in the shape of some data."""
    rows = as_rows(like, "data")
    index = torch.arange(num) % len(rows[0])
    return place(tuple(part[index] for part in rows), *placement(model, guide))


def _observed_mean(program: Program, args: tuple[Tensor, ...]) -> Tensor:
    with plain_errors():
        site = _main_site(poutine.trace(program).get_trace(*args), args)
    mean, known = _mean(site)
    if not known:  # a draw, then: a law of classes has no mean, nor one of pixels in turn
        mean = site["fn"].sample()
    return mean.to(torch.get_default_dtype()).reshape(args[0].shape).cpu()


def _main_site(trace: Trace, args: tuple[Tensor, ...]) -> Any:
    """The site that observes x, or did before its observation was taken away."""
    was_observed = {
        name: site
        for name, site in latent_sites(trace).items()
        if site["infer"].get("was_observed") and not site["infer"].get("_deterministic")
    }
    for site in {**observed_sites(trace), **was_observed}.values():
        if site["value"].numel() == args[0].numel():
            return site
    raise ValueError(
        f"no observed site of the model holds as many values as its data, {args[0].numel()}"
    )


def _mean(site: Any) -> tuple[Tensor, bool]:
    """A site's mean given its parents, or where its law knows none its value; and which it is."""
    try:
        mean = site["fn"].mean
        if mean.isfinite().all():
            return mean, True
    except NotImplementedError:  # a flow, say
        pass
    return site["value"].to(torch.get_default_dtype()), False
