"""Check a pair, its data and the settings of a fit, and make the objects that the fit uses."""

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from pyro.infer import ELBO, ReweightedWakeSleep
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..common.seeding import set_seed
from ..data.rows import Rows
from ..execution.recorded import Compile
from ..objectives.choice import choose_objective
from ..objectives.consistency import check_against_elbo
from ..objectives.objective import Objective
from ..objectives.pyro_objectives import LossFunction, check_objective, evaluate_loss
from ..objectives.schedules import Constant, Weight
from ..pairs.calling import name_data_plate
from ..pairs.checks import check_support, explaining_data, explaining_support
from ..pairs.inspection import inspect_pair
from ..pairs.kept_rows import ADVICE, keeps_rows, remember_rows, rows_kept
from ..pairs.minibatch_scaling import ScaleData
from ..pairs.parameters import parameters, stated_parameters
from ..pairs.programs import Program, evaluating, modules, plain_errors
from ..pairs.structure import Structure
from .checkpoints import weights
from .fit_data import FitData
from .optimizers import GroupedOptimizer, make_optimizer
from .rate_steps import RateSteps, SchedulePer, make_rate_steps
from .settings import Settings
from .step import Step


@runtime_checkable
class ChecksData(Protocol):
    """A model that checks all its data, beyond one minibatch."""

    def check_data(self, x: Rows, /) -> None:
        """Refuse data (N, *event_shape) that the model cannot take, with a ``ValueError``."""
        ...


@runtime_checkable
class ChecksRows(Protocol):
    """A model that checks all its data, with what it is given beside x."""

    def check_rows(self, *rows: Rows) -> None:
        """Refuse rows (x, *context) that the model cannot take, with a ``ValueError``."""
        ...


@dataclass(frozen=True)
class Preparation:
    """The checked parts of a fit. Optimizer, scheduler and weights change during the fit."""

    model: Program
    guide: Program
    data: FitData
    sample: tuple[Tensor, ...]
    """The first minibatch."""
    measured: tuple[Tensor, ...]
    """The training data on which the bound is measured after each epoch."""
    structure: Structure
    objective: ELBO | LossFunction
    named: dict[str, Tensor]
    """The parameters, unconstrained, by name."""
    optimizer: Optimizer
    rate_steps: RateSteps
    optimizer_groups: list[dict[str, Any]]
    """The parameters of each group of the optimizer, by name, and its options at the start."""
    step: Step
    settings: Settings

    @property
    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers of the pair, by name."""
        return weights(self.model, self.guide, self.named)

    @property
    def steps_per_epoch(self) -> int:
        """Number of minibatches in an epoch."""
        return _steps_per_epoch(self.data, self.settings)

    @property
    def needs_store(self) -> bool:
        """Whether only Pyro's store has some of the parameters."""
        return any(name.startswith("param.") for name in self.named)

    @property
    def moving_weights(self) -> list[Weight]:
        """The weights of the objective that follow a schedule."""
        return _moving_weights(self.objective)

    def set_training(self, mode: bool) -> None:
        """Put the pair into training or evaluation mode, without gradients."""
        self.optimizer.zero_grad()
        for module in modules(self.model, self.guide).values():
            module.train(mode)


def prepare(
    model: Program,
    guide: Program,
    data: FitData,
    settings: Settings,
    *,
    objective: ELBO | LossFunction | None,
    optimizer: Callable[..., Optimizer] | GroupedOptimizer | PyroOptim | None,
    schedule: Callable[[Optimizer], LRScheduler] | None,
    schedule_per: SchedulePer,
    compile: Compile,
) -> Preparation:
    """Check pair, data and settings, and make the objects that the fit uses.

    The random state is left at the seed. See :func:`latente.inference.fit` for the arguments.

    Raises:
        ValueError: if pair, data or settings cannot be used, or do not go together.
    """
    set_seed(settings.seed)
    check_objective(objective, data.num_data, settings.batch_size)
    _let_check(model, data.rows)
    sample = next(data.batches(0))
    _check_whole(model, guide, data, sample)
    # Pyro's checks refuse NaN also where the model masks it.
    missing = any(bool(part.isnan().any()) for part in sample)
    with pyro.validation_enabled(not missing), plain_errors():
        with (
            evaluating(model, guide),
            explaining_data(model, sample, "training data"),
            explaining_support(model, guide, sample),
        ):
            structure = inspect_pair(model, guide, sample)
            suitable = choose_objective(objective, model, guide, sample, structure)
        _check_support(model, guide, data)
        with evaluating(model, guide):
            if isinstance(suitable, Objective):
                suitable.check_pair(model, guide, sample, structure)
            check_against_elbo(suitable, model, guide, sample, structure)
        _try_loss(model, guide, suitable, sample, ScaleData(data.num_data, settings.batch_size))
        named = parameters(model, guide, sample)
    if not named:
        raise ValueError(
            "the pair has no parameters to fit: pass nn.Modules, or register them with "
            "pyro.module or pyro.param inside the programs"
        )
    _warn_of_schedules(suitable, settings.epochs)
    stated = stated_parameters(model, guide, sample) if isinstance(optimizer, PyroOptim) else {}
    made = make_optimizer(optimizer, named, settings.learning_rate, stated)
    groups = _describe_groups(made, named)
    steps = settings.epochs * _steps_per_epoch(data, settings)
    rate_steps = make_rate_steps(
        schedule, optimizer, made, schedule_per, {"epoch": settings.epochs, "step": steps}
    )
    step = Step(
        model, guide, suitable, named, made, num_data=data.num_data,
        clip_norm=settings.clip_norm, compile=compile, precision=settings.precision,
    )  # fmt: skip
    measured = data.rows_in_order() if rows_kept(guide) else data.measured_rows()
    set_seed(settings.seed)
    return Preparation(
        model, guide, data, sample, measured, structure, suitable, named, made, rate_steps, groups,
        step, settings,
    )  # fmt: skip


