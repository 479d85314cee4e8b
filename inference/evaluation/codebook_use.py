"""How many of the codes of a codebook the data use."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
