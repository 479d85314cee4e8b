"""Find the plate of a pair's data, and which of the arguments are rows of data."""

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..common.seeding import set_seed
from .calling import AdaptedProgram, Argument, Calling, taking_all
from .parameters import place, placement
from .programs import Program, first_line, modules, probing
from .sites import DATA_PLATE, observed_sites, sample_sites

PROBED_ROWS = 50
"""Rows on which a pair is run to find its data plate; all of them, if these do not tell."""

LARGEST_TRANSPOSED = 4
"""Dimensions of an argument up to which all orders of its dimensions are tried."""

MOST_REORDERED = 3
"""Arguments up to which all orders of them are tried, where the programs fail on the one given."""

Parts = tuple[Any, ...]
"""What a user gave: arguments in their order, of which tensors may be rows of data."""


@dataclass(frozen=True)
class _Probe:
    """One run of a pair on its arguments."""

    parts: Parts
    guide_sites: tuple[Any, ...]
    """All sites of the guide."""
    model_sites: tuple[Any, ...]
    """All sites of the model."""
    observed: dict[str, Any]
    """The observed sites of the model."""
    subsampled: dict[str, int]
    """Plates that draw a subsample of their own, and its size."""

    @property
    def sites(self) -> tuple[Any, ...]:
        """All sites."""
        return self.guide_sites + self.model_sites

    def num_latent(self, plate: str) -> int:
        """How many latent sites lie in a plate."""
        return len(
            {
                site["name"]
                for site in self.sites
                if not site["is_observed"]
                and any(frame.name == plate for frame in site["cond_indep_stack"])
            }
        )

    @property
    def frames(self) -> dict[str, tuple[int, int]]:
        """Name, dimension and full size of each plate of the observed sites."""
        found: dict[str, tuple[int, int]] = {}
        for site in self.observed.values():
            for frame in site["cond_indep_stack"]:
                if frame.dim is None:
                    continue
                size = frame.full_size or frame.size
                if size == -1:  # a plate without a size
                    shape = site["fn"].batch_shape
                    size = shape[frame.dim] if len(shape) >= -frame.dim else 1
                found[frame.name] = frame.dim, size
        return found


@dataclass(frozen=True)
class _Reading:
    """A plate that may be the data's, and where its rows are in the arguments."""

    plate: str
    dim: int
    rows_dims: tuple[int | None, ...]
    """For each argument the dimension of its rows; ``None``: it has no rows."""

    def __str__(self) -> str:
        places = ", ".join(
            f"dimension {dim} of argument {number}"
            for number, dim in enumerate(self.rows_dims)
            if dim is not None
        )
        return f"plate {self.plate!r} (along {places})"


def find_calling(
    model: Program,
    guide: Program,
    parts: Parts,
    keywords: Sequence[str | None],
    data_plate: str | None = None,
    seed: int = 0,
) -> Calling | None:
    """Find how a pair's programs are called with rows of data, by running them.

    The plate of the data is the one whose size is the number of rows. It is the one named
    ``data_plate``, if that is given, else one named ``"data"``. Rows lie along the first dimension
    of each argument, or along the one that the plate has in an observed site. x is the first
    argument that an observed site holds. A pair without such a plate has one datum: all of its
    data together.

    Args:
        model: Pyro program.
        guide: Pyro program of the same arguments.
        parts: the arguments in their order; tensors may be rows, anything else is a constant.
        keywords: the keyword of each, ``None`` for one that is given by position.
        data_plate: the name of the plate, where two fit.
        seed: of the runs.

    Returns:
        How the programs are called; ``None`` if they have the library's form, or fail on the data:
        then they are called as they are, and whoever calls them reports why they fail.

    Raises:
        ValueError: if two plates fit, or none has the name given: with what fits; if the programs
            fail on keyword arguments, which have no other order.
    """
    if isinstance(model, AdaptedProgram):
        return None
    probe = _run_on_few(model, guide, parts, keywords, seed)
    readings = [] if probe is None else _readings(probe, data_plate)
    if not readings or probe is None:  # perhaps the programs can be run on all data only
        probe = _run(model, guide, parts, keywords, seed) or probe
        readings = [] if probe is None else _readings(probe, data_plate)
    if probe is None:
        if any(keywords):
            _refuse_keywords(model, guide, parts, keywords, seed)
        _refuse_order(model, guide, parts, seed)
        return None
    if data_plate is not None and not any(r.plate == data_plate for r in readings):
        names = ", ".join(map(repr, probe.frames)) or "none"
        raise ValueError(
            f"data_plate is {data_plate!r}, which is no plate of an observed site with one element "
            f"a row of data; the plates of observed sites are {names}"
        )
    if len(readings) > 1:
        readings = _that_grow(model, guide, probe, keywords, readings, seed)
    if len(readings) > 1:
        raise ValueError(
            "more than one plate of the model may be that of the data: "
            f"{', '.join(map(str, readings))}; name it with data_plate="
        )
    if not readings:
        return _whole(probe, parts, keywords)
    (reading,) = readings
    if _is_canonical(probe, reading, keywords):
        return None
    return _calling(probe, reading, parts, keywords)


