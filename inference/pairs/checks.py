"""Refuse data outside a support, and guides that do not cover the prior's support."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from ..common.arguments import name_rows
from .log_terms import sum_sites
from .programs import Program, evaluating, plain_errors
from .sites import base_distribution, latent_sites, observed_sites, sample_sites


def check_support(
    model: Program, guide: Program, args: tuple[Any, ...], name: str, first_row: int = 0
) -> None:
    """Refuse data outside the support of the model's observed sites.

    A distribution built with ``validate_args=False`` is not checked: its user allows such values
    (grey values under a Bernoulli, for example).

    Raises:
        ValueError: naming the site, its distribution, the first of those rows and a value.
    """
    with explaining_support(model, guide, args), pyro.validation_enabled(True), plain_errors():
        guide_trace = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    for site_name, site in observed_sites(trace).items():
        distribution, value = site["fn"], site["value"]
        if not _is_validated(distribution) or not value.dim() or len(value) != len(args[0]):
            continue
        inside = distribution.support.check(value).reshape(len(value), -1).all(1)
        if not inside.all():
            bad = (~inside).nonzero().flatten().cpu().numpy()
            raise ValueError(
                f"{name} has values outside the support of {_distribution_name(distribution)} at "
                f"site {site_name!r}, such as {_outlier(distribution, value[int(bad[0])])}, in "
                f"{name_rows(bad + first_row)}{_advice(distribution)}"
            )


def explains_missing(model: Program, guide: Program, args: tuple[Tensor, ...]) -> bool:
    """Whether all log terms are finite, as where the model masks values that are NaN."""
    with pyro.validation_enabled(False), torch.random.fork_rng(), evaluating(model, guide):
        try:
            guide_trace = poutine.trace(guide).get_trace(*args)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
        except Exception:  # a user's program may fail in any way on such values
            return False
        sites = *sample_sites(guide_trace).values(), *sample_sites(trace).values()
        terms = sum_sites(sites, (1, len(args[0])), False, args[0])
        return all(bool(term.isfinite().all()) for term in terms)


def check_guide_covers_prior(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Refuse a guide whose support is smaller than the prior's.

    Raises:
        ValueError: naming the site, the guide's distribution, and a value outside its support.
    """
    for name, (q, p) in _both(model, guide, args).items():
        value = _beyond(q["fn"], p["value"])
        if value is not None:
            raise ValueError(
                f"the guide's distribution of {name!r}, {_own_name(q['fn'])}, has no mass where "
                f"the prior has, such as at {value:.4g}: no sample would ever be drawn there; give "
                "the guide a distribution with the prior's support"
            )


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
        for name, (q, p) in _both(model, guide, args).items():
            value = _beyond(p["fn"], q["value"])
            if value is not None and value == value:  # NaN has another cause
                raise ValueError(
                    f"the guide draws {name!r} where the prior, {_own_name(p['fn'])}, has no mass, "
                    f"such as {value:.4g}: give the guide a distribution with the prior's support"
                ) from None
        raise


def _beyond(distribution: Any, value: Tensor) -> float | None:
    """A value outside a distribution's support; ``None`` if all are inside."""
    try:
        inside = distribution.support.check(value)
    except NotImplementedError:  # a user's distribution may have no support
        return None
    if inside.all():
        return None
    outside = value[~inside] if inside.shape == value.shape[: inside.dim()] else value
    return outside.flatten()[0].item()


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


def _outlier(distribution: Any, datum: Tensor) -> str:
    values = datum.reshape(-1)
    outside = ~base_distribution(distribution).support.check(values)
    return f"{values[outside][0].item():.6g}" if outside.any() else "the whole datum"


def _advice(distribution: Any) -> str:
    if _distribution_name(distribution) == "Bernoulli":
        return ": load them with binarize='dynamic' or 'static', or use a Normal likelihood"
    return ": use a likelihood whose support holds them"
