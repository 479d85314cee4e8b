"""Refuse data outside a support, and guides that do not cover the support of the joint."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent, constraints
from torch.distributions.constraints import independent

from ..common.arguments import name_rows
from .cached_flows import log_prob_of
from .kept_rows import check_rows
from .kl import counted
from .log_terms import sum_sites
from .programs import Program, evaluating, plain_errors
from .sites import (
    base_distribution,
    in_data_plate,
    latent_sites,
    observed_sites,
    rows_dim,
    sample_sites,
    value_rows_dim,
)
from .supports import bounds_of, in_support, name_element

SHOWN_NUMBERS = 6
"""Numbers of an event that a message shows, at most."""


def check_support(
    model: Program, guide: Program, args: tuple[Any, ...], name: str, first_row: int = 0
) -> None:
    """Refuse data outside the support of the model's observed sites, or at an edge without density.

    A distribution built with ``validate_args=False`` is not checked: its user allows such values
    (grey values under a Bernoulli, for example).

    Raises:
        ValueError: naming the site, its distribution, the first of those rows and a value; if the
            guide keeps posteriors of other data.
    """
    check_rows(guide, args)
    with (
        explaining_data(model, args, name, first_row),
        explaining_support(model, guide, args),
        pyro.validation_enabled(True),
        plain_errors(),
    ):
        guide_trace = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    _check_values(trace, name, first_row, partial(_support_moves, model, guide, args))


def _check_values(
    trace: Trace, name: str, first_row: int, moves: Callable[[str], bool] | None = None
) -> None:
    """Refuse values of observed sites outside their support, or at an edge without density.

    Args:
        moves: whether the support of a site depends on the latent variables.
    """
    for site_name, site in observed_sites(trace).items():
        distribution, value = site["fn"], site["value"]
        if not _is_validated(distribution) or not in_data_plate(site) or not value.numel():
            continue
        inside = in_support(distribution, value)
        if inside is None:
            continue
        # What is missing is taken for masked: a pair that does not mask it has been refused.
        inside = inside | _is_missing(value, distribution)
        rows_inside = _rows_first(site, inside)
        where = f"{_distribution_name(distribution)} at site {site_name!r}"
        if not rows_inside.all():
            bad = (~rows_inside).nonzero().flatten().cpu().numpy()
            shape = torch.broadcast_shapes(inside.shape, distribution.batch_shape)
            values = value.expand(shape + distribution.event_shape)
            values = values.movedim(value_rows_dim(site), 0)
            found = _outlier(distribution.support, values, int(bad[0]))
            if moves is not None and moves(site_name):
                raise ValueError(
                    f"{name} has values outside the support of {where}, such as {found}, in "
                    f"{name_rows(bad + first_row)}, at a draw of the guide: that support depends "
                    "on the latent variables, so give the guide distributions that stay where the "
                    "data are possible"
                )
            raise ValueError(
                f"{name} has values outside the support of {where}, such as {found}, in "
                f"{name_rows(bad + first_row)}{_advice(distribution)}"
            )
        edge = _edge_without_density(distribution, value)
        counts = counted(site).to(edge.device) if edge.any() else edge
        if counts.shape == edge.shape:  # what a mask leaves out, as padding, may lie anywhere
            edge = edge & counts
        if edge.any():
            event_dim = distribution.event_dim
            at_edge = edge.flatten(-event_dim).any(-1) if event_dim else edge
            bad = (~_rows_first(site, ~at_edge)).nonzero().flatten().cpu().numpy()
            raise ValueError(
                f"{name} has values at the edge of the support of {where}, where its density is "
                f"zero or infinite, such as {value[edge][0].item():.6g}, in "
                f"{name_rows(bad + first_row)}: move them off the edge, or use another likelihood"
            )


def _rows_first(site: Any, flags: Tensor) -> Tensor:
    """Whether all flags of a row are set, (N,)."""
    # An observed value need not have all dimensions of its plates.
    flags = flags.expand(torch.broadcast_shapes(flags.shape, site["fn"].batch_shape))
    return flags.movedim(rows_dim(site), 0).flatten(1).all(1) if flags.dim() > 1 else flags


def _at_rows(site: Any, flags: Tensor) -> Tensor:
    """Flags of rows, (N,) or (), along the batch dimension of a site's rows."""
    return flags.reshape(-1, *[1] * (-rows_dim(site) - 1)) if flags.dim() else flags