def _run_on_few(
    model: Program, guide: Program, parts: Parts, keywords: Sequence[str | None], seed: int
) -> _Probe | None:
    """Run a pair on the first rows of its arguments, if all have as many rows."""
    if len({part.shape[0] for part in parts if has_rows(part)}) > 1:
        return None
    few = tuple(part[:PROBED_ROWS] if has_rows(part) else part for part in parts)
    return _run(model, guide, few, keywords, seed)


def has_rows(part: Any) -> bool:
    """Whether an argument may be rows of data: a tensor, or rows that are read from disk."""
    return hasattr(part, "shape") and hasattr(part, "__getitem__") and len(part.shape) > 0


def _run(
    model: Program,
    guide: Program,
    parts: Parts,
    keywords: Sequence[str | None],
    seed: int,
    *,
    strict: bool = False,
) -> _Probe | None:
    """Run a pair once on its arguments; ``None`` if it fails, or they are rows on disk.

    Args:
        strict: raise the error of a pair that fails.
    """
    if any(has_rows(part) and not isinstance(part, Tensor) for part in parts):
        return None
    where = placement(model, guide)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user is told where the pair is used
        args = tuple(place((part,), *where)[0] if has_rows(part) else part for part in parts)
    by_position = [arg for arg, keyword in zip(args, keywords, strict=True) if keyword is None]
    by_keyword = {k: arg for arg, k in zip(args, keywords, strict=True) if k is not None}
    with probing(model, guide):
        set_seed(seed)
        try:
            with taking_all() as of_guide_itself:
                in_guide = poutine.trace(guide).get_trace(*by_position, **by_keyword)
            replayed = poutine.trace(poutine.replay(model, trace=in_guide))
            with taking_all() as subsampled:
                in_model = replayed.get_trace(*by_position, **by_keyword)
            if not _is_automatic(guide):  # whose plates repeat those of the model it was made from
                subsampled |= of_guide_itself
        except Exception:  # a user's program may fail in any way: reported where it is used
            if strict:
                raise
            return None
    of_guide, of_model = (tuple(sample_sites(trace).values()) for trace in (in_guide, in_model))
    return _Probe(args, of_guide, of_model, observed_sites(in_model), subsampled)


def runs_on(
    model: Program, guide: Program, parts: Parts, keywords: Sequence[str | None], seed: int = 0
) -> bool:
    """Whether a pair runs on its arguments, or on the first rows of them."""
    probe = _run_on_few(model, guide, parts, keywords, seed)
    return probe is not None or _run(model, guide, parts, keywords, seed) is not None


