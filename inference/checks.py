"""What is refused before any work is done, each in one clear line."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyro
from pyro import poutine
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from .pairs import Program, plain_errors
from .terms import base_law, latent_sites, observed_sites, sample_sites


def check_least(given: Mapping[str, tuple[int, int]]) -> None:
    """Refuse numbers that are too small.

    Args:
        given: by name, what was given, and the least that will do.

    >>> check_least({"num_chains": (1, 2)})
    Traceback (most recent call last):
    ValueError: num_chains must be at least 2, got 1
    """
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_finite(values: Any, name: str, first_row: int = 0) -> None:
    """Refuse rows that hold NaN or infinity, and say which.

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        bad = _rows_where(~np.isfinite(array))
        if len(bad):
            raise ValueError(f"{name} holds NaN or infinity in {name_rows(bad + first_row)}")


def check_unit_interval(values: np.ndarray, name: str, first_row: int = 0) -> None:
    """Refuse to binarize values outside [0, 1].

    Raises:
        ValueError: naming the first of those rows and their number.
    """
    bad = _rows_where((values < 0) | (values > 1))
    if len(bad):
        raise ValueError(
            f"{name} cannot be binarized: values outside [0, 1] in {name_rows(bad + first_row)}; "
            "rescale them, or leave binarize out (on the command line, take vae-normal)"
        )


def _rows_where(flags: np.ndarray) -> np.ndarray:
    """Numbers of the rows in which any flag is set."""
    return np.flatnonzero(flags.any(axis=tuple(range(1, flags.ndim))))


def name_rows(rows: np.ndarray, most: int = 5) -> str:
    """Row numbers in words, the first few of them.

    >>> name_rows(np.array([3])), name_rows(np.arange(7))
    ('row 3, counted from 0', 'rows 0, 1, 2, 3, 4, … (7 in all), counted from 0')
    """
    shown = ", ".join(str(row) for row in rows[:most])
    more = f", … ({len(rows)} in all)" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}, counted from 0"


def check_support(
    model: Program, guide: Program, args: tuple[Any, ...], name: str, first_row: int = 0
) -> None:
    """Refuse data outside the support of the model's observed sites.

    A distribution built with ``validate_args=False`` says that its user means it (grey
    values under a Bernoulli, say), and is not checked.

    Raises:
        ValueError: naming the site, its distribution, the first of those rows and a value.
    """
    with reaching(model, guide, args), pyro.validation_enabled(True), plain_errors():
        guide_trace = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    for site_name, site in observed_sites(trace).items():
        law, value = site["fn"], site["value"]
        if not _is_validated(law) or not value.dim() or len(value) != len(args[0]):
            continue
        inside = law.support.check(value).reshape(len(value), -1).all(1)
        if not inside.all():
            bad = (~inside).nonzero().flatten().cpu().numpy()
            raise ValueError(
                f"{name} has values outside the support of {_law_name(law)} at site "
                f"{site_name!r}, {_outlier(law, value[int(bad[0])])} for one, in "
                f"{name_rows(bad + first_row)}{_advice(law)}"
            )


def check_reach(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Refuse a guide that has no mass where the prior has some.

    Raises:
        ValueError: naming the site, the guide's law, and a value that it does not reach.
    """
    for name, (q, p) in _both(model, guide, args).items():
        value = _beyond(q["fn"], p["value"])
        if value is not None:
            raise ValueError(
                f"the guide's law of {name!r}, {_own_name(q['fn'])}, has no mass where the prior "
                f"has, at {value:.4g} for one: no sample would show what lies there; give the "
                "guide a law of the prior's support"
            )


def _both(model: Program, guide: Program, args: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
    """Each latent site in the guide and, drawn anew, in the model."""
    with pyro.validation_enabled(False), plain_errors():
        in_guide = latent_sites(poutine.trace(guide).get_trace(*args))
        in_prior = latent_sites(poutine.trace(model).get_trace(*args))
    return {name: (q, in_prior[name]) for name, q in in_guide.items() if name in in_prior}


@contextlib.contextmanager
def reaching(model: Program, guide: Program, args: tuple[Any, ...]) -> Iterator[None]:
    """Say so where an error comes of values that a prior knows nothing of: they break a model
    further on, in words that do not tell the cause."""
    try:
        yield
    except (ValueError, RuntimeError):
        for name, (q, p) in _both(model, guide, args).items():
            value = _beyond(p["fn"], q["value"])
            if value is not None and value == value:  # NaN has a cause of its own
                raise ValueError(
                    f"the guide draws {name!r} where the prior, {_own_name(p['fn'])}, has no mass, "
                    f"at {value:.4g} for one: give the guide a law of the prior's support"
                ) from None
        raise


def _beyond(law: Any, value: Tensor) -> float | None:
    """One of the values that lie outside of a law's support; ``None`` if all are inside."""
    try:
        inside = law.support.check(value)
    except NotImplementedError:  # a law of one's own need not say where its values lie
        return None
    if inside.all():
        return None
    outside = value[~inside] if inside.shape == value.shape[: inside.dim()] else value
    return outside.flatten()[0].item()


def blame(model: Program, guide: Program, args: tuple[Any, ...], runs: int = 20) -> str:
    """Which site's log density is not finite, in words, found by some runs of the pair."""
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
                        f"{bad[0].item()} at what the guide draws"
                    )
    return "the model or the guide gives them no finite density"


def _is_validated(law: Any) -> bool:
    while getattr(law, "_validate_args", True) and hasattr(law, "base_dist"):
        law = law.base_dist
    return bool(getattr(law, "_validate_args", True))


def _law_name(law: Any) -> str:
    return type(base_law(law)).__name__


def _own_name(law: Any) -> str:
    """The name of a law as it was written: HalfNormal, not the Normal that it is made of."""
    while isinstance(law, Independent | ExpandedDistribution | MaskedDistribution):
        law = law.base_dist
    return type(law).__name__


def _outlier(law: Any, datum: Tensor) -> str:
    values = datum.reshape(-1)
    outside = ~base_law(law).support.check(values)
    return f"{values[outside][0].item():.6g}" if outside.any() else "the whole datum"


def _advice(law: Any) -> str:
    if _law_name(law) == "Bernoulli":
        return ": load them with binarize='dynamic' or 'static', or use a Normal likelihood"
    return ": use a likelihood of that support"
