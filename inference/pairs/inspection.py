"""Run a pair once, check that it fulfils the contract, and find its structure."""

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from .all_values import sites_of_all_values
from .cached_flows import UnknownDensityError
from .calling import is_one_datum, name_data_plate
from .chains import steps_of_chain
from .enumeration import check_can_be_summed, summed_out
from .kept_rows import check_rows, rows_kept
from .kl import carries_density, is_delta
from .log_terms import complete, draw, one_sample, score, sum_sites
from .programs import Program, plain_errors
from .sites import (
    DATA_PLATE,
    in_data_plate,
    latent_sites,
    observed_sites,
    rows_dim,
    sample_sites,
)
from .structure import Structure
from .supports import is_discrete
from .unseen_modules import warning_of_unseen_modules


def inspect_pair(model: Program, guide: Program, args: tuple[Any, ...]) -> Structure:
    """Run a pair once, check that it fulfils the contract, and find its structure.

    Raises:
        ValueError: if the model has no plate named ``"data"`` at dimension −1 with an observed
            site inside; if the size of that plate is not the number of data; if only one of the
            two programs has a latent site; if a site that is to be summed out cannot be; or if an
            autoguide of local sites is given other data than its own.
    """
    check_rows(guide, args)
    with plain_errors(), warning_of_unseen_modules(model, guide):
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    in_guide, in_model = latent_sites(guide_trace), latent_sites(model_trace)
    enumerated = summed_out(in_guide, in_model)
    for name in enumerated:
        check_can_be_summed(name, in_model[name])
    _check_same_sites(in_guide, in_model, enumerated)
    # The model's first: an autoguide's auxiliary sites have names that its user does not know.
    sites = *sample_sites(model_trace).items(), *sample_sites(guide_trace).items()
    for name, site in sites:
        _check_plates(name, site)
    frames = [
        frame for _, site in sites for frame in site["cond_indep_stack"] if frame.dim is not None
    ]
    if not frames:
        raise ValueError(
            "no site of model or guide is inside a vectorized plate: put the data under "
            "pyro.plate('data', len(x), dim=-1), as a context (with …), not as a loop (for …)"
        )
    plate, one_datum = name_data_plate(model), is_one_datum(model)
    _check_data_plate(in_guide, in_model, observed_sites(model_trace), plate)
    _check_sizes(frames, plate, len(args[0]), one_datum=one_datum)
    nesting = max(-frame.dim for frame in frames)
    global_latents = tuple(name for name, site in in_guide.items() if not in_data_plate(site))
    # Draws of a global variable never lie along a plate of samples: see log_evidence.
    with pyro.validation_enabled(False):  # it refuses NaN also where the model masks it
        vectorized = not global_latents and is_vectorized(model, guide, args, nesting, enumerated)
    outside = tuple(
        name for name, site in observed_sites(model_trace).items() if not in_data_plate(site)
    )
    found = _points(guide, args, in_guide, in_model)
    local = {name: site for name, site in in_guide.items() if in_data_plate(site)}
    masses = tuple(name for name in found if is_discrete(in_model[name]["fn"]))
    points = tuple(name for name in found if name not in masses)
    return Structure(
        nesting,
        vectorized,
        global_latents,
        outside,
        enumerated,
        points,
        enumerated_outside=tuple(n for n in enumerated if not in_data_plate(in_model[n])),
        local_latents=tuple(local),
        local_values=sum(site["value"].numel() for site in local.values()) // len(args[0]),
        num_steps=max((steps_of_chain(site["fn"]) for site in local.values()), default=1),
        repeatable=not one_datum and (vectorized or _is_repeatable(model, guide, args, nesting)),
        keeps_rows=rows_kept(guide) is not None,
        drawn_together=tuple(set(_without_density(in_guide, in_model)) - {*points, *masses}),
        auxiliary=tuple(name for name in in_guide if name not in in_model),
        all_values=sites_of_all_values(in_guide, in_model),
        data_plate=plate,
        point_masses=masses,
    )


