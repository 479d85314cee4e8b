"""Draw the data of a model site by site, each given those before it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Distribution
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform

from ..pairs.chains import StepEmissions
from ..pairs.observed_values import ObservedValues, contiguous_copies, find_observed_values
from ..pairs.programs import Program, plain_errors
from ..pairs.sites import (
    is_deterministic,
    latent_sites,
    observed_sites,
    sample_sites,
)

SAME_LOG_PROB = 1e-3
"""Log densities that differ by less, absolutely or as a share, are of one distribution."""


SAME_PARAMETER = 1e-4
"""Parameters of distributions that differ by a smaller share are the same."""


class SampleObserved(UnconditionMessenger):
    """Pyro handler under which a program draws its observed sites.

    A deterministic site is left alone: if it were drawn, a plate would expand its values again. So
    are the sites in ``held``, which keep the value that the program gives them.
    """

    def __init__(self, held: tuple[str, ...] = ()):
        super().__init__()
        self.held = held

    def _pyro_sample(self, msg: Any) -> None:
        if not is_deterministic(msg) and msg["name"] not in self.held:
            super()._pyro_sample(msg)


class DrawData(SampleObserved):
    """Pyro handler under which a program draws its data, and writes them into its arguments.

    Each value is written as soon as it is drawn, so a program that reads ``x[:, t - 1]`` at time t
    reads the value that was drawn.

    Args:
        observed: where the sites' values stand in the arguments.
        args: the arguments that the program runs on, contiguous; they are changed in place.
        watch: whether to note each site's distribution.
    """

    def __init__(self, observed: ObservedValues, args: tuple[Tensor, ...], *, watch: bool = True):
        super().__init__(observed.held)
        self.places, self.args, self.watch = observed.places, args, watch
        self.given: dict[str, Snapshot] = {}
        """Each site's distribution, as it was when the site was drawn."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.watch and not isinstance(msg["fn"], _Subsample) and not is_deterministic(msg):
            self.given[msg["name"]] = snapshot_of(msg, msg["value"])
        if msg["name"] in self.places:
            self.places[msg["name"]].write(self.args, msg["value"])


def was_observed(site: Any) -> bool:
    """Whether a site was observed before :class:`SampleObserved` drew it."""
    return bool(site["infer"].get("was_observed"))


def draw_data(
    model: Program,
    args: tuple[Tensor, ...],
    observed: ObservedValues | None = None,
    given: Trace | None = None,
    *,
    check: bool = True,
) -> tuple[tuple[Tensor, ...], Trace]:
    """Draw the latent variables and the data of a model, each site given those before it.

    The program is run with its observed sites drawn, and each value written into the arguments at
    once. Then it is run again on the drawn data: if a site has another distribution there than the
    one it was drawn from, because the program read data before they were drawn (as
    ``cat([0, x[:-1]])`` at its start does), all sites before it are kept and the others drawn anew.

    Args:
        model: Pyro program ``model(x, *context)``.
        args: arguments of the shape of the data; the elements that no site observes are kept.
        observed: what :func:`find_observed_values` finds for such arguments; found, if not given.
        given: sites whose values are kept, and not drawn.
        check: whether to run the program again on the drawn data. If not, the first run is taken,
            which is right for a model with one observed site that was checked before.

    Returns:
        The arguments with drawn data, and the trace of the run that drew them.

    Raises:
        ValueError: if the distribution of a site depends on its own value, or on data drawn after
            it, or if the argument cannot hold what the site draws.
    """
    if observed is None:
        observed = find_observed_values(poutine.replay(model, trace=given or Trace()), args)
    nodes: dict[str, Any] = {} if given is None else dict(given.nodes)
    kept = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    fixed = _as_trace(kept)
    while True:
        copies = contiguous_copies(args)
        handler = DrawData(observed, copies, watch=check)
        with pyro.validation_enabled(False), plain_errors():
            program = poutine.replay(handler(model), trace=fixed)
            drawn = poutine.trace(program).get_trace(*copies)
            if not check:
                return copies, drawn
            again = poutine.trace(poutine.replay(model, trace=_drawn(drawn))).get_trace(*copies)
            _check_written(observed, copies, drawn, again)
            given_at = {name: s for name, s in handler.given.items() if name not in kept}
            changed = _first_changed(given_at, drawn, again)
        if changed is None:
            return copies, drawn
        before = _sites_before(changed, drawn)
        if len(before.keys() | kept.keys()) <= len(fixed):
            raise ValueError(_depends_on_itself(changed, observed))
        fixed, args = _as_trace({**before, **kept}), copies


def is_drawn_at_once(model: Program, args: tuple[Tensor, ...]) -> bool:
    """Whether no site of a model has another distribution on data drawn than on data given.

    If so, one run that draws all sites, with the given data as arguments, draws from the model.
    """
    observed = find_observed_values(model, args)
    copies = contiguous_copies(args)
    handler = DrawData(replace(observed, places={}), copies)
    with pyro.validation_enabled(False), plain_errors():
        drawn = poutine.trace(handler(model)).get_trace(*copies)
        for name, place in observed.places.items():
            place.write(copies, sample_sites(drawn)[name]["value"])
        again = poutine.trace(poutine.replay(model, trace=_drawn(drawn))).get_trace(*copies)
        return _first_changed(handler.given, drawn, again) is None


