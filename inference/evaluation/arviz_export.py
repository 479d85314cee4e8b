"""A pair's draws as an ArviZ ``DataTree``: named, to be plotted, summarized and stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from ..common.progress import progress
from ..data.datasets import evaluation_rows
from ..evidence.pareto_smoothing import summarize_weights
from ..pairs.checks import check_support, explain_nonfinite
from ..pairs.inspection import inspect_drawn
from ..pairs.log_terms import Draws, draw, read_terms, sum_sites, trace_model
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import (
    deterministic_sites,
    in_data_plate,
    is_deterministic,
    latent_sites,
    observed_sites,
)
from ..pairs.structure import Structure
from ..simulation.simulate import Unobserved, holds

if TYPE_CHECKING:
    from xarray import DataTree


DATUM_DIM = "datum"
"""The dimension of the data."""


MAX_TREE_BYTES = 2_000_000_000
"""The most bytes that the draws may take."""


DRAWS_AT_ONCE = 2_000
"""Rows that the model is run on at once, or one draw of all data, if these are more."""


@dataclass(frozen=True)
class _Values:
    """The values of a site at S draws."""

    value: Tensor
    """(S, N, *plates, *event); without N, where the site stands outside the data plate."""
    plates: list[str]
    """Names of the plates within a datum, or beside all data."""
    local: bool
    """Whether the site stands in the data plate."""


Groups = dict[str, dict[str, _Values]]


def to_datatree(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 200,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> "DataTree":
    """S draws of a pair's posterior and prior, and what they predict, in ArviZ's form.

    A ``DataTree`` of these groups, with S = ``draw`` of one ``chain``, and N = ``datum``:

    - ``posterior``: each latent site, (chain, draw, datum, *plates, *event), drawn from the guide,
      and each that follows from them, by ``pyro.deterministic`` or ``poutine.reparam``; a site
      outside the data plate without ``datum``;
    - ``log_likelihood``: log p(x|z) of each observed site, in nats, (chain, draw, datum);
    - ``sample_stats``: ``log_weight`` = log p(x, z) − log q(z|x) of each datum's own variables,
      (chain, draw, datum); ``lp`` = log p and ``log_q`` = log q of all together, (chain, draw);
    - ``evidence``: of the same weights, ``log_px`` with its ``standard_error``, ``ess``, ``khat``
      and ``log_px_smoothed``, (datum), as in :class:`Evidence`; only where all sites stand in the
      data plate;
    - ``prior``, ``prior_predictive``, ``posterior_predictive``: latent and observed sites, drawn;
    - ``observed_data``, and ``constant_data`` with the contexts by their position, as
      ``context_1``, …; ``context_0``, where they come before the x that the model observes.

    Draws are independent and of one chain, so ESS has nothing to find in them, and R̂ is NaN; what
    says whether the guide is right is ``khat``. ``log_likelihood`` is given z found from x itself,
    so leave-one-out over local latent variables by it means little: see :func:`psis_loo`. Where the
    distribution of x is written with x itself, as in a model of each value from the ones before,
    ``*_predictive`` draws follow the x that is given. A guide that is a point has no density: then
    there is no ``evidence``, and in ``sample_stats`` only ``lp``.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or (x, *context); the test part, of what :func:`load_data`
            returns.
        num_samples: S.
        coords: labels along dimensions, by the dimension's name (``"datum"``, a plate's, or one of
            ``dims``); 0, 1, … where not given.
        dims: names of the event dimensions of a site, or of a context, by its name;
            ``"<site>_dim_0"``, … where not given.
        seed: of the draws.
        show_progress: show the draws done.

    Raises:
        ValueError: if S < 1, the data cannot be used, the draws would take more than 2 GB, ``dims``
            or ``coords`` do not fit the sites, the pair sums a site out, or a weight is not finite.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x[:, None] / 3 * torch.ones(2), 0.8).to_event(1))
    >>> tree = to_datatree(
    ...     model, guide, torch.zeros(3), dims={"z": ["axis"]}, coords={"axis": ["up", "right"]}
    ... )
    >>> tree.posterior["z"].dims
    ('chain', 'draw', 'datum', 'axis')
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    rows = evaluation_rows(data)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        torch.manual_seed(seed)
        check_support(model, guide, args, "data")
        structure = inspect_drawn(model, guide, args)
        with pyro.validation_enabled(False), plain_errors():
            constant = _constant_groups(model, guide, args, structure)
            one = _draw_groups(model, guide, args, structure, 1)
            layout = _layout({**constant, **one}, coords or {}, dims or {})
            _check_memory(one, num_samples, len(args[0]))
            groups = _held(one, num_samples)
            size = _draws_together(len(args[0]), num_samples, structure)
            with progress("draws", num_samples, show=show_progress) as advance:
                for start in range(0, num_samples, size):
                    count = min(size, num_samples - start)
                    part = _draw_groups(model, guide, args, structure, count)
                    for group, sites in part.items():
                        for name, site in sites.items():
                            groups[group][name].value[start : start + count] = site.value
                    advance(count, f"{start + count} of {num_samples} draws")
    weights = groups["sample_stats"].get("log_weight")
    whole = not structure.global_latents and not structure.observed_outside
    if weights is not None and whole and num_samples > 1:
        try:
            figures = summarize_weights(weights.value)
        except ValueError as error:
            with evaluating(model, guide), torch.random.fork_rng():
                raise ValueError(f"{error}: {explain_nonfinite(model, guide, args)}") from error
        constant["evidence"] = {
            name: _Values(value[None], [], True) for name, value in figures.items()
        }
    return _tree(groups, constant, layout, coords or {}, num_samples)