def _check_same_sites(
    in_guide: dict[str, Any], in_model: dict[str, Any], enumerated: tuple[str, ...]
) -> None:
    """Refuse latent sites that only one program has, or whose event shapes differ."""
    for name in sorted(in_model.keys() - in_guide.keys() - set(enumerated)):
        raise ValueError(
            f"the model samples {name!r}, which the guide does not (if it is data, "
            "give it obs=; to sum it out, if it is discrete, infer={'enumerate': 'parallel'})"
        )
    for name, site in in_guide.items():
        if name not in in_model and not site["infer"].get("is_auxiliary"):
            raise ValueError(f"the guide samples {name!r}, which the model does not")
    for name in in_guide.keys() & in_model.keys():
        given, wanted = in_guide[name]["value"].shape, in_model[name]["fn"].event_shape
        if given[len(given) - len(wanted) :] != wanted:
            raise ValueError(
                f"the guide's {name!r} has shape {tuple(given[1:])} for each datum, the model's "
                f"{tuple(wanted)}: give prior and guide the same latent dimension"
            )
        plated = in_data_plate(in_model[name]) and in_data_plate(in_guide[name])
        if plated and len(given) < len(wanted) - rows_dim(in_model[name]):
            raise ValueError(
                f"the model's {name!r} has event shape {tuple(wanted)}, which takes the axis of "
                f"the data for one of z, as its draws have shape {tuple(given)}: end the prior "
                f"with .to_event({len(wanted) - 1})"
            )


def _check_data_plate(
    in_guide: dict[str, Any],
    in_model: dict[str, Any],
    observed: dict[str, Any],
    plate: str,
) -> None:
    """Refuse a pair without observed sites in its data plate, or with a site in it in one program.

    Args:
        plate: the data plate in words.
    """
    if not observed:
        names = ", ".join(map(repr, in_model)) or "none"
        raise ValueError(
            f"the model observes nothing: with these arguments all its sites are latent ({names}); "
            "give the argument that holds the data, or give the site of the data obs="
        )
    if not any(in_data_plate(site) for site in observed.values()):
        raise ValueError(
            "the model has no observed site inside a plate named 'data': put its data under "
            "pyro.plate('data', len(x), dim=-1)"
        )
    for name in in_guide.keys() & in_model.keys():
        if in_data_plate(in_guide[name]) != in_data_plate(in_model[name]):
            inside, outside = "model", "guide"
            if in_data_plate(in_guide[name]):
                inside, outside = outside, inside
            raise ValueError(
                f"{name!r} is inside {plate} in the {inside}, and not in the {outside}: put it "
                "under that plate in both, as pyro.plate('data', len(x), dim=-1)"
            )


def _check_sizes(frames: list[Any], plate: str, num_data: int, *, one_datum: bool) -> None:
    """Refuse a data plate of another size than the data, or at two dimensions.

    Args:
        plate: the data plate in words.
        one_datum: whether a whole data set is one datum, so that no plate may leave out a part.
    """
    dims = {frame.dim for frame in frames if frame.name == DATA_PLATE}
    for frame in frames:
        if frame.name != DATA_PLATE and not one_datum:
            continue
        if frame.full_size not in (None, frame.size) and (one_datum or frame.size != num_data):
            raise ValueError(
                f"{plate if frame.name == DATA_PLATE else f'the plate {frame.name!r}'} takes "
                f"{frame.size} of its {frame.full_size} elements, those that its subsample= names: "
                "leave subsample= out, and give these rows as the data (batches are drawn by fit)"
            )
        if frame.name == DATA_PLATE and frame.size != num_data:
            raise ValueError(
                f"{plate} has size {frame.size} at dimension {frame.dim}; "
                f"it must have the size of the batch, {num_data}"
            )
    if len(dims) > 1:
        raise ValueError(
            f"{plate} has the dimensions {sorted(dims)} in guide and model: give it the "
            "same in both, with pyro.plate(…, dim=…)"
        )


def _points(
    guide: Program, args: tuple[Any, ...], in_guide: dict[str, Any], in_model: dict[str, Any]
) -> tuple[str, ...]:
    """The latent sites of the data plate that the guide puts on one value, by a ``Delta``."""
    found = {
        name: in_guide[name]["value"]
        for name in _without_density(in_guide, in_model)
        if not carries_density(in_guide[name]["fn"])
    }
    if found and in_guide.keys() - in_model.keys():
        # The auxiliary site is shared by all data: what follows from it differs in another draw.
        with torch.random.fork_rng(), plain_errors():
            again = latent_sites(poutine.trace(guide).get_trace(*args))
        found = {name: value for name, value in found.items() if again[name]["value"].equal(value)}
    return tuple(found)