def _steps_per_epoch(data: FitData, settings: Settings) -> int:
    return math.ceil(data.num_data / settings.batch_size)


def _check_whole(model: Program, guide: Program, data: FitData, sample: tuple[Tensor, ...]) -> None:
    """Refuse to fit a guide that keeps a posterior for each datum by minibatches."""
    with evaluating(model, guide):
        if not keeps_rows(guide, sample):
            return
    if len(sample[0]) < data.num_data or data.resample:
        raise ValueError(
            f"an autoguide of a site inside {name_data_plate(model)} keeps a posterior for each "
            f"datum, so it takes all data at once: give batch_size={data.num_data}, {ADVICE}"
        )
    if data.validation is not None:
        raise ValueError(
            f"an autoguide of a site inside {name_data_plate(model)} has no posterior of the "
            f"validation data: leave validation out, {ADVICE}"
        )
    remember_rows(guide, sample)


SPEED_OPTIONS = {"foreach", "fused", "capturable", "differentiable"}
"""Options of optimizers that change the speed of a step, and not its result."""


def _describe_groups(optimizer: Optimizer, named: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    names = {id(value): name for name, value in named.items()}
    left_out = SPEED_OPTIONS | {"params", "param_names"}
    return [
        {
            "parameters": [names[id(value)] for value in group["params"] if id(value) in names],
            **{option: value for option, value in group.items() if option not in left_out},
        }
        for group in optimizer.param_groups
    ]


def _let_check(model: Any, rows: tuple[Rows, ...]) -> None:
    if isinstance(model, ChecksData):
        model.check_data(rows[0])
    if isinstance(model, ChecksRows):
        model.check_rows(*rows)


def _check_support(model: Program, guide: Program, data: FitData) -> None:
    parts = [("training data", data.rows, data.resample)]
    if data.validation is not None:
        parts.append(("validation data", data.validation, False))
    with evaluating(model, guide):
        for name, rows, resample in parts:
            for start, block in data.blocks(rows, rows_kept(guide)):
                if resample:
                    block = (torch.bernoulli(block[0]), *block[1:])
                check_support(model, guide, block, name, start)
        # A guide that keeps a posterior for each datum has none of the test data.
        if data.test is not None and rows_kept(guide) is None:
            with torch.random.fork_rng():
                for start, block in data.blocks(data.test):
                    check_support(model, guide, block, "test data", start)


def _try_loss(
    model: Program,
    guide: Program,
    objective: ELBO | LossFunction,
    batch: tuple[Tensor, ...],
    scale: ScaleData,
) -> None:
    """Run Pyro's own checks of this pair and objective once."""
    # An objective whose loss cannot be computed without its gradient is not checked.
    unknown = contextlib.suppress(NotImplementedError)
    loss: Any = None
    explaining = explaining_support(model, guide, batch)
    with evaluating(model, guide), explaining, scale, unknown:
        try:
            loss = evaluate_loss(objective, model, guide, batch)
        except TypeError as error:
            if isinstance(objective, ReweightedWakeSleep) and "observations" in str(error):
                raise ValueError(
                    f"the sleep phase of {type(objective).__name__} simulates data, which the "
                    "guide (and without vectorize_particles also the model) must take as a keyword "
                    "argument observations=None: add it, or use insomnia=1.0"
                ) from error
            raise
    if not isinstance(objective, ELBO) and not isinstance(loss, Tensor):
        raise ValueError(
            f"the objective is a function that returned a {type(loss).__name__}: it must return "
            "the loss of all data, a tensor that can be differentiated"
        )


def _moving_weights(objective: ELBO | LossFunction) -> list[Weight]:
    weights = objective.weights if isinstance(objective, Objective) else []
    return [weight for weight in weights if not isinstance(weight.schedule, Constant)]


def _warn_of_schedules(objective: ELBO | LossFunction, epochs: int) -> None:
    for weight in _moving_weights(objective):
        settled = weight.schedule.settled
        if settled > epochs:
            full, last = weight.schedule(settled), weight.schedule(epochs)
            warnings.warn(
                f"the schedule of {weight.name} reaches {full:g} at epoch {settled:g}, and the run "
                f"ends at epoch {epochs}, with {last:g}: its full value is never reached",
                stacklevel=4,
            )
