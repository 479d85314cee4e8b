"""Codes: the posterior of each datum in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.arguments import open_pair
from ..data.load_data import Data
from ..evidence.importance_sampling import log_evidence
from ..pairs.programs import Program
from ..simulation.predictive import posterior_means, steps_of_latents
from .posterior_sds import posterior_sds
from .rows_beside import beside_test_rows, frame_of


@dataclass(frozen=True)
class Codes:
    """The posterior of N data by latent site, with a judgement of each; on CPU."""

    mean: dict[str, Tensor]
    """E_q[z|x] of each site, (N, *event_shape); of an angle, the mean direction. Of a sequence, NaN
    for steps beyond its end."""
    sd: dict[str, Tensor]
    """The standard deviation of q(z|x), as ``mean``; of an angle, √(−2 log R) of its mean length R.
    """
    khat: Tensor
    """Pareto k̂ of importance weights, (N,): above ``khat_threshold`` q(z|x) is far from p(z|x)."""
    khat_threshold: float
    log_px: Tensor
    """log p(x) from the same draws, (N,), nats."""
    standard_error: Tensor
    """Monte Carlo standard error of ``log_px``, (N,)."""
    index: np.ndarray | None = field(default=None, repr=False)
    """Numbers of the rows in what was read, (N,); ``None``: 0, 1, …"""
    beside: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Labels, and columns of a table that are no part of x, such as groups, (N,), by name."""

    def to_frame(self) -> Any:
        """The codes as a pandas DataFrame: a row for each datum, with its number as index.

        Columns are those of :attr:`beside`; ``z_1_mean``, ``z_1_sd``, … for each dimension of each
        site, by its name; and ``khat``.

        Raises:
            ValueError: if latent variables are global: k̂ is then of the whole data set.
        """
        index = np.arange(len(self.khat)) if self.index is None else self.index
        return frame_of(index, self.beside, self.figures())

    def figures(self) -> dict[str, np.ndarray]:
        """The columns of :meth:`to_frame` that are not :attr:`beside`."""
        found = {}
        for site, value in self.mean.items():
            if len(value) != len(self.khat):
                raise ValueError(
                    "latent variables are global, and k̂ is of the whole data set: there is no k̂ "
                    "for each row; take .mean and .sd"
                )
            for place in product(*map(range, value.shape[1:])):
                name = "_".join([site, *(str(number + 1) for number in place)])
                found[f"{name}_mean"] = value[:, *place].numpy()
                found[f"{name}_sd"] = self.sd[site][:, *place].numpy()
        return {**found, "khat": self.khat.numpy()}

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in self.mean.items())
        bad = 1 - (self.khat <= self.khat_threshold).double().mean().item()
        return f"Codes(N={len(self.khat)}: {sites}; k̂ bad for {bad:.1%})"


def encode(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 1000,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Codes:
    """Compute mean and standard deviation of q(z|x), and k̂, for each datum.

    The moments are exact for the site that a guide draws first, and for others that do not depend
    on a draw, where the distribution has them in closed form; otherwise those of 1,000 draws.

    Args:
        data: x or (x, *context), all of which is used; of what :func:`load_data` returns, the test
            part is used.
        num_samples: S of :func:`log_evidence`, from which k̂ is.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the data done.

    Raises:
        ValueError: as :func:`log_evidence` does.

    >>> import torch
    >>> from latente.models import VAE, StandardNormal, Bernoulli, mlp
    >>> from latente.guides import DiagonalNormal
    >>> vae = VAE(StandardNormal(2), mlp(2, 16, out=64), Bernoulli((8, 8)))
    >>> guide = DiagonalNormal(mlp(64, 16, out=4), latent_dim=2)
    >>> codes = encode(vae, guide, torch.ones(5, 8, 8))
    >>> codes.mean["z"].shape, codes.sd["z"].shape, codes.khat.shape
    (torch.Size([5, 2]), torch.Size([5, 2]), torch.Size([5]))
    >>> list(codes.to_frame())
    ['z_1_mean', 'z_1_sd', 'z_2_mean', 'z_2_sd', 'khat']
    """
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    evidence = log_evidence(
        model, guide, rows, num_samples=num_samples, seed=seed, show_progress=show_progress
    )
    own = isinstance(data, Data) and len(evidence.khat) == len(data.test)
    present = steps_of_latents(model, guide, rows)
    mean, sd = (
        {name: _without_padding(value, present.get(name)) for name, value in of.items()}
        for of in (posterior_means(model, guide, rows), posterior_sds(model, guide, rows))
    )
    return Codes(
        mean,
        sd,
        evidence.khat,
        evidence.khat_threshold,
        evidence.log_px,
        evidence.standard_error,
        index=data.test_index if own else None,
        beside=beside_test_rows(data) if own else {},
    )


def _without_padding(value: Tensor, present: Tensor | None) -> Tensor:
    """Values (N, T, …) with NaN for steps that are not there."""
    if present is None:
        return value
    return value.masked_fill(~present[(..., *[None] * (value.dim() - 2))], torch.nan)
