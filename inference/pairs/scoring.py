"""Score draws of a guide with the model, in chunks, from a recording once that pays."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..execution.precision import Precision
from ..execution.recorded import Compile, Recorded
from .all_values import average_values, draw_all_values, sum_values
from .kl_by_site import density_of_site
from .log_terms import Draws, Terms, read_terms, samples, score, trace_model
from .programs import Program
from .sites import latent_sites
from .structure import Structure

DRAWS_AT_ONCE = 20_000
"""Draws in memory at once: S for each of about DRAWS_AT_ONCE / S data."""


VALUES_AT_ONCE = 5_000_000
"""Numbers of z in memory at once: of a z of more than 250, such as a long sequence, fewer draws. A
recurrent pair makes some hundred tensors of that size."""


REPEATED_ROWS = 1_000
"""Rows at once, for a pair that is run on repeated data."""


SCORED_AT_ONCE = 2_000
"""Draws whose decoder output is in memory at once, at most: more do not fit a CPU's cache."""


MEMORY_SHARE = 1 / 4
"""Share of the free memory that those draws may take."""


TENSORS_HELD = 16
"""Tensors of the size of x that scoring keeps in memory at once, at most."""


def rows_at_once(x: Tensor) -> int:
    """How many draws of data like x (N, *event_shape) are scored together.

    >>> import torch
    >>> rows_at_once(torch.zeros(10, 784)), rows_at_once(torch.zeros(1).expand(10, 10**9))
    (2000, 1)
    """
    free = psutil.virtual_memory().available * MEMORY_SHARE
    size = TENSORS_HELD * max(1, x[:1].numel()) * x.element_size()
    return max(1, min(SCORED_AT_ONCE, int(free / size)))


MOST_STEPS_RECORDED = 20
"""Steps of a chain up to which draws are recorded: of more, making the recording, which has the
operations of each step, takes longer than drawing without it."""