def _without_density(in_guide: dict[str, Any], in_model: dict[str, Any]) -> list[str]:
    """The latent sites of the data plate that are points given what is drawn outside of it."""
    # A Delta that follows from an auxiliary site of its datum has a density: that site's.
    if any(in_data_plate(in_guide[name]) for name in in_guide.keys() - in_model.keys()):
        return []
    return [name for name, site in in_guide.items() if in_data_plate(site) and is_delta(site["fn"])]


def _check_plates(name: str, site: Any) -> None:
    """Refuse a batch dimension without a plate: its log densities would be summed as if of one."""
    owned = {frame.dim for frame in site["cond_indep_stack"]}
    shape = site["fn"].batch_shape
    for dim in range(-len(shape), 0):
        if shape[dim] > 1 and dim not in owned:
            raise ValueError(
                f"the distribution at {name!r} has {shape[dim]} log densities at dimension {dim}, "
                f"where there is no plate (batch shape {tuple(shape)}): end it with .to_event(…) "
                "if they are of one value, or put it under pyro.plate(…) if they are of rows; "
                "labels and contexts have one row for each datum, (N,) or (N, event), not (N, 1)"
            )


def is_vectorized(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    nesting: int,
    enumerated: tuple[str, ...],
) -> bool:
    """Whether the pair gives the same log terms under a plate of two samples as one by one.

    A network written for one batch dimension fails there, or mixes samples with data. Such a pair
    is run on repeated data instead.
    """
    structure = Structure(nesting, vectorized=True, global_latents=(), enumerated=enumerated)
    try:
        draws = draw(guide, args, 2, structure)
        # Sites that are summed out are run with all their values, and with drawn ones.
        tried = [draws, complete(model, draws)] if enumerated else [draws]
        together = [score(model, each) for each in tried]
    except Exception:  # a user's network may fail on a further dimension in any way
        return False
    apart = [[one_sample(each, sample) for sample in range(2)] for each in tried]
    # Check the guide too: its log q at one sample's values, without the plate.
    replayed = [poutine.trace(poutine.replay(guide, trace=one.trace)) for one in apart[0]]
    try:
        posteriors = [
            sum_sites(
                latent_sites(trace.get_trace(*args)).values(), (1, len(args[0])), False, args[0]
            )
            for trace in replayed
        ]
    except UnknownDensityError:  # not known for one sample's values: it cannot be checked
        return False
    pairs = [(together[0].log_posterior, torch.cat([local for local, _ in posteriors]))]
    for plated, single in zip(together, apart, strict=True):
        terms = [score(model, one) for one in single]
        pairs += [
            (plated.log_likelihood, torch.cat([term.log_likelihood for term in terms])),
            (plated.log_prior, torch.cat([term.log_prior for term in terms])),
        ]
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs)


def _is_repeatable(model: Program, guide: Program, args: tuple[Any, ...], nesting: int) -> bool:
    """Whether a pair runs on its data repeated twice: not if its plate has a fixed size."""
    if rows_kept(guide) is not None:
        return True  # it is run once for each sample
    try:
        with pyro.validation_enabled(False), torch.random.fork_rng():
            score(model, draw(guide, args, 2, Structure(nesting, False, ())))
    except Exception:  # a user's program may fail on other data in any way
        return False
    return True


def inspect_drawn(model: Program, guide: Program, args: tuple[Tensor, ...]) -> Structure:
    """Find the structure of a pair whose latent sites are all drawn, or summed out for each datum.

    Raises:
        ValueError: as :func:`inspect_pair` does, and if a site outside the data plate is to be
            summed out.
    """
    structure = inspect_pair(model, guide, args)
    check_summed_within_data(structure)
    return structure


def check_summed_within_data(structure: Structure) -> None:
    """Refuse a pair that sums out a site outside the data plate, on which all data depend.

    Raises:
        ValueError: with the name of the site.
    """
    for name in structure.enumerated_outside:
        raise ValueError(
            f"the site {name!r} outside {structure.data_plate} is summed out, so the data are "
            "not independent given what the guide draws: let the guide draw it"
        )
