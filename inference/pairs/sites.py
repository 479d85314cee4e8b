"""The sample sites of a trace by role: latent, observed, deterministic; local or global."""

from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace

DATA_PLATE = "data"


def sample_sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace, by name, without the indices that plates draw."""
    nodes: dict[str, Any] = dict(trace.nodes)
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample)
    }


def latent_sites(trace: Trace) -> dict[str, Any]:
    """The unobserved sample sites of a trace, by name."""
    return {n: site for n, site in sample_sites(trace).items() if not site["is_observed"]}


def observed_sites(trace: Trace) -> dict[str, Any]:
    """The observed sites of a trace that hold data, by name, without deterministic ones."""
    return {
        name: site
        for name, site in sample_sites(trace).items()
        if site["is_observed"] and not is_deterministic(site)
    }


def deterministic_sites(trace: Trace) -> dict[str, Any]:
    """The sites of a trace whose values follow from other sites, by name.

    These are the sites of ``pyro.deterministic``, and latent sites that ``poutine.reparam`` has
    rewritten as a function of others. Pyro marks both as observed.
    """
    return {name: site for name, site in sample_sites(trace).items() if is_deterministic(site)}


def is_deterministic(site: Any) -> bool:
    """Whether a site's value follows from other sites: a ``Delta`` whose density is masked."""
    distribution = site["fn"]
    masked = isinstance(distribution, MaskedDistribution) and distribution._mask is False
    return bool(
        site["infer"].get("_deterministic")
        or (site["is_observed"] and masked and isinstance(base_distribution(distribution), Delta))
    )


def check_prior_has_draws(trace: Trace) -> None:
    """Refuse a model whose prior is masked away: a draw of the masked distribution is none of it.

    Raises:
        ValueError: with the name of a latent site whose mask is ``False``, a flat prior. A mask of
            some elements, as for the padding of a sequence, is none.
    """
    for name, site in latent_sites(trace).items():
        masks, distribution = [site["mask"]], site["fn"]
        while hasattr(distribution, "base_dist"):
            masks.append(getattr(distribution, "_mask", None))
            distribution = distribution.base_dist
        numbers = [torch.as_tensor(mask) for mask in masks if mask is not None]
        is_flat = any(not mask.dim() and not mask for mask in numbers)
        if is_flat and not site["infer"].get("was_observed"):
            raise ValueError(
                f"the prior of {name!r} is masked, so it has no draws: nothing can be drawn from "
                "it, or compared with it"
            )


def base_distribution(distribution: Any) -> Any:
    """The distribution behind ``to_event``, ``expand`` and masks."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def in_data_plate(site: Any) -> bool:
    """Whether a site lies inside the plate named ``"data"``."""
    return any(frame.name == DATA_PLATE for frame in site["cond_indep_stack"])


def rows_dim(site: Any) -> int:
    """The batch dimension along which a site's rows lie, counted from the right: −1, −2, …

    Raises:
        ValueError: if the site is not inside the data plate.
    """
    for frame in site["cond_indep_stack"]:
        if frame.name == DATA_PLATE:
            return frame.dim
    raise ValueError(f"the site {site['name']!r} is not inside the plate {DATA_PLATE!r}")


def value_rows_dim(site: Any) -> int:
    """The dimension of a site's value along which its rows lie, counted from the right."""
    return rows_dim(site) - site["fn"].event_dim


def nesting_of(*traces: Trace) -> int:
    """The number of batch dimensions of the plates in traces, counted from the right."""
    return max(
        (
            -frame.dim
            for trace in traces
            for site in sample_sites(trace).values()
            for frame in site["cond_indep_stack"]
            if frame.dim is not None
        ),
        default=0,
    )


def global_latent_sites(trace: Trace) -> Trace:
    """The global latent sites of a trace: those outside the data plate, which all data share."""
    shared = Trace()
    for name, site in latent_sites(trace).items():
        if not in_data_plate(site) and not site["infer"].get("was_observed"):
            shared.add_node(name, **site)
    return shared