def _refuse_order(model: Program, guide: Program, parts: Parts, seed: int) -> None:
    """Refuse arguments by position on which a pair fails, if it runs on them in another order."""
    rows = [number for number, part in enumerate(parts) if has_rows(part)]
    shapes = {tuple(parts[number].shape) for number in rows}
    if len(shapes) == 1 or len({shape[0] for shape in shapes}) > 1 or len(rows) > MOST_REORDERED:
        return
    keywords = (None,) * len(parts)
    for order in permutations(rows):
        turned = list(parts)
        for here, number in zip(rows, order, strict=True):
            turned[here] = parts[number]
        if list(order) == rows or not runs_on(model, guide, tuple(turned), keywords, seed):
            continue
        try:
            _run(model, guide, parts, keywords, seed, strict=True)
        except Exception as error:  # whatever it is, it is told
            raise ValueError(
                f"the programs fail on arguments of the shapes {_shapes(parts)}, and run on "
                f"{_shapes(turned)}: give the data in the order of the programs' arguments"
                f"{_argument_names(model)} ({first_line(error)})"
            ) from error


def _shapes(parts: Sequence[Any]) -> str:
    return ", ".join(str(tuple(part.shape)) for part in parts if has_rows(part))


def _argument_names(program: Program) -> str:
    """The names of a program's arguments, where they are known."""
    try:
        names = list(inspect.signature(getattr(program, "forward", program)).parameters)
    except (TypeError, ValueError):
        return ""
    return f", {', '.join(names)}"


def _refuse_keywords(
    model: Program, guide: Program, parts: Parts, keywords: Sequence[str | None], seed: int
) -> None:
    """Raise why a pair cannot be called with keyword arguments."""
    names, cause, why = ", ".join(str(keyword) for keyword in keywords if keyword), None, ""
    try:
        _run(model, guide, parts, keywords, seed, strict=True)
    except Exception as error:  # whatever it is, it is told
        cause, why = error, f": {first_line(error)}"
    raise ValueError(f"the programs fail on the keyword arguments {names}{why}") from cause


def integers_to_convert(
    model: Program, guide: Program, parts: Parts, keywords: Sequence[str | None], seed: int = 0
) -> list[int]:
    """The numbers of whole-number arguments that the programs want as real numbers.

    Whole numbers stay whole where the programs take them and a discrete site observes them, or
    none does. The first argument is converted if the programs fail on it as it is.
    """
    whole = [
        number
        for number, part in enumerate(parts)
        if isinstance(part, Tensor) and part.dim() and not part.is_floating_point()
    ]
    if not whole:
        return []
    probe = _run_on_few(model, guide, parts, keywords, seed) or _run(
        model, guide, parts, keywords, seed
    )
    if probe is None:
        return [number for number in whole if number == 0]
    return [
        number
        for number in whole
        for site in probe.observed.values()
        if _order_of(probe, number, site["value"]) is not None
        and not site["fn"].support.is_discrete
    ]


def _is_automatic(guide: Program) -> bool:
    """Whether a guide is an autoguide, or has one within."""
    roots = modules(guide, guide).values()
    return any(isinstance(part, AutoGuide) for root in roots for part in root.modules())


def _readings(probe: _Probe, data_plate: str | None) -> list[_Reading]:
    """The plates that may be the data's: by name if there is one, else by size."""
    found = []
    for name, (dim, size) in probe.frames.items():
        held = _held_dims(probe, name, dim)
        rows_dims = tuple(
            held.get(number, _dim_of_size(part, size)) for number, part in enumerate(probe.parts)
        )
        if any(dim is not None for dim in rows_dims):
            found.append(_Reading(name, dim, rows_dims))
    for name in (data_plate, DATA_PLATE):
        named = [reading for reading in found if reading.plate == name]
        if named:
            return named
    # What is latent for each datum lies in its plate: words have no latent variable of their own
    # where each document has one.
    most = max((probe.num_latent(reading.plate) for reading in found), default=0)
    found = [reading for reading in found if probe.num_latent(reading.plate) == most]
    arrays = [has_rows(part) for part in probe.parts]
    first = [r for r in found if all(r.rows_dims[n] == 0 for n, rows in enumerate(arrays) if rows)]
    # Rows come first as a rule; but words within documents are no rows, where both may be.
    return [r for r in found if not first or r in first or _holds_any(probe, r, first)]


