"""Export of a pair's draws to an ArviZ ``DataTree``, to be plotted, summarized and stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..common.progress import progress
from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..evidence.pareto_smoothing import summarize_weights
from ..pairs.calling import name_arguments
from ..pairs.checks import check_support, explain_nonfinite
from ..pairs.inspection import inspect_drawn
from ..pairs.log_terms import Draws, complete, draw, read_terms, sum_sites, trace_model
from ..pairs.observed_values import ObservedValues, find_observed_values
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import (
    deterministic_sites,
    in_data_plate,
    is_deterministic,
    latent_sites,
    observed_sites,
    rows_dim,
)
from ..pairs.structure import Structure
from ..simulation.ancestral import SampleObserved, draw_data, is_drawn_at_once
from ..simulation.simulate import CHECKED_ROWS

if TYPE_CHECKING:
    from xarray import DataTree


DATUM_DIM = "datum"
"""Name of the data dimension."""


MAX_TREE_BYTES = 2_000_000_000
"""Most bytes that the draws of a tree may take."""


MAX_ROWS_PER_RUN = 2_000
"""Most rows, draws times data, in one run of the model; a single draw of all data may exceed it."""


@dataclass(frozen=True)
class _SiteValues:
    """The values of a site at S draws."""

    value: Tensor
    """(S, N, *plates, *event); (S, *plates, *event) if the site is outside the data plate."""
    plates: list[str]
    """Names of the site's plates, the data plate left out."""
    local: bool
    """Whether the site stands in the data plate."""


Groups = dict[str, dict[str, _SiteValues]]
"""The values of each site, by group of the tree and by site name."""


