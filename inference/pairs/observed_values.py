"""Which elements of which argument each observed site of a model observes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..common.seeding import set_seed
from .programs import Program, plain_errors
from .sites import observed_sites

SEED = 0
"""Seed of the runs: draws of latent sites are then the same in all of them."""


UNMOVED, TRANSFORMED = -1, -2
"""Codes of elements of a value that an argument does not change, or changes but does not give."""


@dataclass(frozen=True)
class Place:
    """The elements of the arguments that one observed site observes."""

    parts: tuple[tuple[int, Tensor | slice, Tensor | slice], ...]
    """The number of an argument; elements of the flattened value; those of the flattened argument
    that they are. An argument observed as it is has slices, which take no memory."""
    shape: torch.Size
    """Shape of the observed value."""

    def read(self, args: tuple[Tensor, ...]) -> Tensor:
        """The value that the site observes in these arguments, as a vector, in float64."""
        values = torch.empty(self.shape.numel(), dtype=torch.float64, device=args[0].device)
        for number, elements, among in self.parts:
            values[elements] = args[number].reshape(-1)[among].double()
        return values

    def write(self, args: tuple[Tensor, ...], value: Tensor) -> None:
        """Write a value of the site into the arguments, which are contiguous, in place.

        Raises:
            ValueError: if there are more or fewer values than the site observes.
        """
        if value.numel() != self.shape.numel():
            raise ValueError(
                f"an observed site draws {value.numel()} values, and observes "
                f"{self.shape.numel()}: each value must be observed once"
            )
        flat = value.reshape(-1)
        for number, elements, among in self.parts:
            argument = args[number].view(-1)
            argument[among] = flat[elements].to(argument)


@dataclass(frozen=True)
class ObservedValues:
    """Where the values of a model's observed sites come from; see :func:`find_observed_values`."""

    places: Mapping[str, Place]
    """The sites that observe elements of the arguments as they are: the data."""
    held: tuple[str, ...]
    """The sites whose value no argument changes, as ``pyro.condition`` gives it."""
    refused: Mapping[str, str]
    """The other sites: those that observe data, but not as they are given; and why."""

    @property
    def sites_by_argument(self) -> dict[int, tuple[str, ...]]:
        """The sites that observe each argument, in whole or in part, by the argument's number."""
        found: dict[int, tuple[str, ...]] = {}
        for name, place in self.places.items():
            for number, _, _ in place.parts:
                found[number] = (*found.get(number, ()), name)
        return dict(sorted(found.items()))

    @property
    def names(self) -> dict[int, str]:
        """A name of each observed argument, by its number: that of the site that observes it.

        Where several do (``x[:, t]`` in a time loop), the first and the last: ``"x_0…x_9"``.
        """
        found: dict[int, str] = {}
        for number, sites in self.sites_by_argument.items():
            name = sites[0] if len(sites) == 1 else f"{sites[0]}…{sites[-1]}"
            found[number] = f"{name} ({number})" if name in found.values() else name
        return found

    def num_observed(self, number: int) -> int:
        """How many elements of an argument are observed."""
        return sum(
            place.shape.numel() if isinstance(among, slice) else len(among)
            for place in self.places.values()
            for position, _, among in place.parts
            if position == number
        )