def _edge_without_density(distribution: Any, value: Tensor) -> Tensor:
    """Which values lie at the edge of a continuous support and have no finite log density there.

    Zero under a gamma distribution is one: the loss is infinite, and its gradient NaN.
    """
    base = base_distribution(distribution)
    bounds = [getattr(base.support, f"{end}_bound", None) for end in ("lower", "upper")]
    at_edge = torch.zeros_like(value, dtype=torch.bool)
    for bound in bounds if base.event_dim == 0 and not base.support.is_discrete else []:
        at_edge = at_edge if bound is None else at_edge | (value == bound)
    if not at_edge.any():
        return at_edge
    return at_edge & ~base.log_prob(value).isfinite()


@contextlib.contextmanager
def explaining_data(
    model: Program, args: tuple[Any, ...], name: str, first_row: int = 0
) -> Iterator[None]:
    """Explain an error of a pair's networks that data outside a support cause.

    A guide that takes the logarithm of counts, or makes indicators of classes, fails on a negative
    count, or on a class too many, before the model sees it.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        trace = None
        # With validation, or a distribution that its user exempts from it could not be told.
        with (
            torch.random.fork_rng(),
            pyro.validation_enabled(True),
            contextlib.suppress(Exception),  # the model may fail for the same reason
        ):
            trace = poutine.trace(model).get_trace(*args)
        try:
            if trace is not None:
                _check_values(trace, name, first_row)
        except NotImplementedError:  # a user's distribution may have no support
            pass
        except ValueError as outside:
            raise outside from error
        raise


def warn_of_bytes(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Warn that whole numbers up to 255 are the data of a distribution over real numbers."""
    with torch.random.fork_rng(), pyro.validation_enabled(False), plain_errors():
        guide_trace = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    for name, site in observed_sites(trace).items():
        base = base_distribution(site["fn"])
        if getattr(base, "support", None) is constraints.real and site["value"].max() > 1:
            warnings.warn(
                f"the data are bytes, 0 to {site['value'].max().item():.0f}, and {name!r} is "
                f"{_own_name(site['fn'])}: they are taken as they are; give images through "
                "load_data, or divide them by 255",
                stacklevel=3,
            )


def _is_missing(value: Tensor, distribution: Any) -> Tensor:
    """Which elements of a batch are NaN, wholly or in part."""
    missing = value.isnan()
    return missing.flatten(-distribution.event_dim).any(-1) if distribution.event_dim else missing


def explains_missing(model: Program, guide: Program, args: tuple[Tensor, ...]) -> bool:
    """Whether a pair takes NaN: its log terms are finite, as where the model masks such values.

    Pyro's own checks refuse NaN also under a mask, so a pair that does not pass them may have NaN
    only in what the model observes, and not in contexts.
    """
    if _is_finite(model, guide, args, validate=True) is not None:
        return True
    trace = _is_finite(model, guide, args, validate=False)
    missing = [arg for arg in args if arg.is_floating_point() and arg.isnan().any()]
    values = [] if trace is None else [site["value"] for site in observed_sites(trace).values()]
    return trace is not None and all(any(_holds_nan(v, arg) for v in values) for arg in missing)


def _holds_nan(value: Tensor, arg: Tensor) -> bool:
    return value.isnan().sum().item() == arg.isnan().sum().item()


def _is_finite(
    model: Program, guide: Program, args: tuple[Tensor, ...], *, validate: bool
) -> Trace | None:
    """The trace of a model, if all of the pair's log terms are finite."""
    with pyro.validation_enabled(validate), torch.random.fork_rng(), evaluating(model, guide):
        try:
            guide_trace = poutine.trace(guide).get_trace(*args)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
            sites = *sample_sites(guide_trace).values(), *sample_sites(trace).values()
            terms = sum_sites(sites, (1, len(args[0])), False, args[0])
        except Exception:  # a user's program may fail in any way on such values
            return None
    return trace if all(bool(term.isfinite().all()) for term in terms) else None


