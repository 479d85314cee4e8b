"""Labels that are given for some rows, and hidden in the others."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.arguments import name_rows

UNKNOWN = -1
"""The label of a row whose label is not known."""

SOME_LABELS = "some labels"
"""How a :class:`Transform` names this context."""


@dataclass(frozen=True)
class SomeLabels:
    """A context of :func:`load_data`: labels of which a few of the training rows' are known.

    The context is the label, and −1 where it is not known: of all training rows but ``known``, as
    many of each class (or one more), drawn with the seed of the data; and of all validation and
    test rows. ``train_labels``, ``validation_labels`` and ``test_labels`` keep them all.

    Args:
        known: how many training labels are known; ``None``: those that are not −1 in the data.

    Raises:
        ValueError: if ``known`` is less than 1.

    >>> from latente.inference import load_data
    >>> data = load_data("digits", given=SomeLabels(100), seed=0)
    >>> (data.train_context[0] >= 0).sum(), data.train_context[0].unique()[:2]
    (tensor(100), tensor([-1,  0]))
    """

    known: int | None = None

    def __post_init__(self) -> None:
        if self.known is not None and self.known < 1:
            raise ValueError(f"known must be at least 1 label, got {self.known}")

    def hide(self, data: Any, seed: int) -> Any:
        """Hide the labels in the contexts of loaded data, a ``Data`` that is given all of them.

        Raises:
            ValueError: if the data have no labels, or too few to choose from; or if a label is
                below −1.
        """
        labels = data.train_labels
        if labels is None:
            raise ValueError(f"{data.name} has no labels of which some could be known")
        wrong = np.flatnonzero((labels < UNKNOWN).numpy())
        if len(wrong):
            raise ValueError(
                f"labels are 0, 1, …, or -1 where they are not known, but {int(labels[wrong[0]])} "
                f"is in {name_rows(data.train_index[wrong[:1]])} of {data.name}"
            )
        shown = labels if self.known is None else self._choose(labels, data.name, seed)
        if not bool((shown != UNKNOWN).any()):
            raise ValueError(f"{data.name} has no row whose label is known")
        hidden: dict[str, Any] = {"train_context": (*data.train_context[:-1], shown)}
        for part in ("validation", "test"):
            *others, own = getattr(data, f"{part}_context")
            hidden[f"{part}_context"] = (*others, torch.full_like(own, UNKNOWN))
        return replace(data, **hidden)

    def _choose(self, labels: Tensor, name: str, seed: int) -> Tensor:
        """All labels but ``known``, drawn with as many of each class, become −1."""
        assert self.known is not None
        random = np.random.default_rng(seed)
        classes = [int(one) for one in labels.unique() if one != UNKNOWN]
        if self.known < len(classes):
            raise ValueError(
                f"{name} has {len(classes)} classes, and of {self.known} known labels some would "
                f"have none: give known={len(classes)} or more"
            )
        shares = [part.size for part in np.array_split(np.arange(self.known), len(classes))]
        if self.known % len(classes):  # which classes have one more
            random.shuffle(shares)
        shown = torch.full_like(labels, UNKNOWN)
        for one, share in zip(classes, shares, strict=True):
            rows = np.flatnonzero((labels == one).numpy())
            if share > len(rows):
                raise ValueError(
                    f"{self.known} known labels are {share} of each class, and {name} has "
                    f"{len(rows)} training rows of class {one}: take fewer"
                )
            shown[random.choice(rows, share, replace=False)] = one
        return shown