def find_observed_values(program: Program, args: tuple[Tensor, ...]) -> ObservedValues:
    """Find which elements of which argument each observed site of a program observes.

    A value that is a view of an argument (``x``, ``x[:, t]``, ``x.T``) tells it by its place in
    memory. For any other (``y.float()``, ``torch.cat([x, y], -1)``), each argument in turn is
    filled with binary digits of its elements' numbers, written with two of its own values, and the
    program is run once for each digit. The result is exact; each site has one of three roles:

    - *data*: its value consists of elements of the arguments, as they are, each observed once;
    - *held*: its value is the same whatever the arguments are, as that of ``pyro.condition``. It is
      part of log p and an observed value of the model, but never the data: it is not simulated;
    - *refused*: it observes a transform of an argument, or what another site observes too.

    The state of the random generators is kept. Factors and deterministic sites observe nothing.

    >>> import pyro.distributions as dist
    >>> def model(x, y):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("first", dist.Normal(0.0, 1.0), obs=x[:, 0])
    ...         pyro.sample("label", dist.Bernoulli(0.5), obs=y.float())
    ...         pyro.sample("log", dist.Normal(0.0, 1.0), obs=x[:, 1].log())
    >>> found = find_observed_values(model, (torch.rand(3, 2), torch.tensor([0, 1, 1])))
    >>> {name: place.parts[0][2].tolist() for name, place in found.places.items()}
    {'first': [0, 2, 4], 'label': [0, 1, 2]}
    >>> found.refused
    {'log': 'a transform of x: transform x before it is given to the model'}
    """
    with torch.random.fork_rng(), pyro.validation_enabled(False), plain_errors():
        set_seed(SEED)
        copies = contiguous_copies(args)
        values = _observe(program, copies)
        places, unknown = {}, []
        for name, value in values.items():
            place = _place_in_memory(value, copies)
            if place is None or not torch.equal(place.read(args), value.double().reshape(-1)):
                unknown.append(name)
            else:
                places[name] = place
        held, refused = [], {}
        if unknown:
            decoded = _Decoder(program, args, values, tuple(unknown)).decode()
            for name, found in decoded.items():
                if isinstance(found, Place):
                    places[name] = found
                elif found is None:
                    held.append(name)
                else:
                    refused[name] = found
    places = {name: places[name] for name in values if name in places}
    for name, reason in _observed_twice(places, args).items():
        del places[name]
        refused[name] = reason
    return ObservedValues(places, tuple(held), refused)