def to_datatree(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 200,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> "DataTree":
    """Draw S times from a pair's posterior, prior and predictive distributions, as ArviZ data.

    The ``DataTree`` has these groups, with one ``chain``, S along ``draw`` and N along ``datum``:

    - ``posterior``: each latent site, drawn from the guide, (chain, draw, datum, *plates, *event);
      and each that follows from them, by ``pyro.deterministic`` or ``poutine.reparam``; a site
      outside the data plate has no ``datum``;
    - ``log_likelihood``: the log density of each observed site by itself, in nats, (chain, draw,
      datum);
    - ``sample_stats``: ``log_weight`` = log p(x, z) − log q(z|x) of each datum's own variables,
      (chain, draw, datum); ``lp`` = log p and ``log_q`` = log q of all variables, (chain, draw);
    - ``evidence``: the estimates from these weights, ``log_px``, ``standard_error``, ``ess``,
      ``khat`` and ``log_px_smoothed``, (datum), as in :class:`Evidence`; only if all sites stand
      in the data plate;
    - ``prior``, ``prior_predictive``, ``posterior_predictive``: draws of latent and observed sites;
    - ``observed_data``: the value of each observed site; ``constant_data``: the arguments that
      the model does not observe, or only in part, by keyword or position, ``context_1``, …;
      ``context_0``, where they come before the x that the model observes.

    A conditioned site (``pyro.condition``) is observed, as the program says: its value is in
    ``observed_data``, its density in ``log_likelihood``, each under its own name, and in ``lp`` and
    ``log_weight``. It is never drawn, so it has no ``*_predictive`` values. Of several observed
    sites each is predicted given draws of those before it (x_t given the drawn x_{t−1}).

    The draws are independent and form one chain, so ESS across draws says nothing and R̂ is NaN;
    ``khat`` shows whether the guide is right. In ``log_likelihood`` z is inferred from x itself, so
    leave-one-out with it means little for local latent variables: see :func:`psis_loo`. If the
    distribution of a site depends on its own value, as in an autoregressive model, ``*_predictive``
    draws are conditional on the given x. A site that is summed out is drawn from its exact
    posterior given x and the other sites; the weights are those of the guide's draws. A guide that
    is a point has no density: then there is no ``evidence``, and ``sample_stats`` has only ``lp``.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: x (N, *event_shape), or (x, *context); of what :func:`load_data` returns, the test
            part is used.
        num_samples: S.
        coords: labels along a dimension, by the name of the dimension (``"datum"``, a plate, or
            one of ``dims``); by default 0, 1, ….
        dims: names of the event dimensions of a site or a context, by its name; by default
            ``"<site>_dim_0"``, ….
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the draws done.

    Raises:
        ValueError: if S < 1, the data cannot be used, the draws would take more than 2 GB, ``dims``
            or ``coords`` do not fit the sites, a site outside the data plate is summed out, or a
            weight is not finite.

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
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        check_support(model, guide, args, "data")
        structure = inspect_drawn(model, guide, args)
        with pyro.validation_enabled(False), plain_errors():
            constant, observed = _constant_groups(model, guide, args, structure)
            sequential = _is_sequential(model, args, observed)
            if sequential:  # each draw needs arguments of its own to be written into
                structure = replace(structure, vectorized=False)
            one = _draw_groups(model, guide, args, structure, 1, observed.held, sequential)
            layout = _layout({**constant, **one}, coords or {}, dims or {})
            _check_memory(one, num_samples, len(args[0]))
            groups = _allocate(one, num_samples)
            size = _draws_per_run(len(args[0]), num_samples, structure)
            with progress("draws", num_samples, show=show_progress) as advance:
                for start in range(0, num_samples, size):
                    count = min(size, num_samples - start)
                    part = _draw_groups(
                        model, guide, args, structure, count, observed.held, sequential
                    )
                    for group, sites in part.items():
                        for name, site in sites.items():
                            groups[group][name].value[start : start + count] = site.value
                    advance(count, f"{start + count} of {num_samples} draws")
    weights = groups["sample_stats"].get("log_weight")
    all_local = not structure.global_latents and not structure.observed_outside
    if weights is not None and all_local and num_samples > 1:
        try:
            figures = summarize_weights(weights.value)
        except ValueError as error:
            with evaluating(model, guide), torch.random.fork_rng():
                raise ValueError(f"{error}: {explain_nonfinite(model, guide, args)}") from error
        constant["evidence"] = {
            name: _SiteValues(value[None], [], True) for name, value in figures.items()
        }
    return _build_tree(groups, constant, layout, coords or {}, num_samples)


def _draws_per_run(num_data: int, num_samples: int, structure: Structure) -> int:
    """How many draws one run of the pair makes: one, if it has global latent variables."""
    return 1 if structure.global_latents else min(num_samples, max(1, MAX_ROWS_PER_RUN // num_data))


def _is_sequential(model: Program, args: tuple[Tensor, ...], observed: ObservedValues) -> bool:
    """Whether some observed sites must be drawn after others, and can be."""
    if len(observed.places) < 2:
        return False
    some = tuple(part[:CHECKED_ROWS] for part in args)
    with torch.random.fork_rng():
        if is_drawn_at_once(model, some):
            return False
        try:
            draw_data(model, some)
        except ValueError:  # a site depends on its own value: draws are conditional on it
            return False
    return True


def _draw_groups(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    structure: Structure,
    count: int,
    held: tuple[str, ...],
    sequential: bool,
) -> Groups:
    """Make ``count`` draws, by group and site.

    Args:
        held: observed sites that are not drawn.
        sequential: whether observed sites are drawn each given those before it.
    """
    draws = complete(model, draw(guide, args, count, structure))
    trace = trace_model(model, draws)
    terms = read_terms(trace, draws)
    shape = (draws.num_samples, draws.num_data)

    def log_prob_per_datum(site: Any) -> _SiteValues:
        return _SiteValues(sum_sites([site], shape, draws.plated, args[0])[0].cpu(), [], True)

    latent = {**latent_sites(trace), **deterministic_sites(trace)}
    log_joint = terms.log_likelihood + terms.log_prior
    log_p = log_joint.double().sum(1) + terms.log_prior_global
    stats = {"lp": _SiteValues(log_p.cpu(), [], False)}
    if not structure.points and not structure.point_masses:
        log_q = terms.log_posterior.double().sum(1) + terms.log_posterior_global
        stats["log_weight"] = _SiteValues(terms.log_weight.double().cpu(), [], True)
        stats["log_q"] = _SiteValues(log_q.cpu(), [], False)
    predicted, prior = _predict(model, draws, structure, held, sequential)
    predictive = latent_sites(predicted)
    of_prior = {**latent_sites(prior.trace), **deterministic_sites(prior.trace)}
    return {
        # Read from the model's sites, which have the same plates and events as the prior's.
        "posterior": {name: _values(site, draws) for name, site in latent.items()},
        "log_likelihood": {
            name: log_prob_per_datum(site) for name, site in _observed(trace).items()
        },
        "sample_stats": stats,
        "posterior_predictive": {
            name: _values(site, draws) for name, site in predictive.items() if _is_predicted(site)
        },
        "prior": {name: _values(of_prior[name], prior) for name in latent},
        "prior_predictive": {
            name: _values(site, prior) for name, site in of_prior.items() if _is_predicted(site)
        },
    }


def _predict(
    model: Program, draws: Draws, structure: Structure, held: tuple[str, ...], sequential: bool
) -> tuple[Trace, Draws]:
    """Draw the observed sites at draws of the guide, and all sites from the prior."""
    if sequential:
        rows = tuple(torch.cat([part] * draws.num_samples) for part in draws.args)
        _, predicted = draw_data(model, rows, given=draws.trace)
        _, prior = draw_data(model, rows)
        return predicted, replace(draws, trace=prior)
    sampler = SampleObserved(held)(model)
    predicted = trace_model(sampler, draws)
    return predicted, draw(sampler, draws.args, draws.num_samples, structure)


def _observed(trace: Any) -> dict[str, Any]:
    """Observed sites in the data plate; not factors, which hold no data."""
    return {
        name: site
        for name, site in observed_sites(trace).items()
        if in_data_plate(site) and site["value"].numel()
    }


def _values(site: Any, draws: Draws) -> _SiteValues:
    """The values of a site: draws first, then data, then plates, then the event."""
    distribution, value, event_dim = site["fn"], site["value"], site["fn"].event_dim
    if is_deterministic(site):
        # Pyro counts all dimensions of a deterministic value to the event, unless told otherwise.
        depth = max((-frame.dim for frame in site["cond_indep_stack"]), default=0)
        event_dim = max(0, min(event_dim, value.dim() - depth))
    value_batch, event = (
        value.shape[: value.dim() - event_dim],
        value.shape[value.dim() - event_dim :],
    )
    batch = list(torch.broadcast_shapes(distribution.batch_shape, value_batch))
    value = value.expand([*batch, *event])
    names = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
    local, dims = in_data_plate(site), list(range(-len(batch), 0))
    if not local:  # one draw
        value = value.unsqueeze(0)
    else:  # ([samples,] …, plates, data, event), or samples and data together
        data = rows_dim(site)
        value = value.movedim(len(batch) + data, 1 if draws.plated else 0)
        dims = [dim for dim in dims[draws.plated :] if dim != data]
    # Dimensions without a plate have size one: they only keep the others in place.
    plates = {names[dim]: batch[dim] for dim in dims if dim in names}
    lead = (draws.num_samples, draws.num_data) if local else (1,)
    return _SiteValues(value.reshape(*lead, *plates.values(), *event).cpu(), [*plates], local)


def _allocate(one: Mapping[str, Mapping[str, _SiteValues]], num_samples: int) -> Groups:
    """Memory for S draws, shaped like the one draw given."""
    return {
        group: {
            name: replace(site, value=site.value.new_empty(num_samples, *site.value.shape[1:]))
            for name, site in sites.items()
        }
        for group, sites in one.items()
    }


def _check_memory(one: Groups, num_samples: int, num_data: int) -> None:
    """Refuse draws that would take too much memory, before they are made."""
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
) -> tuple[Groups, ObservedValues]:
    """The groups that are the same at all draws, observed values and contexts; where the former
    stand in the arguments."""
    draws = complete(model, draw(guide, args, 1, structure))
    trace = trace_model(model, draws)
    places = find_observed_values(poutine.replay(model, trace=draws.trace), args)
    observed = {name: _values(site, draws) for name, site in _observed(trace).items()}
    groups = {"observed_data": observed}
    # A model that observes a transform of its data is taken to observe the first argument.
    data = [n for n, part in enumerate(args) if places.num_observed(n) == part.numel()]
    for number, name in enumerate(name_arguments(model, len(args))):
        if number not in (data if places.places else [0]):
            contexts = groups.setdefault("constant_data", {})
            contexts[name] = _SiteValues(args[number].cpu()[None], [], True)
    return groups, places


def _layout(
    groups: Groups, coords: Mapping[str, Sequence[Any]], dims: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Name the dimensions of each site, chain and draw left out.

    Raises:
        ValueError: if ``dims`` or ``coords`` do not fit the sites, or a name has two meanings.
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
                f"dims gives {event!r} for {name!r}, which has {missing} event dimensions: give "
                "a list with one name for each"
            )
        layout[name] = [*given, *event]
        for dim, size in zip(layout[name], site.value.shape[1:], strict=True):
            if layout[name].count(dim) > 1 or dim in sites or sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"the dimension {dim!r} of {name!r} has a name that is also used for something "
                    "else: give another name in dims"
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


def _build_tree(
    groups: Groups,
    constant: Groups,
    layout: Mapping[str, list[str]],
    coords: Mapping[str, Sequence[Any]],
    num_samples: int,
) -> "DataTree":
    """Build the tree from its groups, with names for all dimensions."""
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
        # One number for each datum or for all data: such groups lack the sites' own dimensions.
        is_reduced = group in ("log_likelihood", "sample_stats", "evidence")
        datasets[group] = dict_to_dataset(
            {
                _tree_name(name): (site.value[None] if drawn else site.value[0]).numpy()
                for name, site in sites.items()
            },
            dims={
                _tree_name(name): [DATUM_DIM] * site.local
                if is_reduced
                else list(map(_tree_name, layout[name]))
                for name, site in sites.items()
            },
            coords=dict(coords),
            sample_dims=["chain", "draw"] if drawn else [],
            attrs=attrs,
        )
    tree = DataTree.from_dict(datasets)
    tree.attrs = attrs
    return tree


def _is_predicted(site: Any) -> bool:
    """Whether a drawn site is an observed site of the model in the data plate."""
    return bool(site["infer"].get("was_observed") and in_data_plate(site) and site["value"].numel())


def _tree_name(name: str) -> str:
    """A name without slashes, which would be paths in a tree."""
    return name.replace("/", ".")
