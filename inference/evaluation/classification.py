"""The posterior of labels: q(y|x) of the discrete sites that a guide marks to be enumerated."""

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..data.arguments import open_pair
from ..data.rows import BLOCK_ROWS, Rows
from ..data.some_labels import UNKNOWN
from ..pairs.inspection import inspect_pair
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.sites import latent_sites
from ..pairs.structure import Structure


def classify(model: Program, guide: Program, data: Any) -> dict[str, Tensor]:
    """Compute q(y|x) of each discrete site that the guide marks to be enumerated, on CPU.

    Args:
        data: x or (x, *context); of what :func:`load_data` returns, the test part is used.

    Returns:
        by the name of the site, the probability of each of its C values, (N, C); whether its value
        is known or not.

    Raises:
        ValueError: if the guide marks no such site.

    >>> from latente.guides import Classifying, DiagonalNormal
    >>> from latente.models import VAE, Bernoulli, Conditional, FlattenEvent, HalfLabelled, OneHot
    >>> from latente.models import StandardNormal, mlp
    >>> decoder = Conditional(mlp(2 + 3, 16, out=4), FlattenEvent(2), OneHot(3))
    >>> encoder = Conditional(mlp(4 + 3, 16, out=4), FlattenEvent(4), OneHot(3))
    >>> model = HalfLabelled(VAE(StandardNormal(2), decoder, Bernoulli((4,))), num_classes=3)
    >>> guide = Classifying(DiagonalNormal(encoder, 2), mlp(4, 16, out=3))
    >>> x, y = torch.zeros(5, 4), torch.tensor([-1, -1, -1, 2, 0])
    >>> {name: p.shape for name, p in classify(model, guide, (x, y)).items()}
    {'y_unobserved': torch.Size([5, 3])}
    """
    model, guide, rows = open_pair(model, guide, data)
    args = place(tuple(part[:2] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        structure = inspect_pair(model, guide, args)
    if not structure.all_values:
        raise ValueError(
            "the guide marks no discrete site of the data to be enumerated: "
            "infer={'enumerate': 'parallel'}"
        )
    return label_probabilities(model, guide, rows, structure)


def label_probabilities(
    model: Program, guide: Program, rows: tuple[Rows, ...], structure: Structure
) -> dict[str, Tensor]:
    """As :func:`classify`, of rows of a pair whose structure is known."""
    found: dict[str, list[Tensor]] = {name: [] for name, _ in structure.all_values}
    device, dtype = placement(model, guide)
    with evaluating(model, guide), torch.random.fork_rng(), pyro.validation_enabled(False):
        for start in range(0, len(rows[0]), BLOCK_ROWS):
            block = place(tuple(part[start : start + BLOCK_ROWS] for part in rows), device, dtype)
            sites = latent_sites(poutine.trace(guide).get_trace(*block))
            for name, parts in found.items():
                q = sites[name]["fn"]
                parts.append(q.log_prob(q.enumerate_support()).exp().flatten(1).T.cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def are_known(labels: Tensor) -> Tensor:
    """Which labels (N,) are known: neither −1 nor NaN, as programs take them too."""
    return (labels != UNKNOWN) & ~labels.isnan()


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of the known labels (N,) that are the class of largest q(y|x), (N, C).

    Labels are −1, or NaN, where they are not known.

    >>> accuracy(torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]]), torch.tensor([1, 1, -1]))
    0.5
    """
    known = are_known(labels)
    right = probabilities.argmax(1)[known] == labels[known]
    return right.double().mean().item()