def _holds_any(probe: _Probe, outer: _Reading, others: list[_Reading]) -> bool:
    """Whether one of other plates is used within this one only, which is used without it too."""
    stacks = [{frame.name for frame in site["cond_indep_stack"]} for site in probe.sites]
    return any(
        all(outer.plate in stack for stack in stacks if other.plate in stack)
        and any(other.plate not in stack for stack in stacks if outer.plate in stack)
        for other in others
    )


def _dim_of_size(part: Any, size: int) -> int | None:
    """The dimension of an argument with this size: its first one if that is, else the only one."""
    shape = tuple(part.shape) if has_rows(part) else ()
    fitting = [dim for dim, length in enumerate(shape) if length == size]
    return fitting[0] if fitting and (fitting[0] == 0 or len(fitting) == 1) else None


def _held_dims(probe: _Probe, plate: str, dim: int) -> dict[int, int]:
    """The dimension of a plate in each argument that an observed site holds, by its number."""
    found: dict[int, int] = {}
    for site in probe.observed.values():
        if any(frame.name == plate for frame in site["cond_indep_stack"]):
            for number in range(len(probe.parts)):
                order = _order_of(probe, number, site["value"])
                if order is not None and number not in found:
                    found[number] = order[dim - site["fn"].event_dim]
    return found


def _order_of(probe: _Probe, number: int, value: Tensor) -> tuple[int, ...] | None:
    """The order of an argument's dimensions in which it is a site's value; ``None``: it is not.

    A value in the memory of an argument is that argument's, or part of it. One in memory of its own
    is compared by its numbers, unless they are all the same.
    """
    part = probe.parts[number]
    if not isinstance(part, Tensor) or part.numel() != value.numel() or value.dim() < part.dim():
        return None
    lead = value.dim() - part.dim()  # batch dimensions of size one, without a plate
    if any(size != 1 for size in value.shape[:lead]) or part.dim() > LARGEST_TRANSPOSED:
        return None
    value = value[(0,) * lead]
    shared = any(
        isinstance(other, Tensor)
        and other.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
        for other in probe.parts
    )
    for order in permutations(range(part.dim())):
        turned = part.permute(order)
        if turned.shape == value.shape and (_is_view if shared else _is_copy)(turned, value):
            return order
    return None


def _is_view(part: Tensor, value: Tensor) -> bool:
    return part.data_ptr() == value.data_ptr() and part.stride() == value.stride()


def _is_copy(part: Tensor, value: Tensor) -> bool:
    varies = bool((value != value.flatten()[0]).any())
    return varies and torch.allclose(part.to(value), value, rtol=0, atol=0, equal_nan=True)


def _that_grow(
    model: Program,
    guide: Program,
    probe: _Probe,
    keywords: Sequence[str | None],
    readings: list[_Reading],
    seed: int,
) -> list[_Reading]:
    """Of several plates those whose size follows the number of rows, found with one row less."""
    growing = []
    for reading in readings:
        less = tuple(
            part if dim is None else part.narrow(dim, 0, part.shape[dim] - 1)
            for part, dim in zip(probe.parts, reading.rows_dims, strict=True)
        )
        again = _run(model, guide, less, keywords, seed)
        size = probe.frames[reading.plate][1]
        if again is not None and again.frames.get(reading.plate, (0, size))[1] == size - 1:
            growing.append(reading)
    return growing or readings


def _is_canonical(probe: _Probe, reading: _Reading, keywords: Sequence[str | None]) -> bool:
    """Whether a pair is called as the library calls it."""
    unsized = any(
        frame.name == reading.plate and frame.size == -1
        for site in probe.observed.values()
        for frame in site["cond_indep_stack"]
    )
    return (
        reading.plate == DATA_PLATE
        and not unsized
        and _subsample_size(probe, reading) is None
        and not probe.subsampled.keys() - {reading.plate}
        and all(dim == 0 for dim in reading.rows_dims)
        and all(keyword is None for keyword in keywords)
        and _position_of_x(probe, reading.rows_dims) == 0
    )


