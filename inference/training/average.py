"""An exponential moving average of the weights, kept and evaluated beside the plain ones."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..pairs.programs import Program, StoredProgram
from . import checkpoints
from .callbacks import Callback, FitView
from .measurement import measure
from .preparation import Preparation
from .state import State


class ExponentialMovingAverage(Callback):
    """Keep an exponential moving average of the weights beside the plain ones.

    ::

        w̄ ← decay · w̄ + (1 − decay) · w    after each step, from the initial weights

    The fit itself goes on with the plain weights, and its numbers stay the same. The average is in
    the checkpoint of each epoch, so a resumed run goes on with it bit for bit, and the history has
    its bound and the terms of it: ``ema_elbo``, ``ema_kl``, ``ema_validation_elbo``, … Buffers,
    such as batch statistics, are those of the plain weights. :meth:`Run.averaged` puts the average
    into the pair. It is that of the last epoch, also where ``patience`` keeps the best one.

    Very deep VAEs are evaluated at it (Child 2021, arXiv 2011.10650, with a decay of 0.9999). It
    remembers some 1 / (1 − decay) steps: a run should have several times as many.

    Args:
        decay: between 0 and 1, neither of them.

    Raises:
        ValueError: if ``decay`` is not between 0 and 1; in a fit, if it is given twice, or a run is
            resumed with another decay, or without it.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.inference import fit
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(3, 1), DiagonalNormal(mlp(3, out=2), 1)
    >>> run = fit(model, guide, torch.randn(80, 3), epochs=2, show_progress=False,
    ...           callbacks=[ExponentialMovingAverage(0.9)])
    >>> [name for name in run.history[-1] if name.startswith("ema_")]
    ['ema_elbo', 'ema_reconstruction', 'ema_kl']
    >>> plain = model.weight.detach().clone()
    >>> with run.averaged():
    ...     print(torch.equal(model.weight, plain))
    False
    """

    def __init__(self, decay: float = 0.999):
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self.decay = decay


class KeepAverage(Callback):
    """What a fit does for an :class:`ExponentialMovingAverage`: the average is in its state."""

    def __init__(self, fit: Preparation, state: State, decay: float):
        self.fit, self.state, self.decay = fit, state, decay
        self.move = get_ema_multi_avg_fn(decay)
        if state.average_decay not in (None, decay):
            raise ValueError(
                f"the run was made with ExponentialMovingAverage({state.average_decay}), not "
                f"({decay})"
            )
        state.average_decay = decay
        weights = fit.weights
        if not state.average:
            state.average = {name: value.detach().clone() for name, value in weights.items()}
        trained = {id(value) for value in fit.named.values()}
        names = [name for name, value in weights.items() if id(value) in trained]
        self.plain = [weights[name] for name in names]
        self.averages = [state.average[name] for name in names]

    def on_step_end(self, view: FitView, step: int, loss: Tensor) -> None:
        """Move the average."""
        with torch.no_grad():
            for average, plain in zip(*self._by_type(), strict=True):
                self.move(average, plain, 0)

    def _by_type(self) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Averages and weights in lists of one type each, as PyTorch takes them."""
        averages: dict[torch.dtype, list[Tensor]] = {}
        plain: dict[torch.dtype, list[Tensor]] = {}
        for average, value in zip(self.averages, self.plain, strict=True):
            averages.setdefault(value.dtype, []).append(average)
            plain.setdefault(value.dtype, []).append(value.detach())
        return list(averages.values()), list(plain.values())


def measure_average(fit: Preparation, state: State) -> dict[str, float]:
    """Measure the bound at the average, as :func:`measure` does: ``ema_elbo``, …"""
    weights = fit.weights
    trained = {id(value) for value in fit.named.values()}
    for name, value in weights.items():
        if id(value) not in trained:
            state.average[name].copy_(value.detach())
    with exchanged(weights, state.average):
        row = measure(fit, "ema_", fit.measured)
        if fit.data.validation is not None:
            row |= measure(fit, "ema_validation_", fit.data.validation)
    return row


@contextlib.contextmanager
def exchanged(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other values into some weights, by name, and put back their own at the end."""
    own = {name: value.detach().clone() for name, value in weights.items()}
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(others[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(own[name])


@contextlib.contextmanager
def averaged(model: Program, guide: Program, average: Mapping[str, Tensor]) -> Iterator[None]:
    """Put the average of a fit into its pair, and put back the pair's own weights at the end.

    Raises:
        ValueError: if the fit kept no average.
    """
    if not average:
        raise ValueError(
            "the fit kept no average of the weights: give it callbacks=[ExponentialMovingAverage()]"
        )
    stored = model.store["params"] if isinstance(model, StoredProgram) else {}
    named = {f"param.{name}": value for name, value in stored.items()}
    weights = checkpoints.weights(model, guide, named)
    checkpoints.check_weights(weights, average, "the average")
    with exchanged(weights, average):
        yield