def contiguous_copies(args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies of the arguments, each contiguous in memory of its own."""
    return tuple(arg.detach().clone(memory_format=torch.contiguous_format) for arg in args)


def _observe(program: Program, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The values that a program observes in these arguments, by site."""
    trace = poutine.trace(program).get_trace(*args)
    found = {name: site["value"] for name, site in observed_sites(trace).items()}
    return {name: value for name, value in found.items() if value.numel()}


def _place_in_memory(value: Tensor, args: tuple[Tensor, ...]) -> Place | None:
    """The place of a value that is a view of an argument; ``None`` if it is none."""
    for number, argument in enumerate(args):
        shares = value.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr()
        if shares and value.dtype == argument.dtype:
            if value.is_contiguous() and value.numel() == argument.numel():
                return Place(((number, slice(None), slice(None)),), value.shape)
            elements = torch.arange(argument.numel(), device=argument.device)
            strides = value.stride(), value.storage_offset()
            among = elements.as_strided(value.shape, *strides).reshape(-1)
            whole = torch.arange(len(among), device=among.device)
            return Place(((number, whole, among),), value.shape)
    return None


class _Decoder:
    """Finds the places of values that are copies, by running the program on coded arguments.

    Args:
        program: the program.
        args: its arguments.
        values: what each site observes in them.
        names: the sites to be found.
    """

    def __init__(
        self,
        program: Program,
        args: tuple[Tensor, ...],
        values: Mapping[str, Tensor],
        names: tuple[str, ...],
    ):
        self.program, self.args, self.values, self.names = program, args, values, names

    def decode(self) -> dict[str, "Place | str | None"]:
        """The place of each site; a reason why it has none; ``None`` if no argument changes it."""
        found: dict[str, list[tuple[int, Tensor, Tensor]]] = {name: [] for name in self.names}
        transforms: dict[str, list[int]] = {name: [] for name in self.names}
        for number in range(len(self.args)):
            for name, among in self._elements(number).items():
                moved = among != UNMOVED
                if (among == TRANSFORMED).any():
                    transforms[name].append(number)
                elif moved.any():
                    elements = moved.nonzero().flatten()
                    found[name].append((number, elements, among[elements]))
        return {name: self._settle(name, found[name], transforms[name]) for name in self.names}

    def _settle(
        self, name: str, parts: list[tuple[int, Tensor, Tensor]], transforms: list[int]
    ) -> "Place | str | None":
        if transforms:
            return _transform_of(*transforms)
        value = self.values[name]
        if not parts:
            again = self._run(self.args, SEED + 1)
            same = again is not None and torch.equal(again[name], value)
            return None if same else "what the program itself draws: give it as an argument"
        elements = torch.cat([part[1] for part in parts])
        if len(elements) != value.numel() or len(elements.unique()) != len(elements):
            return "data beside other values: observe the data alone"
        place = Place(tuple(parts), value.shape)
        if not torch.equal(place.read(self.args), value.double().reshape(-1)):
            return _transform_of(parts[0][0])
        return place

    def _elements(self, number: int) -> dict[str, Tensor]:
        """The element of an argument that each element of a site's value is, or a code below 0."""
        argument = self.args[number]
        low, high = _two_values(argument)
        index = torch.arange(argument.numel(), device=argument.device)

        def run(digit: int, flip: bool = False) -> dict[str, Tensor] | None:
            bits = ((index >> digit) & 1).bool() ^ flip
            coded = torch.where(bits, high, low).reshape(argument.shape)
            return self._run((*self.args[:number], coded, *self.args[number + 1 :]), SEED)

        first, flipped = run(0), run(0, flip=True)
        if first is None or flipped is None:
            return {name: _all(TRANSFORMED, self.values[name]) for name in self.names}
        moved = {name: (first[name] != flipped[name]).reshape(-1) for name in self.names}
        if not any(flags.any() for flags in moved.values()):
            return {name: _all(UNMOVED, self.values[name]) for name in self.names}
        runs = [first, *(run(digit) for digit in range(1, _num_digits(argument.numel())))]
        found = {}
        for name in self.names:
            among, copied = _all(0, self.values[name]), moved[name].clone()
            for digit, values in enumerate(runs):
                if values is None:
                    copied = torch.zeros_like(copied)
                    break
                value = values[name].reshape(-1)
                is_high = value == high.to(value)
                copied &= is_high | (value == low.to(value))
                among = among + (is_high.long() << digit)
            among = torch.where(copied & (among < argument.numel()), among, TRANSFORMED)
            found[name] = torch.where(moved[name], among, UNMOVED)
        return found

    def _run(self, args: tuple[Tensor, ...], seed: int) -> dict[str, Tensor] | None:
        """What the program observes; ``None`` where it fails, or observes other shapes."""
        set_seed(seed)
        try:
            values = _observe(self.program, contiguous_copies(args))
        except Exception:  # a user's program may fail on other arguments in any way
            return None
        same = all(
            name in values and values[name].shape == self.values[name].shape for name in self.names
        )
        return values if same else None


def _transform_of(*numbers: int) -> str:
    names = " and ".join(f"context {number}" if number else "x" for number in numbers)
    return f"a transform of {names}: transform {names} before it is given to the model"


def _all(code: int, value: Tensor) -> Tensor:
    return torch.full((value.numel(),), code, device=value.device)


def _num_digits(count: int) -> int:
    """Binary digits of the numbers 0 … count − 1."""
    return max(1, math.ceil(math.log2(count)))


def _two_values(argument: Tensor) -> tuple[Tensor, Tensor]:
    """Two values that an argument may take: its least and its largest, if they differ."""
    if argument.dtype == torch.bool:
        return argument.new_zeros(()), argument.new_ones(())
    low, high = argument.min(), argument.max()
    return low, high if high > low else low + 1


def _observed_twice(places: Mapping[str, Place], args: tuple[Tensor, ...]) -> dict[str, str]:
    """The sites that observe what another site, or they themselves, observe already."""
    names = list(places)
    owner = [torch.full((arg.numel(),), -1, device=arg.device) for arg in args]
    found = {}
    for position, (name, place) in enumerate(places.items()):
        for number, _, among in place.parts:
            others = owner[number][among]
            if (others >= 0).any():
                found[name] = (
                    f"data that {names[int(others.max())]!r} observes too: let one site observe "
                    "each value"
                )
            elif not isinstance(among, slice) and len(among.unique()) < len(among):
                found[name] = "the same values more than once: let it observe each once"
            owner[number][among] = position
    return found