def _subsample_size(probe: _Probe, reading: _Reading) -> int | None:
    """How many of the rows that it is given the data plate draws itself, if it does."""
    size = probe.frames[reading.plate][1]
    given = {
        part.shape[dim]
        for part, dim in zip(probe.parts, reading.rows_dims, strict=True)
        if dim is not None
    }
    return probe.subsampled.get(reading.plate) if size in given else None


def _position_of_x(probe: _Probe, rows_dims: Sequence[int | None]) -> int:
    """The first argument that is observed, in whole or in part; the first one, if none is."""
    with_rows = [number for number, dim in enumerate(rows_dims) if dim is not None]
    for number in with_rows:
        for site in probe.observed.values():
            if _order_of(probe, number, site["value"]) is not None:
                return number
            if _is_part(probe, number, site["value"]):
                return number
    return with_rows[0]


def _is_part(probe: _Probe, number: int, value: Tensor) -> bool:
    """Whether a value lies in the memory of an argument, and of no other."""
    sharing = [
        other
        for other, part in enumerate(probe.parts)
        if isinstance(part, Tensor)
        and value.numel()
        and part.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
    ]
    return sharing == [number]


def _calling(
    probe: _Probe, reading: _Reading, parts: Parts, keywords: Sequence[str | None]
) -> Calling:
    """How a pair with a plate of data is called."""
    arguments = _arguments(probe, reading.rows_dims, parts, keywords)
    size = _subsample_size(probe, reading)
    return Calling(
        arguments,
        reading.plate,
        _guide_plate(probe, reading),
        subsample_size=size,
        taken_whole=tuple(probe.subsampled),
    )


def _guide_plate(probe: _Probe, reading: _Reading) -> str | None:
    """The guide's name of the data plate, if the guide gives it another one: by place and size.

    A plate of the model is no other name: it may be one of groups, as many as there are data.
    """
    size = probe.frames[reading.plate][1]
    in_guide = {f.name: f for site in probe.guide_sites for f in site["cond_indep_stack"]}
    if reading.plate in in_guide:
        return None
    names = [n for n, f in in_guide.items() if (f.dim, f.size) == (reading.dim, size)]
    in_model = {f.name for site in probe.model_sites for f in site["cond_indep_stack"]}
    return names[0] if len(names) == 1 and names[0] not in in_model else None


def _arguments(
    probe: _Probe,
    rows_dims: Sequence[int | None],
    parts: Parts,
    keywords: Sequence[str | None],
) -> tuple[Argument, ...]:
    """The arguments, x first among the rows."""
    first = _position_of_x(probe, rows_dims)
    with_rows = [number for number, dim in enumerate(rows_dims) if dim is not None]
    order = [first, *(number for number in with_rows if number != first)]
    given = enumerate(zip(parts, rows_dims, keywords, strict=True))
    return tuple(
        Argument(keyword=keyword, constant=part)
        if dim is None
        else Argument(order.index(number), dim, keyword)
        for number, (part, dim, keyword) in given
    )


def _whole(probe: _Probe, parts: Parts, keywords: Sequence[str | None]) -> Calling | None:
    """How a pair without a plate of data is called: all data together are one datum.

    ``None`` if a site has elements without a plate: its program may have forgotten the plate.
    """
    for site in probe.sites:
        owned = {frame.dim for frame in site["cond_indep_stack"]}
        shape = site["fn"].batch_shape
        if any(shape[dim] > 1 and dim not in owned for dim in range(-len(shape), 0)):
            return None
    dims = [f.dim for site in probe.sites for f in site["cond_indep_stack"] if f.dim is not None]
    rows_dims = [0 if has_rows(part) else None for part in parts]
    if not probe.observed or not any(isinstance(part, Tensor) for part in parts):
        return None
    return Calling(
        _arguments(probe, rows_dims, parts, keywords),
        None,
        nesting=max(map(abs, dims), default=0),
        taken_whole=tuple(probe.subsampled),
    )