def _depends_on_itself(name: str, observed: ObservedValues) -> str:
    what = "x" if name in observed.places else "the data"
    return (
        f"the distribution at {name!r} depends on the x that the model is given: {what} cannot be "
        "drawn from it at once, so data cannot be simulated"
    )


def _as_trace(sites: Mapping[str, Any]) -> Trace:
    """A trace to replay a program at: all its sites count as drawn."""
    trace = Trace()
    for name, site in sites.items():
        node = {"type": "sample", "is_observed": False, "value": site["value"]}
        trace.add_node(name, **node, infer=site["infer"])
    return trace


def _drawn(trace: Trace) -> Trace:
    """The latent sites of a trace of drawn data, without the data."""
    sites = {name: site for name, site in latent_sites(trace).items() if not was_observed(site)}
    return _as_trace(sites)


def _sites_before(name: str, trace: Trace) -> dict[str, Any]:
    """The drawn sites that come before a site."""
    sites = latent_sites(trace)
    names = list(sites)
    return {before: sites[before] for before in names[: names.index(name)]}


@dataclass(frozen=True)
class Snapshot:
    """A distribution as it is now: its tensors may share memory with the data to be drawn."""

    log_prob: Tensor
    """Log density of a value."""
    tensors: Mapping[str, Tensor]
    """Copies of its parameters."""

    def is_like(self, other: "Snapshot") -> bool:
        """Whether the other is of the same distribution."""
        close = {"rtol": SAME_LOG_PROB, "atol": SAME_LOG_PROB, "equal_nan": True}
        if not torch.allclose(self.log_prob, other.log_prob, **close):
            return False
        # Densities of uniform distributions may agree at a value where their bounds do not.
        return all(
            _is_close(tensor, other.tensors[name])
            for name, tensor in self.tensors.items()
            if name in other.tensors
        )


def _is_close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    scale = first.abs().nan_to_num(0.0, 0.0, 0.0).max().item() if first.numel() else 1.0
    close = {"rtol": SAME_PARAMETER, "atol": 1e-3 * SAME_PARAMETER * scale, "equal_nan": True}
    return torch.allclose(first, second, **close)


def snapshot_of(site: Any, value: Tensor) -> Snapshot:
    """The distribution of a site, as it is now, with its density at a value."""
    distribution = site["fn"]
    return Snapshot(distribution.log_prob(value), dict(_tensors(distribution)))


def _tensors(part: Any, path: str = "", within: tuple[Any, ...] = ()) -> Any:
    """Copies of the tensors that a distribution is made of, with their paths.

    Args:
        within: what contains the part: a transform and its inverse contain one another.
    """
    for name, value in list(vars(part).items()):
        if name.startswith("_cached"):  # what a transform remembers of its last value
            continue
        for number, inner in enumerate(value if isinstance(value, list) else [value]):
            here = f"{path}.{name}.{number}"
            if isinstance(inner, Tensor):
                yield here, inner.detach().clone()
            elif isinstance(inner, Distribution | TorchDistribution | Transform) and not any(
                inner is outer for outer in within
            ):
                yield from _tensors(inner, here, (*within, part))


def _first_changed(given: Mapping[str, Snapshot], drawn: Trace, again: Trace) -> str | None:
    """The first site that was drawn from another distribution than it has on the drawn data."""
    values, sites = latent_sites(drawn), sample_sites(again)
    for name, before in given.items():
        if name not in sites:
            raise ValueError(
                f"the model has no site {name!r} on data that it draws itself: which sites it has "
                "depends on the data, so data cannot be simulated"
            )
        if name in values and not before.is_like(snapshot_of(sites[name], values[name]["value"])):
            return name
    return None


def _check_written(
    observed: ObservedValues, args: tuple[Tensor, ...], drawn: Trace, again: Trace
) -> None:
    """Refuse draws that did not reach their site through the arguments."""
    values, sites = sample_sites(drawn), observed_sites(again)
    for name, place in observed.places.items():
        written, value = place.read(args), values[name]["value"].double().reshape(-1)
        if name not in sites or not torch.equal(sites[name]["value"].double().reshape(-1), written):
            raise ValueError(
                f"data cannot be drawn from the model: {name!r} observes a transform of them: "
                "transform x before it is given to the model"
            )
        # Floats are rounded to the argument's dtype; whole numbers would be something else.
        if not torch.allclose(written, value, rtol=1e-2, atol=1e-6, equal_nan=True):
            dtype = args[place.parts[0][0]].dtype
            raise ValueError(
                f"the site {name!r} draws values that its argument, of {dtype}, cannot hold: give "
                "that argument as floats"
            )


def check_unmasked(name: str, site: Any) -> None:
    """Refuse a site of x that is partly masked: the model does not define x there.

    The masks of a sequence's own distribution are of its padding, which is no data.

    Raises:
        ValueError: with the name of the site.
    """
    distribution = site["fn"]
    masks = [site["mask"]]
    while hasattr(distribution, "base_dist") and not isinstance(distribution, StepEmissions):
        masks.append(getattr(distribution, "_mask", None))
        distribution = distribution.base_dist
    if any(mask is not None and not torch.as_tensor(mask).all() for mask in masks):
        raise ValueError(
            f"{name!r} is masked for some data: the model does not define x there, so x cannot be "
            "simulated from it"
        )