class Scorer:
    """Compute the log terms of S draws z ~ q(z|x) for blocks of independent data.

    The guide draws some thousands at once, so that its encoder runs once for them; the model scores
    one chunk at a time. Both are recorded once that pays.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        structure: the facts of the pair, which must have no global latent site.
        compile: see :class:`latente.inference.execution.recorded.Recorded`.
        precision: of the networks' products.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        structure: Structure,
        *,
        compile: Compile = "recorded",
        precision: Precision = "float32",
    ):
        self.model, self.guide, self.structure = model, guide, structure
        if structure.apart or structure.num_steps > MOST_STEPS_RECORDED:
            compile = "plain"  # a recording would hold each run, or each step
        self.told_apart = () if structure.apart else structure.told_apart
        self._record = partial(Recorded, compile=compile, precision=precision)
        self._draw: dict[int, Recorded] = {}
        self._score: dict[tuple[bool, int], Recorded] = {}
        self._sites: dict[str, Any] = {}

    @property
    def note(self) -> str:
        """Why calls could not be recorded; empty if they could."""
        notes = [part.note for part in (*self._draw.values(), *self._score.values())]
        return next(filter(None, notes), "")

    def terms(
        self, args: tuple[Tensor, ...], num_samples: int, chunk_size: int | None = None
    ) -> Iterator[Terms]:
        """The terms of S draws for each datum of a block, ``chunk_size`` draws at a time."""
        num_data, count = len(args[0]), self.structure.num_values
        chunk_size = chunk_size or max(1, rows_at_once(args[0]) // num_data // count)
        for size in self._sizes(num_samples, num_data * count):
            if size not in self._draw:
                self._draw[size] = self._record(partial(self._drawn, size))
            values, log_posterior, posteriors, *shares = self._draw[size](*args)
            size *= count
            if self.structure.enumerated and not values:  # all samples are the same
                yield from self._exact_terms(args, log_posterior, chunk_size)
                continue
            plated = self.structure.plated(size)
            nothing = log_posterior.new_zeros(size)
            for start in range(0, size, chunk_size * count):
                stop = min(start + chunk_size * count, size)
                chunk = [
                    samples(value, site, start, stop, None if plated else num_data)
                    for site, value in zip(self._sites.values(), values, strict=True)
                ]
                key = plated, stop - start
                if key not in self._score:
                    self._score[key] = self._record(partial(self._scored, *key))
                log_likelihood, log_prior, priors = self._score[key](*chunk, *args)
                terms = Terms(
                    log_likelihood.clone(),
                    log_prior.clone(),
                    log_posterior[start:stop].clone(),
                    nothing[start:stop],
                    nothing[start:stop],
                    {
                        name: log_q[start:stop] - log_p
                        for name, log_q, log_p in zip(
                            self.told_apart, posteriors, priors, strict=True
                        )
                    },
                )
                yield over_values(terms, shares[0]) if shares else terms

    def _exact_terms(
        self, args: tuple[Tensor, ...], log_posterior: Tensor, chunk_size: int
    ) -> Iterator[Terms]:
        """The terms of a pair that draws nothing: those of one run of the model, repeated."""
        if (False, 1) not in self._score:
            self._score[False, 1] = self._record(partial(self._scored, False, 1))
        log_likelihood, log_prior = (term.clone() for term in self._score[False, 1](*args)[:2])
        for rows in log_posterior.split(chunk_size):
            nothing = rows.new_zeros(len(rows))
            shape = rows.shape
            yield Terms(
                log_likelihood.expand(shape), log_prior.expand(shape), rows, nothing, nothing
            )

    def _sizes(self, num_samples: int, num_data: int) -> list[int]:
        """How many samples the guide draws at once: fewer on repeated data, which take memory."""
        at_once = DRAWS_AT_ONCE if self.structure.vectorized else REPEATED_ROWS
        at_once = min(at_once, VALUES_AT_ONCE // max(1, self.structure.local_values))
        size = max(1, at_once // num_data)
        full, rest = divmod(num_samples, size)
        return [size] * full + [rest] * (rest > 0)

    def _drawn(self, size: int, *args: Tensor) -> tuple[Any, ...]:
        draws, log_shares = draw_all_values(self.guide, args, size, self.structure)
        sites = latent_sites(draws.trace)
        self._sites = self._sites or {name: {**s, "value": None} for name, s in sites.items()}
        values = tuple(site["value"] for site in sites.values())
        by_site = tuple(density_of_site(sites[name], draws) for name in self.told_apart)
        shares = () if log_shares is None else (log_shares,)
        return values, draws.log_posterior, by_site, *shares

    def _scored(self, plated: bool, count: int, *tensors: Tensor) -> tuple[Any, ...]:
        values, args = tensors[: len(self._sites)], tensors[len(self._sites) :]
        trace = Trace()
        for (name, site), value in zip(self._sites.items(), values, strict=True):
            trace.add_node(name, **{**site, "value": value})
        unknown = args[0].new_zeros(()).expand(count, len(args[0]))
        nesting, summed = self.structure.nesting, self.structure.enumerated
        apart = plated and self.structure.apart
        draws = Draws(trace, args, unknown, unknown[:, 0], nesting, plated, summed, apart)
        if not self.told_apart:
            terms = score(self.model, draws)
            return terms.log_likelihood, terms.log_prior, ()
        model_trace = trace_model(self.model, draws)
        terms, sites = read_terms(model_trace, draws), latent_sites(model_trace)
        by_site = tuple(density_of_site(sites[name], draws) for name in self.told_apart)
        return terms.log_likelihood, terms.log_prior, by_site


def over_values(terms: Terms, log_shares: Tensor) -> Terms:
    """The terms of S samples, from those of S · C draws at all values of a guide's discrete sites.

    Args:
        terms: (S · C, N).
        log_shares: log q(y|x), (C, N); see :func:`draw_all_values`.
    """
    nothing = terms.log_prior_global[:: len(log_shares)]
    return Terms(
        average_values(terms.log_likelihood, log_shares),
        average_values(terms.log_prior, log_shares),
        average_values(terms.log_posterior, log_shares),
        nothing,
        nothing,
        {name: average_values(kl, log_shares) for name, kl in terms.kl_by_site.items()},
        sum_values(terms.log_weight, log_shares),
    )
