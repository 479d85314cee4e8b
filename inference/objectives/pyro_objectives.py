"""What a fit takes as an objective: Pyro's, those of its form, and plain loss functions."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from pyro.infer import (
    ELBO,
    EnergyDistance,
    RenyiELBO,
    ReweightedWakeSleep,
    TraceTailAdaptive_ELBO,
)
from pyro.infer.abstract_infer import TracePosterior

LossFunction = Callable[..., Any]
"""A loss ``loss(model, guide, x, *context)`` in nats, as ``pyro.infer.SVI`` takes one."""


@runtime_checkable
class HasDifferentiableLoss(Protocol):
    """An objective whose loss can be differentiated, and so recorded."""

    def differentiable_loss(self, model: Any, guide: Any, /, *args: Any) -> Any:
        """The loss of (model, guide) on a batch, in nats, with its gradient."""
        ...


def differentiable_loss(objective: Any) -> LossFunction | None:
    """The loss of an objective that autograd differentiates; ``None`` if it has gradients itself.

    >>> from pyro.infer import Trace_ELBO, TraceGraph_ELBO
    >>> differentiable_loss(Trace_ELBO()).__name__, differentiable_loss(TraceGraph_ELBO())
    ('differentiable_loss', None)
    """
    if isinstance(objective, HasDifferentiableLoss):
        return objective.differentiable_loss
    return None if isinstance(objective, ELBO) else objective


def evaluate_loss(objective: Any, model: Any, guide: Any, args: tuple[Any, ...]) -> Any:
    """The loss of a pair on a batch: a number, or a tuple of them."""
    if isinstance(objective, ELBO):
        return objective.loss(model, guide, *args)  # pyright: ignore
    return objective(model, guide, *args)


def loss_names(objective: Any, number: int) -> list[str]:
    """Name the losses of an objective that has several: the columns of the history.

    Those of ``ReweightedWakeSleep`` are the wake-θ loss of the model, minus a bound of log p(x),
    and the φ loss of the guide, of its wake and sleep phases as ``insomnia`` weighs them.

    >>> loss_names(ReweightedWakeSleep(), 2)
    ['wake_theta_loss', 'phi_loss']
    """
    if isinstance(objective, ReweightedWakeSleep):
        return ["wake_theta_loss", "phi_loss"]
    return [f"loss_{index}" for index in range(1, number + 1)]


def objective_options(objective: Any) -> dict[str, Any]:
    """The numbers and switches of an objective, which a resumed run must share.

    >>> objective_options(RenyiELBO(alpha=0.5, num_particles=3))["alpha"]
    0.5
    """
    # The nesting of plates is guessed at the first call.
    return {
        name: value
        for name, value in getattr(objective, "__dict__", {}).items()
        if isinstance(value, bool | int | float | str) and name != "max_plate_nesting"
    }


def check_objective(objective: Any, num_data: int, batch_size: int) -> None:
    """Refuse what is no objective of a pair, or cannot be minimized on minibatches.

    Args:
        objective: the argument of :func:`latente.inference.fit`.
        num_data: N.
        batch_size: M.

    Raises:
        ValueError: with what to use instead.
    """
    name = type(objective).__name__
    if isinstance(objective, type):
        raise ValueError(
            f"objective is the class {objective.__name__}: give {objective.__name__}()"
        )
    if isinstance(objective, TraceTailAdaptive_ELBO):
        raise ValueError(
            f"{name} has a gradient and no loss, so that nobody could see where a fit goes: use "
            "RenyiELBO or ImportanceWeighted_ELBO, which also cover the tails"
        )
    if isinstance(objective, ELBO) and name.startswith("Jit"):
        raise ValueError(
            f"{name} compiles what a fit already records: use {name.removeprefix('Jit')}()"
        )
    is_function = callable(objective) and not isinstance(objective, TracePosterior)
    if objective is not None and not isinstance(objective, ELBO) and not is_function:
        raise ValueError(
            f"objective is a {name}, which is no loss of a model and a guide: give a "
            "pyro.infer.ELBO, such as Trace_ELBO(), or a function loss(model, guide, *data)"
        )
    whole = RenyiELBO | ReweightedWakeSleep | EnergyDistance
    if isinstance(objective, whole) and batch_size < num_data:
        what = "distance" if isinstance(objective, EnergyDistance) else "average"
        raise ValueError(
            f"{name} takes one {what} over all data: minibatches would change the bound; "
            f"set batch_size to {num_data}"
        )
