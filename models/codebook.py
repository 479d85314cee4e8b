"""The codebook of vector quantization: learned vectors, and how they move."""

import torch
from torch import Tensor, nn

from .codes import Codes

SHARE_DECAY = 0.99
"""The decay of the shares of codes where the vectors are parameters."""

NEAR = 1e-3
"""Distance from a vector, in units of the largest number of the codebook, within which a number
counts as its own: the nearest vector is found by products of matrices, which round."""


class Codebook(Codes):
    """The codebook of vector quantization (VQ): K learned vectors of d numbers, at M positions.

    Features (…, d, *positions) become the nearest vector at each position, with the gradient of the
    identity to the features (straight through). Model and guide share one codebook: give the same
    object to :class:`latente.models.UniformCodes` and to :class:`latente.guides.VectorQuantized`.

    The vectors move in one of two ways:

    - With a ``decay`` γ, they follow moving averages, in each training step whose features have a
      gradient (not in evaluation, nor with a frozen encoder)::

          nₖ ← γ nₖ + (1 − γ) (share of code k in the batch)
          sₖ ← γ sₖ + (1 − γ) (sum of the features nearest to k, by the number of all features)
          eₖ = sₖ / nₖ

    - With ``decay=None`` they are parameters. The gradient of the objective reaches them through
      the decoder, since the code is part of p(x|z); and through the term ``codebook`` of the guide.

    A code is dead if its share nₖ is below ``restart`` / K, and is then put on a feature vector of
    the batch, drawn at random without replacement. At the start all codes are dead: so they start
    at data. All of this state is in buffers, which checkpoints hold.

    Args:
        num_codes: K.
        dim: d, how many numbers a vector has.
        positions: M, or the shape of the positions, (H, W); () for one code.
        decay: γ of the moving averages; ``None``: the vectors are parameters.
        restart: the share of a code, in units of 1/K, below which it is restarted; 0: never, and
            the vectors start at random in [−1/K, 1/K], as in the paper.

    Raises:
        ValueError: if a size is less than 1, or ``decay`` or ``restart`` is not in [0, 1).

    Source: van den Oord, Vinyals and Kavukcuoglu 2017 (arXiv 1711.00937), with appendix A.1 for the
    moving averages. There is no gradient of the reconstruction to the vectors there.

    >>> codebook = Codebook(16, dim=3, positions=(2, 2))
    >>> codebook.event_shape, codebook.num_values
    (torch.Size([3, 2, 2]), 65536)
    >>> codebook.quantize(torch.zeros(5, 3, 2, 2)).shape
    torch.Size([5, 3, 2, 2])
    """

    vectors: Tensor
    share: Tensor
    sums: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        positions: int | tuple[int, ...] = (),
        *,
        decay: float | None = 0.99,
        restart: float = 0.1,
    ):
        super().__init__(num_codes, dim, positions)
        for name, value in (("decay", decay), ("restart", restart)):
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, got {value}")
        self.decay, self.restart = decay, restart
        start = (2 * torch.rand(num_codes, dim) - 1) / num_codes
        share = torch.full((num_codes,), 0.0 if restart else 1 / num_codes)
        self.register_buffer("share", share)
        if decay is None:
            self.vectors = nn.Parameter(start)
        else:
            self.register_buffer("vectors", start)
            self.register_buffer("sums", start * share[:, None])

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.vectors.device

    def _rows(self, value: Tensor) -> Tensor:
        """Values (…, d, *positions) as rows (…, *positions, d)."""
        return value.movedim(-len(self.event_shape), -1)

    @torch.no_grad()
    def indices(self, value: Tensor) -> Tensor:
        """The numbers of the vectors nearest to values (…, d, *positions): (…, *positions)."""
        rows = self._rows(value)
        # ‖f − e‖² without ‖f‖², which is the same for all vectors.
        return (self.vectors.square().sum(-1) - 2 * rows @ self.vectors.T).argmin(-1)

    def codes(self, indices: Tensor) -> Tensor:
        """The value (…, d, *positions) of code numbers (…, *positions).

        >>> codebook = Codebook(8, dim=3, positions=2)
        >>> codebook.indices(codebook.codes(torch.tensor([5, 0])))
        tensor([5, 0])
        """
        rows = nn.functional.embedding(indices, self.vectors)
        return rows.movedim(-1, -len(self.event_shape))

    @torch.no_grad()
    def contains(self, value: Tensor) -> Tensor:
        """Which values (…, d, *positions) are made of the vectors: (…)."""
        reach = NEAR * self.vectors.abs().max()
        off = (value - self.codes(self.indices(value))).abs()
        return (off <= reach).flatten(-len(self.event_shape)).all(-1)

    def quantize(self, features: Tensor) -> Tensor:
        """Features (…, d, *positions) to the nearest vectors, straight through.

        In a training step whose features have a gradient, the codebook is moved first.
        """
        if self.training and features.requires_grad:
            indices = self._move(features.detach())
        else:
            indices = self.indices(features)
        # The difference is exactly 0, so the value is exactly in the codebook.
        return self.codes(indices) + (features - features.detach())

    @torch.no_grad()
    def _move(self, features: Tensor) -> Tensor:
        """Restart dead codes and move the averages; the numbers of the nearest before that."""
        rows = self._rows(features).reshape(-1, self.dim)
        if self.restart:
            self._restart(rows)
        indices = self.indices(features)
        nearest = indices.flatten()
        decay = SHARE_DECAY if self.decay is None else self.decay
        weight = (1 - decay) / len(rows)
        self.share.mul_(decay).index_add_(0, nearest, torch.full_like(rows[:, 0], weight))
        if self.decay is not None:
            self.sums.mul_(self.decay).index_add_(0, nearest, rows * weight)
            used = self.share > torch.finfo(rows.dtype).tiny
            means = self.sums / self.share.where(used, 1.0)[:, None]
            self.vectors.copy_(means.where(used[:, None], self.vectors))
        return indices

    def _restart(self, rows: Tensor) -> None:
        """Put codes that are hardly used on some of the features (n, d)."""
        dead = self.share < self.restart / self.num_codes
        # Without replacement, for two codes on one vector would be one code.
        order = torch.randperm(len(rows), device=rows.device)
        chosen = rows[order[torch.arange(self.num_codes, device=rows.device) % len(rows)]]
        self.vectors.copy_(chosen.where(dead[:, None], self.vectors))
        self.share.copy_(torch.full_like(self.share, 1 / self.num_codes).where(dead, self.share))
        if self.decay is not None:
            self.sums.copy_((chosen / self.num_codes).where(dead[:, None], self.sums))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        sizes = f"{self.num_codes}, dim={self.dim}, positions={self.positions}"
        return f"{sizes}, decay={self.decay}, restart={self.restart}"
