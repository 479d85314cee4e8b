"""``Run``: a fitted pair with its history."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.load_data import Data
from ..data.new_rows import new_rows
from ..data.row_lengths import end_of
from ..data.transform import Transform, draw_lengths, has_context
from ..evaluation.encoding import Codes, encode
from ..evaluation.metrics import evaluate
from ..evaluation.rows_beside import beside_new_rows
from ..evidence.importance_sampling import Evidence, log_evidence
from ..pairs.programs import Program
from ..simulation.predictive import reconstruct, sample_prior
from .average import averaged


@dataclass(frozen=True)
class Run:
    """A fitted pair, with the history of its fit; answers for new data in the data's own terms.

    ``model`` and ``guide`` are the objects that were given, fitted in place; a plain callable is
    wrapped with the Pyro parameters that it was fitted with.
    """

    model: Program
    guide: Program
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """One row for each epoch, as in ``metrics.csv``; figures in nats per datum."""
    epoch: int = 0
    """Number of epochs done."""
    best_epoch: int | None = None
    """The epoch whose weights are kept, if ``patience`` was given."""
    out: Path | None = None
    """The run's folder."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The settings, as in ``config.json``."""
    note: str = ""
    """Why steps could not be recorded; empty if they could."""
    profile: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Milliseconds of the parts of a step, if ``profile`` was set."""
    stopped: str = ""
    """Why a callback, or early stopping, ended the fit before its last epoch; else empty."""
    transform: Transform | None = field(default=None, repr=False)
    """What was done to the data of :func:`load_data`, or the columns of a DataFrame, and is done to
    new data; ``None`` for a fit to arrays as the model sees them."""
    average: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """The moving average of the weights by name, of a fit with an
    :class:`ExponentialMovingAverage`; see :meth:`averaged`."""

    @contextlib.contextmanager
    def averaged(self) -> Iterator["Run"]:
        """Put the moving average of the weights into the pair, for the time of a ``with`` block.

        In the block ``model`` and ``guide`` have the averaged weights; after it, their own.

        Raises:
            ValueError: if the fit kept no average.
        """
        with averaged(self.model, self.guide, self.average):
            yield self

    def rows(self, data: Any, labels: Any = None) -> Any:
        """New data as model and guide see them, (x, *context); what the fit had as it is.

        Args:
            data: as for :func:`load_data`, in the units and types of the data of the fit; of what
                :func:`load_data` returns, the test part. A tuple or a dict is taken as the fit
                took it, for the arguments of the model.
            labels: labels beside an array; the context, where the fit was to arrays or DataFrames.

        Raises:
            ValueError: if they are not like the data of the fit; see :class:`Transform`; if there
                are labels that the model is not given.
        """
        return new_rows(self.transform, data, labels)

    def log_evidence(
        self, data: Any, labels: Any = None, *, num_samples: int = 1000, seed: int = 0
    ) -> Evidence:
        """Estimate log p(x) of new data, in the units of x, by :func:`log_evidence`.

        Args:
            data: as for :meth:`rows`.
            labels: labels beside an array.
            num_samples: importance samples of each datum.
            seed: seed of the draws.
        """
        rows = self.rows(data, labels)
        return log_evidence(self.model, self.guide, rows, num_samples=num_samples, seed=seed)

    def encode(
        self, data: Any, labels: Any = None, *, num_samples: int = 1000, seed: int = 0
    ) -> Codes:
        """Compute the posterior of new data in numbers, by :func:`encode`.

        The arguments are those of :meth:`log_evidence`. Labels of new data, and columns of a table
        that are no part of x, are :attr:`Codes.beside`.
        """
        rows = self.rows(data, labels)
        codes = encode(self.model, self.guide, rows, num_samples=num_samples, seed=seed)
        if rows is data or self.transform is None:
            return codes
        return replace(codes, beside=beside_new_rows(self.transform, data, labels))

    def evaluate(
        self, data: Any, labels: Any = None, *, num_samples: int = 1000, seed: int = 0
    ) -> dict[str, float]:
        """Compute evidence, ELBO and posterior health on new data, by :func:`evaluate`.

        The arguments are those of :meth:`log_evidence`. For :func:`diagnose`, give
        ``run.rows(data)``: ``diagnose(run.model, run.guide, run.rows(data))``.
        """
        rows = self.rows(data, labels)
        return evaluate(self.model, self.guide, rows, num_samples=num_samples, seed=seed)

    def reconstruct(self, data: Any, labels: Any = None) -> Any:
        """Compute E[x|z] at one draw z ~ q(z|x) for new data, in the data's own terms.

        Args:
            data: as for :meth:`rows`.
            labels: labels beside an array.
        """
        rows = self.rows(data, labels)
        return self._in_own_terms(reconstruct(self.model, self.guide, rows), rows)

    def sample(
        self,
        num: int,
        *,
        like: Any = None,
        labels: Any = None,
        lengths: Any = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Any:
        """Draw x ~ p(x|z), z ~ p(z), ``num`` times, in the data's own terms.

        Args:
            num: how many.
            like: data, as for :meth:`rows`, whose contexts the draws take, in turn; and whose shape
                they have, where the fit was to arrays.
            labels: labels beside that, where they are the context.
            lengths: the lengths of sequences, one for all or (num,); if neither these nor ``like``
                are given, they are drawn from those of the training sequences.
            temperature: scales draws of z around the prior's centre, as for :func:`sample_prior`.
            seed: seed of the draws.

        Raises:
            ValueError: if ``like`` is needed and not given; or as :func:`sample_prior` does.
        """
        blank = _zeros(self.transform, end_of(self.model)) if like is None else None
        rows = self.rows(like, labels) if blank is None else blank
        # A text ends where the model says so.
        if lengths is None and isinstance(blank, tuple) and end_of(self.model) is None:
            lengths = draw_lengths(self.transform, num, seed)
        options = {"temperature": temperature, "seed": seed, "lengths": lengths}
        drawn = sample_prior(self.model, self.guide, num, rows, **options)[1]
        return self._in_own_terms(drawn, rows, lengths)

    def _in_own_terms(self, values: Any, rows: Any, lengths: Any = None) -> Any:
        if self.transform is None or not isinstance(values, torch.Tensor):
            return values
        if not self.transform.has_lengths or end_of(self.model) is not None:
            return self.transform.inverse(values)
        return self.transform.inverse(values, _in_turn(lengths, rows, len(values)))


def _in_turn(lengths: Any, rows: Any, num: int) -> torch.Tensor:
    """As many lengths, taken in turn from those that are given, or else from those of rows."""
    if lengths is None:
        lengths = (rows.rows("test") if isinstance(rows, Data) else rows)[1]
    found = torch.as_tensor(lengths).reshape(-1)
    return found[torch.arange(num) % len(found)]


def _zeros(transform: Transform | None, end: int | None) -> Any:
    """A row of the model's x, where that is all that it sees; of sequences x and its length.

    Of texts, which end with a token, it is an empty one.
    """
    given = {} if transform is None else transform.argument_columns
    # Of several tables, or one that is not x, the model takes others beside x.
    if transform is None or len(given) > 1 or (given and not transform.columns):
        raise ValueError("to sample, data as those of the fit must be given: like=")
    if (
        end is not None
        and transform.has_lengths
        and not has_context(transform, beside_lengths=True)
    ):
        return torch.full((1, *transform.seen_shape), end), torch.ones(1, dtype=torch.int64)
    if transform.has_lengths and transform.given is None:
        x = torch.zeros(1, 1, *transform.seen_shape[1:], dtype=getattr(torch, transform.dtype))
        return x, torch.ones(1, dtype=torch.int64)
    if has_context(transform):
        raise ValueError("to sample, the context must be given: like=")
    return torch.zeros(1, *transform.seen_shape, dtype=getattr(torch, transform.dtype))