def check_prior_covers_guide(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Refuse a guide that draws outside the prior's support, where the prior's density is not 0.

    Some densities do not look where they are: a Dirichlet's is a number off the simplex too, and a
    Poisson's between whole numbers. Weights of such draws would be wrong in silence. Where the
    density is 0, as that of Uniform or HalfNormal is, the weights are right.

    Raises:
        ValueError: naming the site, the prior, and a value outside its support.
    """
    with torch.random.fork_rng(), pyro.validation_enabled(False), plain_errors():
        guide_trace = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
        for name, site in latent_sites(trace).items():
            if name not in guide_trace.nodes or bounds_of(site["fn"]):
                continue  # summed out, or looked at when it is scored
            inside = in_support(site["fn"], site["value"])
            if inside is None or inside.all():
                continue
            if (~inside & (log_prob_of(site) != -math.inf) & _counts(site)).any():
                raise ValueError(
                    f"the guide draws {name!r} where the prior, {_own_name(site['fn'])}, has no "
                    f"mass, such as {_beyond(site['fn'], site['value'])}: give the guide a "
                    "distribution with the prior's support"
                )


PRIOR_DRAWS = 20
"""Draws of the prior at which it is seen whether the joint has mass where the guide has none."""


def check_guide_covers_prior(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Refuse a guide that has no mass where the joint p(x, z) has.

    A guide may be narrower than the prior where log p(x, z) is −∞, as Pareto(max(x), …) is for the
    θ of x ~ Uniform(0, θ). This is seen at :data:`PRIOR_DRAWS` draws of the prior.

    Raises:
        ValueError: naming the site, the guide's distribution, and a value outside its support.
    """
    if not narrower_sites(model, guide, args):
        return
    with torch.random.fork_rng(), pyro.validation_enabled(False), plain_errors():
        for _ in range(PRIOR_DRAWS):
            _refuse_missed_mass(model, guide, args)


def narrower_sites(model: Program, guide: Program, args: tuple[Any, ...]) -> list[str]:
    """The latent sites of which a draw of the prior lies where the guide has no mass.

    None is found where a prior has no draws, as ``ImproperUniform``.
    """
    try:
        sites = _both(model, guide, args)
    except NotImplementedError:
        return []
    return [n for n, (q, p) in sites.items() if _beyond(q["fn"], p["value"]) is not None]


def _refuse_missed_mass(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Draw from the prior, and refuse a guide without mass there if the joint has some."""
    trace = poutine.trace(model).get_trace(*args)
    shared, latents = Trace(), latent_sites(trace)
    for name, site in latents.items():
        shared.add_node(name, **site)
    # At the prior's draws: the support of one site may depend on another.
    given = latent_sites(poutine.trace(poutine.replay(guide, trace=shared)).get_trace(*args))
    local, beyond = _has_mass(sample_sites(trace).values())
    everywhere = beyond & local.all()
    for name, q in given.items():
        inside = in_support(q["fn"], latents[name]["value"]) if name in latents else None
        if inside is None or inside.all():
            continue
        missed = ~inside & (_at_rows(q, local & beyond) if in_data_plate(q) else everywhere)
        if missed.any():
            value, support = latents[name]["value"], q["fn"].support
            values = value.expand(missed.shape + q["fn"].event_shape)
            found = _outlier(support, values, tuple(missed.nonzero()[0].tolist()))
            raise ValueError(
                f"the guide's distribution of {name!r}, {_own_name(q['fn'])}, has no mass where "
                f"the prior has, such as at {found}, and the data are possible there: no sample "
                "would ever be drawn there; give the guide a distribution with the prior's support"
            )


def _has_mass(sites: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Whether the densities of sites are above 0: of each datum (N,), and of the other sites ()."""
    local = beyond = torch.tensor(True)
    for site in sites:
        distribution, value = site["fn"], site["value"]
        possible = log_prob_of(site) > -math.inf
        # Some densities are not 0 outside their support, for they do not look where they are.
        if _is_validated(distribution):
            inside = in_support(distribution, value)
            possible = possible if inside is None else possible & inside
        possible = possible | ~_counts(site)
        if in_data_plate(site):
            local = local & _rows_first(site, possible)
        else:
            beyond = beyond & possible.all()
    return local, beyond


def _counts(site: Any) -> Tensor:
    """Whether anything of an event counts, by its masks: (*batch_shape)."""
    found, event_dim = counted(site), site["fn"].event_dim
    return found.flatten(-event_dim).any(-1) if event_dim else found


def _both(model: Program, guide: Program, args: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """Each latent site in the guide and, drawn anew, in the model."""
    with pyro.validation_enabled(False), plain_errors():
        in_guide = latent_sites(poutine.trace(guide).get_trace(*args))
        in_prior = latent_sites(poutine.trace(model).get_trace(*args))
    return {name: (q, in_prior[name]) for name, q in in_guide.items() if name in in_prior}


@contextlib.contextmanager
def explaining_support(model: Program, guide: Program, args: tuple[Any, ...]) -> Iterator[None]:
    """Explain an error that is caused by a guide's draws outside the prior's support.

    Such draws make a model fail later, with an error that does not name the cause.
    """
    try:
        yield
    except (ValueError, RuntimeError):
        both: dict[str, tuple[Any, Any]] = {}
        with contextlib.suppress(Exception):  # they may fail for the same reason
            both = _both(model, guide, args)
        for name, (q, p) in both.items():
            value = _beyond(p["fn"], q["value"])
            if value is not None and "nan" not in value:  # NaN has another cause
                raise ValueError(
                    f"the guide draws {name!r} where the prior, {_own_name(p['fn'])}, has no mass, "
                    f"such as {value}: give the guide a distribution with the prior's support"
                ) from None
        raise


def _beyond(distribution: Any, value: Tensor) -> str | None:
    """A value outside a distribution's support, as text; ``None`` if all are inside."""
    inside = in_support(distribution, value)
    if inside is None or inside.all():
        return None
    first = tuple((~inside).nonzero()[0].tolist())
    values = value.expand(inside.shape + distribution.event_shape)
    return _outlier(distribution.support, values, first)


def _support_moves(model: Program, guide: Program, args: tuple[Any, ...], name: str) -> bool:
    """Whether the support of an observed site depends on the latent variables."""
    found = []
    with pyro.validation_enabled(False):
        for _ in range(2):
            guide_trace = poutine.trace(guide).get_trace(*args)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
            found.append(bounds_of(observed_sites(trace)[name]["fn"]))
    first, again = found
    return any(
        a.shape != b.shape or bool((a != b).any()) for a, b in zip(first, again, strict=True)
    )


def explain_nonfinite(model: Program, guide: Program, args: tuple[Any, ...], runs: int = 20) -> str:
    """Name a site whose log density is not finite, found by running the pair some times."""
    for _ in range(runs):
        with pyro.validation_enabled(False):
            guide_trace = poutine.trace(guide).get_trace(*args)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
        for role, sites in (("guide", latent_sites(guide_trace)), ("model", sample_sites(trace))):
            for name, site in sites.items():
                log_prob = site["fn"].log_prob(site["value"])
                bad = log_prob[~log_prob.isfinite()]
                if len(bad):
                    return (
                        f"the log density of {name!r} in the {role}, {_own_name(site['fn'])}, is "
                        f"{bad[0].item()} at a draw of the guide"
                    )
    return "the model or the guide gives no finite density"


def _is_validated(distribution: Any) -> bool:
    while getattr(distribution, "_validate_args", True) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return bool(getattr(distribution, "_validate_args", True))


def _distribution_name(distribution: Any) -> str:
    return type(base_distribution(distribution)).__name__


def _own_name(distribution: Any) -> str:
    """The name of a distribution as it was written: HalfNormal, not its base, Normal."""
    while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
        distribution = distribution.base_dist
    return type(distribution).__name__


def _outlier(support: Any, values: Tensor, index: int | tuple[int, ...]) -> str:
    """What of a value is outside a support: a number, or the whole event where it is no product."""
    while isinstance(support, independent):
        support = support.base_constraint
    chosen = values[index]
    if not support.event_dim:
        outside = ~support.check(values)[index]
        where = name_element(support, int(outside.nonzero()[0][-1])) if outside.dim() else ""
        return f"{chosen[outside].flatten()[0].item():.6g}{where}"
    numbers = [f"{number:.4g}" for number in chosen.flatten()[:SHOWN_NUMBERS].tolist()]
    more = ", …" if chosen.numel() > SHOWN_NUMBERS else ""
    return f"({', '.join(numbers)}{more})"


def _advice(distribution: Any) -> str:
    if _distribution_name(distribution) == "Bernoulli":
        return ": load them with binarize='dynamic' or 'static', or use a Normal likelihood"
    return ": use a likelihood whose support holds them"
