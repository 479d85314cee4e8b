"""Separate runs of a program for each of many samples, done at once where the program allows it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock
from weakref import WeakSet

import pyro
import torch
from torch import Tensor
from torch.distributions import lowrank_multivariate_normal, multivariate_normal, normal
from torch.func import vmap

from .programs import Program, attributes_kept

_ONE_BY_ONE: WeakSet[Any] = WeakSet()
"""Programs that cannot be mapped, as they look at the values of tensors, say."""


def map_runs(
    program: Program,
    run: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    drawn: Sequence[int] = (),
) -> tuple[Tensor, ...]:
    """Call ``run`` for each sample of the inputs (S, …), and stack its results along dimension 0.

    ``torch.func.vmap`` gives what separate runs give, in one. Where a program cannot be mapped
    (it branches on values, or draws its random numbers elsewhere than in PyTorch), its runs are
    made one by one, from the same random state.

    Args:
        program: the program that ``run`` runs.
        run: what is called for each sample.
        inputs: of each sample, along dimension 0.
        drawn: the numbers of the results that are random, which differ from run to run.
    """
    before = torch.get_rng_state()
    with pyro.validation_enabled(False):
        if program not in _ONE_BY_ONE:
            with contextlib.suppress(Exception):  # a user's program may fail there in any way
                # What a program keeps of a mapped run is of no use after it.
                with attributes_kept(program, program), _mappable():
                    found = vmap(run, randomness="different")(*inputs)
                if all(_differ(found[number]) for number in drawn):
                    return found
            torch.set_rng_state(before)
            with contextlib.suppress(TypeError):  # no weak reference to it
                _ONE_BY_ONE.add(program)
        results = [run(*one) for one in zip(*inputs, strict=True)]
    return tuple(torch.stack(part) for part in zip(*results, strict=True))


def _differ(values: Tensor) -> bool:
    """Whether the values (S, …) of some samples differ, as those of random draws do."""
    return len(values) < 2 or values.numel() == 0 or bool((values != values[:1]).any())


@contextlib.contextmanager
def _mappable() -> Iterator[None]:
    """Draw normal values by an operation that ``vmap`` has a rule for, which filling has not."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # An operation without a rule is slower, and no worry of the user's.
        warnings.filterwarnings("ignore", "There is a performance drop")
        for module in (normal, multivariate_normal, lowrank_multivariate_normal):
            stack.enter_context(mock.patch.object(module, "_standard_normal", _standard_normal))
        yield


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    return torch.randn(tuple(shape), dtype=dtype, device=device)
