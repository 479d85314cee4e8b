"""Refit a guide that is not amortized to simulated data sets, for its calibration."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..pairs.calling import AdaptedProgram, as_written
from ..pairs.log_terms import sum_sites
from ..pairs.programs import (
    Program,
    StoredProgram,
    WrappedProgram,
    attributes_kept,
    evaluating,
    modules,
)
from ..pairs.sites import DATA_PLATE, latent_sites
from ..training.fit import fit
from ..training.learning_rates import hold_then_fall
from ..training.run import Run

REFIT_EPOCHS = 300
"""Epochs of a refit by :func:`refit_by_fit`."""


REFIT_RATE = 0.05
"""The learning rate at which such a refit starts; it falls to zero."""


Refit = Callable[[Program, Program, Any], Any]
"""Fits a guide to a simulated data set: ``refit(model, guide, data)``, with the programs as their
user wrote them, and data in the form in which they were given. It changes the guide's parameters in
place, or returns another guide, or what :func:`fit` returns."""


def refit_by_fit(model: Program, guide: Program, data: Any) -> Run:
    """Refit a guide by :func:`fit`, from its current parameters; the model's stay as they are.

    It takes :data:`REFIT_EPOCHS` epochs of Adam with the default objective. Where those are too few
    for the guide to come near its best, the refitted guide is wrong, and calibration says so.
    """
    with _frozen(model):
        return fit(
            WithoutParameters(model),
            guide,
            data,
            epochs=REFIT_EPOCHS,
            learning_rate=REFIT_RATE,
            schedule=hold_then_fall(REFIT_EPOCHS),
            show_progress=False,
        )


class WithoutParameters(WrappedProgram):
    """A program whose ``pyro.param`` statements are no parameters to fit."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program with the values that its parameters have."""
        with poutine.block(hide_types=["param"]), _Detached():
            return self.program(*args, **kwargs)


class _Detached(Messenger):
    def _pyro_post_param(self, msg: Any) -> None:
        msg["value"] = msg["value"].detach()


@contextlib.contextmanager
def _frozen(program: Program) -> Iterator[None]:
    """Keep the parameters of a program's modules out of a fit."""
    own = [p for root in modules(program, program).values() for p in root.parameters()]
    before = [value.requires_grad for value in own]
    try:
        for value in own:
            value.requires_grad_(False)
        yield
    finally:
        for value, wanted in zip(own, before, strict=True):
            value.requires_grad_(wanted)


def is_amortized(guide: Program, rows: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether a guide computes its posterior of global variables from the data that it is given.

    Seen by the density of one draw, given one data set and another.

    Args:
        guide: of whole data sets as one datum.
        rows: a data set.
        other: another data set.
    """
    drawn = poutine.trace(guide).get_trace(*rows)
    again = poutine.trace(poutine.replay(guide, trace=drawn)).get_trace(*other)
    names = [name for name, site in latent_sites(drawn).items() if _is_shared(site)]
    before, after = (
        sum_sites(
            [site for name, site in latent_sites(trace).items() if name in names or not names],
            (1, 1), False, rows[0],
        )[0]
        for trace in (drawn, again)
    )  # fmt: skip
    return not torch.equal(before, after)


def _is_shared(site: Any) -> bool:
    """Whether a site of a whole data set lies in none of the program's own plates."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.dim is not None]
    return all(frame.name == DATA_PLATE for frame in frames)


@contextlib.contextmanager
def refitted(
    model: AdaptedProgram, guide: AdaptedProgram, refit: Refit, args: tuple[Tensor, ...]
) -> Iterator[Program]:
    """The guide, refitted to a data set; all parameters are what they were afterwards.

    While it is used, the model's parameters are those that it had before.

    Args:
        args: the data set as one datum.
    """
    names = _param_names(model, guide, args)
    with values_kept(model, guide):
        with values_kept(model, model, names), torch.enable_grad(), torch.random.fork_rng():
            found = refit(as_written(model), as_written(guide), model.calling.given(args))
        if isinstance(found, Run):
            found = found.guide
        yield guide if found is None else guide.calling.adapt(as_written(found))


@contextlib.contextmanager
def values_kept(
    model: Program, guide: Program, names: Collection[str] | None = None
) -> Iterator[None]:
    """Restore the parameters of a pair: of its modules, and those of ``pyro.param`` statements.

    Args:
        names: of the ``pyro.param`` statements; all, if not given.
    """
    store = pyro.get_param_store()
    ambient: Any = store.get_state()
    states = [ambient, *_stores(model), *_stores(guide)]
    kept = [
        (value, value.detach().clone())
        for state in states
        for name, value in state["params"].items()
        if names is None or name in names
    ]
    try:
        with attributes_kept(model, guide):
            yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)
        if names is None:  # without what has been added
            store.clear()
            store.set_state(ambient)


def _stores(program: Program) -> list[dict[str, Any]]:
    """The parameters that programs keep for themselves."""
    found = []
    while isinstance(program, WrappedProgram):
        found += [program.store] if isinstance(program, StoredProgram) else []
        program = program.program
    return found


def _param_names(model: Program, guide: Program, args: tuple[Tensor, ...]) -> set[str]:
    """The names of a model's ``pyro.param`` statements."""
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        drawn = poutine.trace(guide).get_trace(*args)
        trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args)
    return {name for name, site in trace.nodes.items() if site.get("type") == "param"}
