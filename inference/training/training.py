"""The state of a fit between two epochs, and the steps that change it."""

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, RenyiELBO
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..common.files import write_json
from ..common.progress import progress
from ..data.batches import epoch_batches
from ..data.rows import BLOCK, Rows
from ..execution.recorded import Compile
from ..objectives.choice import choose_objective
from ..objectives.objective import Objective
from ..objectives.schedules import Constant, Weight
from ..pairs.checks import check_support
from ..pairs.inspection import inspect_pair
from ..pairs.log_terms import draw, score
from ..pairs.minibatch_scaling import ScaleData
from ..pairs.parameters import parameters, place, placement
from ..pairs.programs import Program, evaluating, modules, plain_errors
from . import checkpoints
from .history import append_history, describe_epoch, main_metric, read_history, write_history
from .optimizers import make_optimizer
from .profiling import profile_step
from .run_folder import CHECKPOINT, CONFIG, METRICS
from .settings import Settings
from .step import Step

MEASURED_ROWS = 2000
"""How many training data the terms of the bound are measured on each epoch."""


class Training:
    """One fit in progress. Made by :func:`latente.inference.fit`, which says what all is."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        objective: ELBO | None,
        rows: tuple[Rows, ...],
        held_out: tuple[Rows, ...] | None,
        *,
        resample: bool,
        settings: Settings,
    ):
        self.model, self.guide, self.asked = model, guide, objective
        self.rows, self.held_out, self.resample = rows, held_out, resample
        self.settings = settings
        self.num_data = len(rows[0])
        self.epoch = 0
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.folder: Path | None = None
        self.config: dict[str, Any] = {}

    def prepare(
        self,
        device: torch.device,
        optimizer: Callable[..., Optimizer] | None,
        schedule: Callable[[Optimizer], LRScheduler] | None,
        compile: Compile,
    ) -> None:
        """Put the data in place, check pair and data, and make the step."""
        torch.manual_seed(self.settings.seed)
        self.device = device
        self.dtype = placement(self.model, self.guide)[1]
        self.rows = self._settle(self.rows)
        self.held_out = None if self.held_out is None else self._settle(self.held_out)
        if isinstance(self.asked, RenyiELBO) and self.settings.batch_size < self.num_data:
            raise ValueError(
                "RenyiELBO takes one average over all data: minibatches would change the bound; "
                f"set batch_size to {self.num_data}"
            )
        # A model may know more of what data it takes than a minibatch shows.
        check_data = getattr(self.model, "check_data", None)
        if callable(check_data):
            check_data(self.rows[0])
        sample = next(self._batches())
        with pyro.validation_enabled(True), plain_errors():
            with evaluating(self.model, self.guide):
                self.structure = inspect_pair(self.model, self.guide, sample)
                self.objective = choose_objective(
                    self.asked, self.model, self.guide, sample, self.structure
                )
            self._check_support()
            # Pyro's own checks of this pair under this objective run once, here; an objective
            # that has no loss apart from its gradient is taken as it is.
            with (
                evaluating(self.model, self.guide),
                ScaleData(self.num_data),
                contextlib.suppress(NotImplementedError),
            ):
                self.objective.loss(self.model, self.guide, *sample)  # pyright: ignore
            self.named = parameters(self.model, self.guide, sample)
        if not self.named:
            raise ValueError(
                "the pair has no parameters to fit: pass nn.Modules, or register them with "
                "pyro.module or pyro.param inside the programs"
            )
        self._warn_of_schedules()
        self.optimizer = make_optimizer(optimizer, self.named, self.settings.learning_rate)
        self.scheduler = schedule(self.optimizer) if schedule is not None else None
        self.step = Step(
            self.model, self.guide, self.objective, self.named, self.optimizer,
            num_data=self.num_data, clip_norm=self.settings.clip_norm, compile=compile,
            precision=self.settings.precision,
        )  # fmt: skip
        self.measured = self._choose_measured()
        torch.manual_seed(self.settings.seed)

    def _scheduled(self) -> list[Weight]:
        """The weights of the objective that move."""
        weights = self.objective.weights if isinstance(self.objective, Objective) else []
        return [weight for weight in weights if not isinstance(weight.schedule, Constant)]

    def _warn_of_schedules(self) -> None:
        for weight in self._scheduled():
            settled, epochs = weight.schedule.settled, self.settings.epochs
            if settled > epochs:
                full, last = weight.schedule(settled), weight.schedule(epochs)
                warnings.warn(
                    f"the schedule of {weight.name} gets to {full:g} at epoch {settled:g}, and the "
                    f"run ends at epoch {epochs}, with {last:g}: the bound was never reached",
                    stacklevel=4,
                )

    def _settle(self, rows: tuple[Rows, ...]) -> tuple[Rows, ...]:
        """Move what is in memory to the device, as one tensor; the rest is moved by batch."""
        return tuple(self._place((part,))[0] if isinstance(part, Tensor) else part for part in rows)

    def _place(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return place(batch, self.device, self.dtype)

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        batches = epoch_batches(
            self.rows,
            self.settings.batch_size,
            seed=self.settings.seed,
            epoch=self.epoch,
            resample=self.resample,
            device=self.device,
        )
        return map(self._place, batches)

    def _blocks(self, rows: tuple[Rows, ...]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """All rows in order, some thousands at a time, each block with its first row's number."""
        for start in range(0, len(rows[0]), BLOCK):
            yield start, self._place(tuple(part[start : start + BLOCK] for part in rows))

    def _check_support(self) -> None:
        named = [("training data", self.rows, self.resample)]
        if self.held_out is not None:
            named.append(("validation data", self.held_out, False))
        with evaluating(self.model, self.guide):
            for name, rows, resample in named:
                for start, block in self._blocks(rows):
                    if resample:
                        block = (torch.bernoulli(block[0]), *block[1:])
                    check_support(self.model, self.guide, block, name, start)

    def _choose_measured(self) -> tuple[Tensor, ...]:
        """The training data whose bound is measured each epoch: always the same, bits and all."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        subset = torch.randperm(self.num_data, generator=generator)[:MEASURED_ROWS]
        x, *context = (part[subset.to(self.device)] for part in self.rows)
        if self.resample:
            x = torch.bernoulli(x.cpu(), generator=generator)
        return self._place((x, *context))

    def run(self, *, show: bool) -> None:
        """Do the epochs that are left, or fewer if the validation ELBO stops rising."""
        epochs = self.settings.epochs
        steps = math.ceil(self.num_data / self.settings.batch_size)
        with progress("fit", epochs * steps, show=show) as advance:
            advance(self.epoch * steps)
            while self.epoch < epochs and not self._exhausted():
                began = time.perf_counter()
                with pyro.validation_enabled(False):
                    losses = self._pass(advance)
                    self._finish_epoch(losses, time.perf_counter() - began)
                advance(0, f"epoch {self.epoch}/{epochs}, {_note(self.history[-1])}")
        if self.best:
            checkpoints.restore(self._weights(), self.best, "the best epoch")
        self._set_training(False)

    def _set_training(self, mode: bool) -> None:
        self.optimizer.zero_grad()
        for module in modules(self.model, self.guide).values():
            module.train(mode)

    def profile(self) -> dict[str, float]:
        """Median milliseconds of the parts of a step."""
        self._set_training(True)
        with pyro.validation_enabled(False):
            times = profile_step(self.step, self._batches())
        self._set_training(False)
        return times

    def _pass(self, advance: Callable[[], None]) -> Tensor:
        """One epoch of steps; the share of each in the loss, looked at once: that waits for it."""
        self._set_training(True)
        losses: list[Tensor] = []
        steps = math.ceil(self.num_data / self.settings.batch_size)
        for number, batch in enumerate(self._batches()):
            if isinstance(self.objective, Objective):
                self.objective.move_to(self.epoch + number / steps)
            losses.append(self.step(batch) * (len(batch[0]) / self.num_data))
            advance()
        return torch.stack(losses).cpu().double() / self.num_data

    def _finish_epoch(self, losses: Tensor, seconds: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        self._check_finite(losses, rate)
        self.epoch += 1
        row: dict[str, float] = {"epoch": self.epoch, "loss": losses.sum().item()}
        row |= {weight.name: weight.tensor.item() for weight in self._scheduled()}
        row |= self._measure("", self.measured)
        if self.held_out is not None:
            row |= self._measure("validation_", self.held_out)
        row |= {"learning_rate": rate, "seconds": seconds}
        row["rows_per_second"] = self.num_data / seconds
        self.history.append(row)
        if self.settings.patience is not None and self._improved():
            self.best_epoch = self.epoch
            self.best = {name: v.detach().clone() for name, v in self._weights().items()}
        if self.scheduler is not None:
            self.scheduler.step()
        if self.folder is not None:
            append_history(self.folder / METRICS, row)
            self._save(self.folder)

    def _check_finite(self, losses: Tensor, rate: float) -> None:
        bad = (~losses.isfinite()).nonzero().flatten()
        if len(bad):
            what = f"loss became {losses[bad[0]]:g} at step {bad[0] + 1} of {len(losses)}"
        elif not all(bool(value.isfinite().all()) for value in self.named.values()):
            what = "weights became NaN or infinite"
        else:
            return
        kept = "" if self.folder is None else f"; {self.folder} keeps epoch {self.epoch}"
        raise FloatingPointError(
            f"the {what} in epoch {self.epoch + 1}: lower the learning rate "
            f"(now {rate:g}) or set clip_norm{kept}"
        )

    def _improved(self) -> bool:
        name = main_metric(self.history[-1])
        bounds = [row[f"validation_{name}"] for row in self.history]
        return not bounds[:-1] or bounds[-1] > max(bounds[:-1])

    def _exhausted(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.epoch - self.best_epoch >= patience

    def _measure(self, prefix: str, rows: tuple[Rows, ...]) -> dict[str, float]:
        """The ELBO and its two terms in nats per datum, by one draw that is always the same.

        Where the objective sums out variables that the guide lacks, its own bound alone; where the
        guide is a point, the reconstruction.
        """
        if self.structure.enumerated:
            return {f"{prefix}elbo": self._own_bound(rows)}
        if self.structure.points:
            # A point has no density, and so no ELBO.
            return {f"{prefix}reconstruction": self._terms(rows)["reconstruction"]}
        return {prefix + name: value for name, value in self._terms(rows).items()}

    def _terms(self, rows: tuple[Rows, ...]) -> dict[str, float]:
        reconstruction = kl = 0.0
        with evaluating(self.model, self.guide), torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            for _, block in self._blocks(rows):
                terms = score(self.model, draw(self.guide, block, 1, self.structure))
                share = len(block[0]) / len(rows[0])
                beyond = terms.log_posterior_global - terms.log_prior_global
                reconstruction += share * terms.log_likelihood.mean().item()
                kl += share * (terms.log_posterior - terms.log_prior).mean().item()
                kl += share * beyond.item() / self.num_data
        return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

    def _own_bound(self, rows: tuple[Rows, ...]) -> float:
        bound, scale = 0.0, ScaleData(self.num_data)
        with evaluating(self.model, self.guide), torch.random.fork_rng(), scale:
            torch.manual_seed(self.settings.seed)
            for _, block in self._blocks(rows):
                loss = float(self.objective.loss(self.model, self.guide, *block))  # pyright: ignore
                bound -= loss / self.num_data * len(block[0]) / len(rows[0])
        return bound

    @property
    def needs_store(self) -> bool:
        """Whether some parameters live in Pyro's store alone."""
        return any(name.startswith("param.") for name in self.named)

    def _weights(self) -> dict[str, Tensor]:
        return checkpoints.weights(self.model, self.guide, self.named)

    def keep_in(self, folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
        """Keep this run in a folder; take up the one that is there, if so asked."""
        self.config = {
            **config,
            "fit": {**asdict(self.settings), "objective": self._objective_name()},
            "num_data": self.num_data,
            "versions": {"torch": torch.__version__, "pyro": pyro.__version__},
        }
        json.dumps(self.config)  # a fact that JSON cannot hold is met before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        if not resume:
            (folder / METRICS).unlink(missing_ok=True)  # of a run that never began
            write_json(folder / CONFIG, self.config)
            self._save(folder)
        else:
            self._load(folder)
            if self.epoch > self.settings.epochs:
                raise ValueError(
                    f"{folder} has {self.epoch} epochs done already, more than the "
                    f"{self.settings.epochs} asked for"
                )
            write_history(folder / METRICS, self.history)
            write_json(folder / CONFIG, self.config)

    def _objective_name(self) -> str:
        if isinstance(self.objective, Objective):
            return repr(self.objective)
        name, draws = type(self.objective).__name__, self.objective.num_particles
        return name if draws == 1 else f"{name}(num_particles={draws})"

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        settings = {name: v for name, v in asdict(self.settings).items() if name != "epochs"}
        return {
            "num_data": self.num_data,
            **settings,
            "objective": self._objective_name(),
            "optimizer": type(self.optimizer).__name__,
        }

    def _save(self, folder: Path) -> None:
        tensors, facts = checkpoints.pack(self.optimizer, self.scheduler)
        tensors |= self._weights()
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        facts |= {"epoch": self.epoch, "best_epoch": self.best_epoch, **self._identity()}
        checkpoints.save(folder / CHECKPOINT, tensors, facts)

    def _load(self, folder: Path) -> None:
        tensors, facts = checkpoints.load(folder / CHECKPOINT)
        for name, mine in self._identity().items():
            if facts.get(name) != mine:
                raise ValueError(f"{folder} was run with {name}={facts.get(name)}, not {mine}")
        path = str(folder / CHECKPOINT)
        checkpoints.restore(self._weights(), checkpoints.current_weights(tensors), path)
        checkpoints.unpack(self.optimizer, self.scheduler, tensors, facts)
        self.best = checkpoints.with_prefix(tensors, "best.")
        self.epoch, self.best_epoch = facts["epoch"], facts["best_epoch"]
        self.history = read_history(folder / METRICS, self.epoch)


def _note(row: Mapping[str, float]) -> str:
    """A row of the history, in nats per datum, short enough to stand beside a bar."""
    return f"{describe_epoch(row)}, {row['rows_per_second']:,.0f} data/s"
