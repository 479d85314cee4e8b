"""``fit``: fit a pair by stochastic variational inference."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Never

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..common.arguments import refuse_more
from ..data.fitted_transform import remember_transform, transform_of
from ..data.rows import Rows
from ..execution.precision import Precision
from ..execution.recorded import Compile
from ..objectives.pyro_objectives import LossFunction
from ..pairs.calling import as_written
from ..pairs.checks import warn_of_bytes
from ..pairs.parameters import placement, remember_fitted
from ..pairs.programs import Program, StoredProgram, evaluating, modules, private_store
from .callbacks import Callback, check_callbacks
from .device import resolve_device
from .fit_callbacks import all_callbacks
from .fit_data import settle
from .loop import run_epochs
from .opened import open_fit
from .optimizers import DEFAULT_LEARNING_RATE, GroupedOptimizer
from .preparation import prepare
from .profiling import profile_fit
from .rate_steps import SchedulePer
from .run import Run
from .run_folder import check_folder
from .saved_fit import describe_fit, open_folder
from .settings import Settings
from .state import State


def fit(
    model: Program,
    guide: Program,
    data: Any,
    *more: Never,
    validation: Any = None,
    objective: ELBO | LossFunction | None = None,
    epochs: int = 50,
    batch_size: int | None = None,
    like_lengths: bool = False,
    learning_rate: float | None = None,
    optimizer: Callable[..., Optimizer] | GroupedOptimizer | PyroOptim | None = None,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    schedule_per: SchedulePer = "epoch",
    clip_norm: float | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback] | None = (),
    data_plate: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    compile: Compile = "recorded",
    precision: Precision = "float32",
    profile: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> Run:
    """Fit a pair by stochastic variational inference (Hoffman et al. 2013).

    Minimizes the loss of the objective, by default −ELBO, over minibatches of M out of N data. Each
    site of the ``data`` plate is scaled by N/M, so the loss is unbiased for that of all data::

        ELBO = Σₙ E_q[log p(xₙ|z) + log p(z) − log q(z|xₙ)]

    The pair is fitted in place, and left in evaluation mode. It starts from its current parameters;
    values in Pyro's global store are not used. The same seed on the same CPU gives the same numbers
    bit for bit, also when a run is interrupted and resumed. Pyro's global parameter store and the
    global random state are left as they were.

    Args:
        model: Pyro program ``model(x, *context)`` with a plate ``"data"`` at dimension −1. If it
            has a method ``check_data(x)``, that is called first, and may refuse the data.
        guide: Pyro program of the same arguments and latent sites.
        data: what :func:`load_data` returns, whose test part is looked at only for values outside
            the support of the model; or x, a tensor or array (N, *event_shape); or a tuple
            (x, *context) of these. Bytes (``uint8``) are taken as they are; for a distribution over
            all real numbers ``fit`` warns that they are not divided by 255.
        more: none: the data of programs of several arguments are one tuple or dict.
        validation: the same, to validate on; ``data`` from :func:`load_data` has a validation part.
        objective: any ``pyro.infer.ELBO``. If not given, ``TraceEnum_ELBO()`` where a site is
            marked to be enumerated; ``TraceMeanField_ELBO()``, which takes KLs in closed form, only
            where some KL has a closed form and Pyro's closed forms are all terms of the bound; else
            ``Trace_ELBO()``. Or a function ``loss(model, guide, x, *context)`` that returns a loss
            of all data to differentiate, as ``pyro.infer.SVI`` takes one.
        epochs: number of passes over the data.
        batch_size: M. Sizes of batches differ by one at most, so that their sum is N. If not given,
            :data:`DEFAULT_BATCH_SIZE`, or N if that is smaller.
        like_lengths: put sequences of like lengths into a batch, and cut its padding: to the next
            quarter of T, as steps are recorded for each number of steps. Each row is still in one
            batch an epoch, and the loss unbiased; the program must take any number of steps.
        learning_rate: step size at the start; :data:`DEFAULT_LEARNING_RATE` if not given. Pyro's
            optimizers have it in their own options.
        optimizer: makes the optimizer from parameters and ``lr``; Adam if not given. A
            :class:`GroupedOptimizer` sets options by the names of parameters;
            :func:`named_optimizer` makes the common ones. Or one of Pyro's, such as
            ``pyro.optim.ClippedAdam({"lr": 1e-3, "lrd": 0.999})``, or a scheduler of Pyro's.
        schedule: makes a learning-rate scheduler. ``ReduceLROnPlateau`` goes by the validation
            loss, or by ``loss`` where nothing is validated.
        schedule_per: whether the scheduler is stepped after each ``"epoch"`` or each ``"step"``.
        clip_norm: largest norm of the gradient of the loss per datum.
        patience: stop when the validation ELBO has not risen for so many epochs, and keep the
            weights of the best epoch.
        callbacks: called after each epoch, and at other points; see :class:`Callback`.
        seed: seed of the order, the binarization and the draws, not of the initial weights.
        device: ``"auto"`` takes CUDA where there is one, and the pair has modules with parameters
            to move there.
        compile: how steps are run. ``"recorded"``: the PyTorch operations of a step are recorded
            once that pays, and then run without Pyro's handlers, with the same numbers; steps of a
            pair that cannot be recorded run as in Pyro, and ``Run.note`` gives the reason.
            ``"inductor"``: PyTorch's Inductor compiles the recording, which needs a C++ compiler
            and ten seconds or more; the numbers differ in the last digits. ``"plain"``: every step
            runs as in Pyro.
        precision: of the networks' products: ``"float32"``, ``"medium"`` or ``"bfloat16"``; see
            :func:`latente.inference.execution.precision.layer_precision`.
        profile: measure the time of the parts of some steps, at the end: ``Run.profile``.
        out: folder for ``config.json``, ``metrics.csv`` and a checkpoint each epoch.
        resume: continue the run in ``out``.
        config: further facts for ``config.json``.
        show_progress: show epoch, ELBO in nats per datum and data per second.

    Raises:
        ValueError: if an argument or the data cannot be used, or the pair breaks the contract.
        FileExistsError: if ``out`` already holds a run and ``resume`` is not set.
        FloatingPointError: if the loss is no longer finite; the last checkpoint stays valid.
        Exception: any error that a callback raises; the last checkpoint stays valid.

    >>> from latente.models import VAE, StandardNormal, Bernoulli, mlp
    >>> from latente.guides import DiagonalNormal
    >>> vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> guide = DiagonalNormal(mlp(64, 16, out=4), latent_dim=2)
    >>> x = torch.ones(256, 8, 8).bernoulli(0.5)
    >>> run = fit(vae, guide, x, epochs=2, show_progress=False)
    >>> [row["epoch"] for row in run.history]
    [1, 2]
    """
    refuse_more("fit", more)
    callbacks = check_callbacks(() if callbacks is None else callbacks)
    opened = open_fit(model, guide, data, validation, data_plate, seed)
    model, guide, rows = opened.model, opened.guide, opened.rows
    transform = transform_of(data, model, rows[0])
    batch_size = opened.batch_size if batch_size is None else batch_size
    learning_rate = _learning_rate(learning_rate, optimizer)
    settings = Settings(
        epochs, batch_size, learning_rate, clip_norm, patience, seed, precision, like_lengths
    )
    _check_sizes(settings, rows, opened.validation)
    if like_lengths and opened.place_of_lengths is None:
        raise ValueError(
            "like_lengths is for sequences with lengths: give those of load_data, a list of "
            "sequences, or (x, lengths) to a model with an argument named lengths"
        )
    folder = None if out is None else Path(out)
    if folder is not None:
        check_folder(folder, resume=resume)
    elif resume:
        raise ValueError("resume needs the folder of the run: give it as out")
    if device == "auto" and placement(model, guide)[0] is None:
        device = "cpu"  # nothing moves the tensors that are written in the programs
    where = resolve_device(device)
    for module in modules(model, guide).values():
        module.to(where)
    with private_store() as store, torch.random.fork_rng(), torch.enable_grad():
        dtype = placement(model, guide)[1]
        fit_data = settle(
            rows, opened.validation, test=opened.test, resample=opened.resample,
            batch_size=batch_size, seed=seed, device=where, dtype=dtype,
            place_of_lengths=opened.place_of_lengths if like_lengths else None,
        )  # fmt: skip
        fitted = prepare(
            model, guide, fit_data, settings, objective=objective, optimizer=optimizer,
            schedule=schedule, schedule_per=schedule_per, compile=compile,
        )  # fmt: skip
        if _are_bytes(data):
            with evaluating(model, guide):
                warn_of_bytes(model, guide, fitted.measured)
        facts = {} if folder is None else describe_fit(fitted, config or {}, transform)
        state = State() if folder is None else open_folder(folder, fitted, facts, resume=resume)
        called = all_callbacks(fitted, state, callbacks, folder=folder, show_progress=show_progress)
        stopped = run_epochs(fitted, state, called, folder=folder)
        times = profile_fit(fitted, state.epoch) if profile else {}
    model, guide = as_written(model), as_written(guide)
    if fitted.needs_store:
        remember_fitted(model, guide)
        model, guide = StoredProgram(model, store), StoredProgram(guide, store)
    remember_transform(guide, transform)
    best = state.best_epoch if patience is not None else None
    return Run(
        model, guide, state.history, state.epoch, best, folder, facts, fitted.step.note, times,
        stopped, transform, state.average,
    )  # fmt: skip


def _learning_rate(learning_rate: float | None, optimizer: Any) -> float | None:
    if not isinstance(optimizer, PyroOptim):
        return DEFAULT_LEARNING_RATE if learning_rate is None else learning_rate
    if learning_rate is not None:
        raise ValueError(
            "Pyro's optimizers have the learning rate in their own options: leave learning_rate "
            f'out, and give "lr": {learning_rate:g} to the optimizer'
        )
    return None


def _are_bytes(data: Any) -> bool:
    """Whether x is given as whole numbers from 0 to 255."""
    x = data[0] if isinstance(data, tuple) and data else data
    return str(getattr(x, "dtype", "")).endswith("uint8")


def _check_sizes(
    settings: Settings, rows: tuple[Rows, ...], validation: tuple[Rows, ...] | None
) -> None:
    if settings.patience is not None and validation is None:
        raise ValueError("patience needs data to validate on: give validation=")
    if settings.batch_size > len(rows[0]):
        raise ValueError(
            f"{len(rows[0])} training rows are fewer than a batch of {settings.batch_size}: "
            f"set batch_size to {len(rows[0])} or less"
        )
