"""How many of the codes of a codebook the data use."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from ..data.rows import BLOCK_ROWS, Rows
from ..pairs.log_terms import draw
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.sites import base_distribution, latent_sites
from ..pairs.structure import Structure


@runtime_checkable
class OverCodes(Protocol):
    """A distribution over values that are made of K codes."""

    @property
    def num_codes(self) -> int:
        """K."""
        ...

    def indices(self, value: Tensor) -> Tensor:
        """The numbers 0, …, K − 1 of the codes of values."""
        ...


@dataclass(frozen=True)
class CodebookUse:
    """How evenly a set of data uses K codes."""

    counts: Tensor
    """How often each code occurs, (K,)."""

    @property
    def perplexity(self) -> float:
        """exp(−Σ_k f_k log f_k), f the frequencies: from 1, a single code, to K, all alike."""
        frequencies = self.counts.double() / self.counts.sum()
        return torch.special.entr(frequencies).sum().exp().item()

    @property
    def share(self) -> float:
        """The fraction of the codes that occur at all."""
        return (self.counts > 0).double().mean().item()

    def __repr__(self) -> str:
        return (
            f"CodebookUse(perplexity={self.perplexity:.1f} of {len(self.counts)} codes, "
            f"share={self.share:.1%})"
        )


def codebook_use(indices: Tensor, num_codes: int) -> CodebookUse:
    """Count how often each of K codes occurs, over data and positions.

    Args:
        indices: numbers 0, …, K − 1 of codes, of any shape, as
            :meth:`latente.guides.FiniteScalar.indices` gives them.
        num_codes: K.

    Raises:
        ValueError: if there is no code, or a number is not between 0 and K − 1.

    >>> codebook_use(torch.tensor([[0, 1], [1, 0]]), 4)
    CodebookUse(perplexity=2.0 of 4 codes, share=50.0%)
    """
    flat = indices.flatten()
    if not len(flat):
        raise ValueError("there are no codes to count")
    least, most = int(flat.min()), int(flat.max())
    if least < 0 or most >= num_codes:
        raise ValueError(
            f"the numbers of {num_codes} codes are 0 to {num_codes - 1}, got {least} to {most}"
        )
    return CodebookUse(torch.bincount(flat.long(), minlength=num_codes).cpu())


def priors_over_codes(model_trace: Trace) -> dict[str, Any]:
    """The priors of a model's latent sites that are over codes, or relaxed indicators of them."""
    priors = {n: base_distribution(site["fn"]) for n, site in latent_sites(model_trace).items()}
    return {name: prior for name, prior in priors.items() if _num_codes(prior)}


def count_codes(
    model: Program,
    guide: Program,
    rows: tuple[Rows, ...],
    structure: Structure,
    priors: dict[str, Any],
) -> dict[str, CodebookUse]:
    """How the data use the codes of each latent site, by its name.

    One draw of the guide for each datum is looked at. Relaxed indicators count as the code of their
    largest number.

    Args:
        priors: those that :func:`priors_over_codes` gives.
    """
    found: dict[str, list[Tensor]] = {}
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        for start in range(0, len(rows[0]) if priors else 0, BLOCK_ROWS):
            block = tuple(part[start : start + BLOCK_ROWS] for part in rows)
            args = place(block, *placement(model, guide))
            drawn = latent_sites(draw(guide, args, 1, structure).trace)
            for name in priors.keys() & drawn.keys():
                codes = _indices(priors[name], drawn[name]["value"])
                found.setdefault(name, []).append(codes.flatten())
    return {
        name: codebook_use(torch.cat(numbers), _num_codes(priors[name]))
        for name, numbers in found.items()
    }


def _num_codes(prior: Any) -> int:
    """K of a prior over codes; 0 of any other."""
    if isinstance(prior, ExpRelaxedCategorical):  # the base of RelaxedOneHotCategorical
        return prior.event_shape[-1]
    return prior.num_codes if isinstance(prior, OverCodes) else 0


def _indices(prior: Any, value: Tensor) -> Tensor:
    return value.argmax(-1) if isinstance(prior, ExpRelaxedCategorical) else prior.indices(value)


def codebook_figures(uses: dict[str, CodebookUse]) -> dict[str, float]:
    """The figures of codes for :func:`evaluate`; with the site's name where there are several."""
    figures: dict[str, float] = {}
    for name, use in uses.items():
        suffix = f"_{name}" if len(uses) > 1 else ""
        figures |= {
            f"codebook_perplexity{suffix}": use.perplexity,
            f"codebook_share{suffix}": use.share,
            f"num_codes{suffix}": len(use.counts),
        }
    return figures
