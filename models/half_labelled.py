"""A model beside whose z stands a label, known for some data: p(x|z, y) p(z) p(y)."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from torch import Tensor, nn


def unknown_labels(labels: Tensor) -> Tensor:
    """Where a label is not known: −1, or NaN."""
    return (labels == -1) | labels.isnan() if labels.is_floating_point() else labels == -1


def classes_of(labels: Tensor) -> Tensor:
    """The classes of labels, with 0 in place of those that are not known."""
    return torch.where(unknown_labels(labels), 0, labels).long()


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels that are neither a class 0 … C − 1 nor unknown.

    Raises:
        ValueError: with the first of them, and its row.
    """
    classes = (labels >= 0) & (labels < num_classes) & (labels == labels.floor())
    wrong = (~classes & ~unknown_labels(labels)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(
            f"labels are 0 to {num_classes - 1}, or -1 or NaN where they are not known, but row "
            f"{row}, counted from 0, has {labels[row].item():g}"
        )


def data_plate(size: int) -> pyro.plate:
    """A plate of data in a program that runs another one, which has a plate of that name itself."""
    # A trace has the site of a plate's indices but once.
    with poutine.block(hide=["data"]):
        return pyro.plate("data", size, dim=-1)


class HalfLabelled(PyroModule):
    """A model given a label that is known for some data, and latent for the others.

    For each datum n, independently (Kingma et al. 2014, arXiv 1406.5298, M2)::

        yₙ ~ Categorical(probs)          observed where it is known
        zₙ ~ p(z), xₙ ~ p(x|z, yₙ)       the given model, with yₙ as its context

    The program is ``model(x, y, *context)``, with y whole numbers (N,), −1 where the label is not
    known; or NaN, where they are floating-point numbers. Its sites are ``"y_unobserved"``, latent
    where y is unknown and masked elsewhere, ``"y_observed"``, the other way round (both are those
    of ``pyro.sample(…, obs_mask=…)``), and those of the given model. Pair it with a
    :class:`latente.guides.Classifying`.

    ``log_evidence`` is log p(x) of the rows without a label, and log p(x, y) of those with one.
    Draws of x of a class are those of the given model: ``sample_prior(half.model, guide.guide, 10,
    (x, y))``.

    Args:
        model: a model p(x|z, y) p(z) whose first context is y, such as a :class:`VAE` whose
            decoder is a :class:`Conditional` with :class:`OneHot`.
        num_classes: C.
        learn_probs: whether the probabilities of the classes are learned; if not, they are 1 / C.

    Raises:
        ValueError: if C is less than 2; when run, if a label is neither 0 … C − 1 nor unknown.

    >>> from latente.models import VAE, Bernoulli, Conditional, FlattenEvent, OneHot, StandardNormal
    >>> from latente.models import mlp
    >>> decoder = Conditional(mlp(2 + 10, 16, out=64), FlattenEvent(2), OneHot(10))
    >>> model = HalfLabelled(VAE(StandardNormal(2), decoder, Bernoulli((8, 8))), num_classes=10)
    >>> x, y = torch.zeros(3, 8, 8), torch.tensor([4, -1, -1])
    >>> trace = pyro.poutine.trace(model).get_trace(x, y)
    >>> trace.nodes["y"]["value"][0]
    tensor(4)
    """

    logits: Tensor

    def __init__(self, model: Callable[..., Any], num_classes: int, *, learn_probs: bool = False):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"there must be 2 classes or more, got {num_classes}")
        self.model, self.num_classes = model, num_classes
        logits = torch.zeros(num_classes)
        if learn_probs:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def check_rows(self, x: object, labels: Tensor, *context: object) -> None:
        """Refuse labels (N,) that are neither a class nor unknown: ``fit`` asks for all data."""
        check_labels(labels, self.num_classes)

    def forward(self, x: Tensor, labels: Tensor, *context: Tensor) -> Any:
        """Run the program on data (N, *event_shape) and labels (N,)."""
        # Skipped in a fit, which has checked all data: reading values would wait for the device.
        if is_validation_enabled():
            check_labels(labels, self.num_classes)
        prior = dist.Categorical(logits=self.logits)
        with data_plate(len(x)):
            known: Any = ~unknown_labels(labels)
            classes = classes_of(labels)
            label = pyro.sample("y", prior, obs=classes, obs_mask=known)
        return self.model(x, label, *context)
