"""Skip the steps of a fit whose gradient is too large, or not finite."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from .callbacks import Callback


class SkipSteps(Callback):
    """Skip steps whose gradient is too large or not finite, count them, and give up at too many.

    Deep hierarchies have a few batches whose gradient is thousands of times as large as the others;
    one such step undoes an epoch's work (Child 2021, arXiv 2011.10650). A skipped step leaves
    weights and optimizer as they were, and its loss is left out of the column ``loss``. The history
    has their number, ``skipped_steps``. ``clip_norm`` still shortens the gradients of the others.

    Args:
        above: the norm of the gradient of the loss per datum, in nats, above which a step is
            skipped, as for ``clip_norm`` of :func:`fit`. By default only steps are skipped whose
            loss or gradient is not finite.
        at_most: so many steps skipped in a row end the fit with an error: the weights no longer
            change then, so that most likely no later step is better. They are looked at once in so
            many steps, and after each epoch.

    Raises:
        ValueError: if ``above`` is not positive, or ``at_most`` is less than 1; in a fit, if it is
            given twice.
        FloatingPointError: in a fit, if ``at_most`` steps are skipped in a row.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.inference import fit
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(3, 1), DiagonalNormal(mlp(3, out=2), 1)
    >>> run = fit(model, guide, torch.randn(80, 3), epochs=1, batch_size=20, show_progress=False,
    ...           callbacks=[SkipSteps(above=1000.0)])
    >>> run.history[0]["skipped_steps"]
    0
    """

    def __init__(self, above: float = math.inf, *, at_most: int = 100):
        if not above > 0:
            raise ValueError(f"above must be positive, got {above}")
        if at_most < 1:
            raise ValueError(f"at_most must be at least 1, got {at_most}")
        self.above, self.at_most = above, at_most


class Skipping:
    """The steps that a fit has skipped, and the update of the others.

    Whether a step is skipped stays on the device: it is read once in ``at_most`` steps, and after
    each epoch.

    Args:
        rule: which steps are skipped.
        num_data: N: the loss is of all data, and its gradient N times that per datum.
        in_a_row: how many steps were skipped in a row up to now, as a resumed run has it.
    """

    def __init__(self, rule: SkipSteps, num_data: int, in_a_row: int = 0):
        self.rule, self.limit = rule, rule.above * num_data
        self.in_a_row = torch.tensor(in_a_row)
        self.most_in_a_row = torch.tensor(in_a_row)
        self.flags: list[Tensor] = []
        """Whether each step of the epoch was skipped."""

    def update(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        optimizer: Optimizer,
        move: Callable[[], None],
    ) -> None:
        """Update the parameters, unless their gradients or the loss forbid it.

        Raises:
            FloatingPointError: if too many steps in a row were skipped.
        """
        gradients = [value.grad for value in parameters if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        good = (norm <= self.limit) & norm.isfinite() & loss.isfinite().all()
        _update_if(good, parameters, optimizer, move)
        if not self.flags:
            self.in_a_row = self.in_a_row.to(norm.device)
            self.most_in_a_row = self.in_a_row
        self.in_a_row = torch.where(good, 0, self.in_a_row + 1)
        self.most_in_a_row = torch.maximum(self.most_in_a_row, self.in_a_row)
        self.flags.append(~good)
        if len(self.flags) % self.rule.at_most == 0:
            self.check()

    def check(self) -> None:
        """Give up if too many steps in a row were skipped.

        Raises:
            FloatingPointError: with what to change.
        """
        count = int(self.most_in_a_row)
        if count >= self.rule.at_most:
            what = "are not finite"
            if math.isfinite(self.rule.above):
                what += f", or above {self.rule.above:g} per datum"
            raise FloatingPointError(
                f"{count} steps in a row were skipped, as their gradients {what}: lower the "
                "learning rate, set clip_norm, or let SkipSteps allow a larger norm"
            )

    def finish_epoch(self) -> Tensor:
        """Which steps of the epoch were skipped, on CPU; the next epoch is counted anew.

        Raises:
            FloatingPointError: as :meth:`check` does.
        """
        self.check()
        flags, self.flags = torch.stack(self.flags).cpu(), []
        return flags


def _update_if(
    good: Tensor, parameters: Sequence[Tensor], optimizer: Optimizer, move: Callable[[], None]
) -> None:
    """Update the parameters if it is good to, without waiting for an accelerator's answer.

    There the update is always made, and undone where it is not good. The state of an optimizer that
    has none yet, or numbers of Python in it, cannot be put back, so that the answer is read.
    """
    entries = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [value for value in entries if isinstance(value, Tensor)]
    if good.device.type == "cpu" or not entries or len(tensors) < len(entries):
        if bool(good):
            move()
        return
    _update_or_undo(good, [*parameters, *tensors], move)


def _update_or_undo(good: Tensor, changed: Sequence[Tensor], move: Callable[[], None]) -> None:
    """Update some tensors, and put them back where it was not good to, without reading that."""
    before = [value.detach().clone() for value in changed]
    move()
    with torch.no_grad():
        for value, old in zip(changed, before, strict=True):
            value.copy_(torch.where(good.to(value.device), value, old))
