"""One step of a fit: loss, gradients, clipping and the update, from a recording if possible."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ..execution.precision import Precision
from ..execution.recorded import RECORD_AFTER, Compile, Recorded
from ..objectives.pyro_objectives import LossFunction, differentiable_loss
from ..pairs.minibatch_scaling import ScaleData
from ..pairs.parameters import buffers
from ..pairs.programs import Program, attributes_kept, modules
from .skipping import Skipping


class Step:
    """One step of stochastic variational inference on a minibatch.

    Loss and gradients come from a recording once that pays (:class:`Recorded`); a fused Adam is
    called without its bookkeeping. A recorded step never reads a value, so it never waits for a
    device.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments.
        objective: any ``pyro.infer.ELBO``, or a function of model, guide and batch; one without a
            differentiable loss is not recorded.
        named: the parameters, by name.
        optimizer: the optimizer of these parameters.
        num_data: N, the number of data that a minibatch stands for.
        clip_norm: largest norm of the gradient of the loss per datum.
        compile: see :class:`Recorded`, as for the two arguments below.
        precision: precision of the networks' products.
        record_after: seconds of plain steps before the recording.

    Raises:
        ValueError: if ``compile`` or ``precision`` is not known; at a step, if Inductor fails.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        objective: ELBO | LossFunction,
        named: Mapping[str, Tensor],
        optimizer: Optimizer,
        *,
        num_data: int,
        clip_norm: float | None = None,
        compile: Compile = "recorded",
        precision: Precision = "float32",
        record_after: float = RECORD_AFTER,
    ):
        self.model, self.guide, self.objective = model, guide, objective
        self.parameters, self.optimizer = list(named.values()), optimizer
        self.num_data, self.clip_norm = num_data, clip_norm
        self.skipping: Skipping | None = None
        """Which steps are skipped, if a fit has :class:`SkipSteps`."""
        self.differentiable_loss = differentiable_loss(objective)
        differentiable = self.differentiable_loss is not None
        self.loss_and_gradients = Recorded(
            self._loss_and_gradients if differentiable else self._loss_and_own_gradients,
            tensors=[*self.parameters, *buffers(model, guide)],
            keeping=partial(attributes_kept, model, guide),
            compile=compile if differentiable else "plain",
            precision=precision,
            record_after=record_after,
        )
        if not differentiable and compile != "plain":
            name = type(objective).__name__
            self.loss_and_gradients.note = f"{name} has no differentiable loss"

    @property
    def note(self) -> str:
        """Why steps could not be recorded; empty if they could."""
        return self.loss_and_gradients.note

    def __call__(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Update the parameters once; the loss of all data before that, in nats, on the device.

        Where the objective has several losses, as ``ReweightedWakeSleep`` does, they are a vector.
        """
        loss, gradients = self.loss_and_gradients(*batch)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.skipping is None:
            self.move()
        else:
            self.skipping.update(loss, self.parameters, self.optimizer, self.move)
        return loss.clone() if self.loss_and_gradients.stays else loss

    def move(self) -> None:
        """Clip the gradients, and update the parameters."""
        if self.clip_norm is not None:
            # The loss is of all data: its gradient is num_data times that per datum.
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm * self.num_data)
        _fused_update(self.optimizer)

    def loss(self, *batch: Tensor) -> Tensor:
        """The loss of all data, to be differentiated."""
        assert self.differentiable_loss is not None
        return self.differentiable_loss(self.model, self.guide, *batch)

    def _loss_and_gradients(self, *batch: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with ScaleData(self.num_data):
            loss = self.loss(*batch)
        # In a recording Pyro's sums are in float64, as those of Python's numbers are.
        value = loss.detach().to(self.parameters[0].dtype)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return value, tuple(map(_laid_out, gradients, self.parameters))

    def _loss_and_own_gradients(self, *batch: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The same from an objective that computes its gradients itself.

        It does so only for parameters that it finds in the statements of a trace.
        """
        owned = modules(self.model, self.guide)

        def stating(*args: Any, **kwargs: Any) -> Any:
            for name, module in owned.items():
                pyro.module(f"latente_{name}", module)
            return self.model(*args, **kwargs)

        self.optimizer.zero_grad()
        with ScaleData(self.num_data):
            loss = self.objective.loss_and_grads(stating, self.guide, *batch)  # pyright: ignore
        value = torch.as_tensor(loss, dtype=self.parameters[0].dtype)
        return value, tuple(parameter.grad for parameter in self.parameters)


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """A gradient in the memory layout of its parameter, which fused optimizers require."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _is_plain_adam(optimizer: Optimizer) -> bool:
    """Whether an optimizer's step is the fused Adam's or AdamW's, and nothing else."""
    step = vars(optimizer).get("step")  # a scheduler wraps it, to see that it is called
    return (
        type(optimizer) in (Adam, AdamW)
        and (step is None or hasattr(step, "_wrapped_by_lr_sched"))
        and not optimizer._optimizer_step_pre_hooks
        and not optimizer._optimizer_step_post_hooks
        and not _global_optimizer_pre_hooks
        and not _global_optimizer_post_hooks
        and all(group["fused"] and not group["amsgrad"] for group in optimizer.param_groups)
    )


def _fused_update(optimizer: Optimizer) -> None:
    """Update with a fused Adam or AdamW, without the bookkeeping of its ``step``.

    For small networks the bookkeeping takes as long as the arithmetic. Any other optimizer's
    ``step`` is called.
    """
    moves = []
    for group in optimizer.param_groups if _is_plain_adam(optimizer) else ():
        moved = [value for value in group["params"] if value.grad is not None]
        if not moved:
            continue
        states = [optimizer.state.get(value) for value in moved]
        if not all(states):
            moves.clear()
            break
        moves.append((group, moved, states))
    if not moves:
        optimizer.step()
        return
    with torch.no_grad():
        for group, moved, states in moves:
            means, squares, steps = (
                [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
            )
            torch._foreach_add_(steps, 1)  # pyright: ignore
            beta1, beta2 = group["betas"]
            decoupled = group.get("decoupled_weight_decay")
            fused = torch._fused_adamw_ if decoupled else torch._fused_adam_  # pyright: ignore
            fused(
                moved, [value.grad for value in moved], means, squares, [], steps, lr=group["lr"],
                beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
                amsgrad=False, maximize=group["maximize"],
            )  # fmt: skip