def _draws_together(num_data: int, num_samples: int, structure: Structure) -> int:
    """How many draws are made at once: one, where each is of other shared variables."""
    return 1 if structure.global_latents else min(num_samples, max(1, DRAWS_AT_ONCE // num_data))


def _draw_groups(
    model: Program, guide: Program, args: tuple[Tensor, ...], structure: Structure, count: int
) -> Groups:
    """Some draws, by group and site."""
    draws = draw(guide, args, count, structure)
    trace = trace_model(model, draws)
    terms = read_terms(trace, draws)
    shape = (draws.num_samples, draws.num_data)

    def summed(site: Any) -> _Values:
        return _Values(sum_sites([site], shape, draws.plated, args[0])[0].cpu(), [], True)

    known = {**latent_sites(trace), **deterministic_sites(trace)}
    log_joint = terms.log_likelihood + terms.log_prior
    log_p = log_joint.double().sum(1) + terms.log_prior_global
    stats = {"lp": _Values(log_p.cpu(), [], False)}
    if not structure.points:
        log_q = terms.log_posterior.double().sum(1) + terms.log_posterior_global
        stats["log_weight"] = _Values(terms.log_weight.double().cpu(), [], True)
        stats["log_q"] = _Values(log_q.cpu(), [], False)
    predicted = latent_sites(trace_model(Unobserved()(model), draws))
    prior = draw(Unobserved()(model), args, count, structure)
    drawn = {**latent_sites(prior.trace), **deterministic_sites(prior.trace)}
    return {
        # By the model's site, whose plates and event are the prior's too.
        "posterior": {name: _values(site, draws) for name, site in known.items()},
        "log_likelihood": {name: summed(site) for name, site in _observed(trace).items()},
        "sample_stats": stats,
        "posterior_predictive": {
            name: _values(site, draws) for name, site in predicted.items() if _predicted(site)
        },
        "prior": {name: _values(drawn[name], prior) for name in known},
        "prior_predictive": {
            name: _values(site, prior) for name, site in drawn.items() if _predicted(site)
        },
    }


def _observed(trace: Any) -> dict[str, Any]:
    """Observed sites in the data plate, but for factors, which hold no data."""
    return {
        name: site
        for name, site in observed_sites(trace).items()
        if in_data_plate(site) and site["value"].numel()
    }


def _values(site: Any, draws: Draws) -> _Values:
    """A site's values with draws first, then data, then plates, then the event."""
    distribution, value, event_dim = site["fn"], site["value"], site["fn"].event_dim
    if is_deterministic(site):
        # Pyro takes all of its dimensions for the event's, where not told otherwise.
        depth = max((-frame.dim for frame in site["cond_indep_stack"]), default=0)
        event_dim = max(0, min(event_dim, value.dim() - depth))
    of_value, event = value.shape[: value.dim() - event_dim], value.shape[value.dim() - event_dim :]
    batch = list(torch.broadcast_shapes(distribution.batch_shape, of_value))
    value = value.expand([*batch, *event])
    names = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
    local, dims = in_data_plate(site), list(range(-len(batch), 0))
    if not local:  # drawn once
        value = value.unsqueeze(0)
    elif draws.plated:  # (samples, …, plates, data, event)
        value, dims = value.movedim(len(batch) - 1, 1), dims[1:-1]
    else:  # (…, plates, samples and data, event)
        value, dims = value.movedim(len(batch) - 1, 0), dims[:-1]
    # Dimensions without a plate are of size one: they only keep the others in their places.
    plates = {names[dim]: batch[dim] for dim in dims if dim in names}
    lead = (draws.num_samples, draws.num_data) if local else (1,)
    return _Values(value.reshape(*lead, *plates.values(), *event).cpu(), [*plates], local)


def _held(one: Mapping[str, Mapping[str, _Values]], num_samples: int) -> Groups:
    """Room for S draws of what one is given of."""
    return {
        group: {
            name: replace(site, value=site.value.new_empty(num_samples, *site.value.shape[1:]))
            for name, site in sites.items()
        }
        for group, sites in one.items()
    }


def _check_memory(one: Groups, num_samples: int, num_data: int) -> None:
    """Refuse draws that would fill the memory, before they are made."""
    values = [site.value for sites in one.values() for site in sites.values()]
    total = num_samples * sum(value.numel() * value.element_size() for value in values)
    if total > MAX_TREE_BYTES:
        size = sum(map(Tensor.numel, values)) // num_data
        raise ValueError(
            f"{num_samples} draws of {num_data} data, {size} numbers for each, would take "
            f"{total / 1e9:.1f} GB, more than {MAX_TREE_BYTES / 1e9:g}: give fewer data, or a "
            "smaller num_samples"
        )


def _constant_groups(
    model: Program, guide: Program, args: tuple[Tensor, ...], structure: Structure
) -> Groups:
    """What is the same at all draws: observed values, and contexts."""
    draws = draw(guide, args, 1, structure)
    observed = _observed(trace_model(model, draws))
    groups = {"observed_data": {name: _values(site, draws) for name, site in observed.items()}}
    data = _position_of_data(args, observed)
    for number, part in enumerate(args):
        if number != data:
            contexts = groups.setdefault("constant_data", {})
            contexts[f"context_{number}"] = _Values(part.cpu()[None], [], True)
    return groups


def _position_of_data(args: tuple[Tensor, ...], observed: dict[str, Any]) -> int:
    """Which argument the model observes; the first, where it observes none as it is."""
    for number, part in enumerate(args):
        for site in observed.values():
            if holds(site, part):
                return number
    return 0


def _layout(
    groups: Groups, coords: Mapping[str, Sequence[Any]], dims: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Names of the dimensions of each site, after those of the draws.

    Raises:
        ValueError: if ``dims`` or ``coords`` do not fit the sites, or a name would mean two things.
    """
    sites = {
        name: site
        for group in ("observed_data", "constant_data", "posterior")
        for name, site in groups.get(group, {}).items()
    }
    _check_known("dims", dims, sites)
    layout, sizes = {}, {"chain": -1, "draw": -1}
    for name, site in sites.items():
        given = [DATUM_DIM, *site.plates] if site.local else site.plates
        missing = site.value.dim() - 1 - len(given)
        event = dims.get(name, [f"{name}_dim_{number}" for number in range(missing)])
        if isinstance(event, str) or len(event) != missing:
            raise ValueError(
                f"dims names {event!r} for {name!r}, which has {missing} event dimensions: give "
                "a list of one name for each"
            )
        layout[name] = [*given, *event]
        for dim, size in zip(layout[name], site.value.shape[1:], strict=True):
            if layout[name].count(dim) > 1 or dim in sites or sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"the dimension {dim!r} of {name!r} has a name that means something else too: "
                    "give another one by dims"
                )
    del sizes["chain"], sizes["draw"]
    _check_known("coords", coords, sizes)
    for dim, labels in coords.items():
        if len(labels) != sizes[dim]:
            raise ValueError(
                f"coords gives {len(labels)} labels along {dim!r}, which needs {sizes[dim]}"
            )
    return layout


def _check_known(argument: str, given: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"{argument} names {name!r}, which is none of {names}")


def _tree(
    groups: Groups,
    constant: Groups,
    layout: Mapping[str, list[str]],
    coords: Mapping[str, Sequence[Any]],
    num_samples: int,
) -> "DataTree":
    """The groups as a tree, with names along all dimensions."""
    # Slow to import.
    from arviz_base import dict_to_dataset  # pyright: ignore[reportPrivateImportUsage]
    from xarray import DataTree

    attrs = {
        "inference_library": "latente",
        "inference_library_version": metadata.version("latente"),
        "num_samples": num_samples,
    }
    datasets = {}
    for group, sites in {**groups, **constant}.items():
        drawn = group in groups
        # Figures are of a datum, or of all of them: they have none of their site's dimensions.
        figures = group in ("log_likelihood", "sample_stats", "evidence")
        datasets[group] = dict_to_dataset(
            {
                _plain(name): (site.value[None] if drawn else site.value[0]).numpy()
                for name, site in sites.items()
            },
            dims={
                _plain(name): [DATUM_DIM] * site.local
                if figures
                else list(map(_plain, layout[name]))
                for name, site in sites.items()
            },
            coords=dict(coords),
            sample_dims=["chain", "draw"] if drawn else [],
            attrs=attrs,
        )
    tree = DataTree.from_dict(datasets)
    tree.attrs = attrs
    return tree


def _predicted(site: Any) -> bool:
    """Whether a site is what the model observes of each datum, drawn anew."""
    return bool(site["infer"].get("was_observed") and in_data_plate(site) and site["value"].numel())


def _plain(name: str) -> str:
    """A name that a tree can hold: a slash would be a path in it."""
    return name.replace("/", ".")
