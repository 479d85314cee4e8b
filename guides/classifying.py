"""A guide with a classifier beside it, for labels known for some data: q(y|x) q(z|x, y)."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..models.half_labelled import classes_of, data_plate, unknown_labels


class Classifying(PyroModule):
    """A guide that draws the label y where it is not known, then all else given x and y.

    ::

        yₙ ~ Categorical(classifier(xₙ)) where yₙ is not known, then the given guide, q(z|xₙ, yₙ)

    It is the guide of a :class:`latente.models.HalfLabelled` (Kingma et al. 2014, arXiv
    1406.5298). Its site ``"y_unobserved"`` is marked to be enumerated: :class:`Beta_ELBO`,
    :class:`ImportanceWeighted_ELBO` and :func:`log_evidence` take all classes in place of a draw.

    Nothing in the bound of a datum whose label is known fits the classifier to that label. So the
    guide has the auxiliary term ``"classifier_loss"``, −log q(yₙ|xₙ) of these data in nats, 0 of
    others, for ``AuxiliaryLoss(Beta_ELBO(), {"classifier_loss": α})``. The paper's α is 0.1 N / Nₗ
    for Nₗ known labels of N data: together they then weigh as much as a tenth of the data.

    Args:
        guide: q(z|x, y), whose first context is y, such as a :class:`DiagonalNormal` whose encoder
            is a :class:`latente.models.Conditional` with :class:`latente.models.OneHot`.
        classifier: a network from x (N, *event_shape) to logits (N, C).

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import Conditional, FlattenEvent, OneHot, mlp
    >>> encoder = Conditional(mlp(64 + 10, 16, out=4), FlattenEvent((8, 8)), OneHot(10))
    >>> guide = Classifying(DiagonalNormal(encoder, 2), mlp(64, 16, out=10))
    >>> x, y = torch.zeros(3, 8, 8), torch.tensor([4, -1, -1])
    >>> guide(x, y).shape, guide.classify(x).probs.shape
    (torch.Size([3, 2]), torch.Size([3, 10]))
    """

    def __init__(self, guide: Callable[..., Any], classifier: nn.Module):
        super().__init__()
        self.guide, self.classifier = guide, classifier

    def classify(self, x: Tensor) -> dist.Categorical:
        """q(y|x) of data (N, *event_shape)."""
        return dist.Categorical(logits=self.classifier(x))

    def forward(self, x: Tensor, labels: Tensor, *context: Tensor) -> Any:
        """Run the program on data (N, *event_shape) and labels (N,); returns z."""
        unknown, classes = unknown_labels(labels), classes_of(labels)
        posterior = self.classify(x)
        error = cross_entropy(posterior.logits, classes, reduction="none")
        with data_plate(len(x)):
            loss = torch.where(unknown, 0.0, error)
            _deterministic("classifier_loss", loss)
            mask: Any = unknown
            with poutine.mask(mask=mask):
                infer: Any = {"enumerate": "parallel"}
                drawn = pyro.sample("y_unobserved", posterior, infer=infer)
        return self.guide(x, torch.where(unknown, drawn, classes), *context)


def _deterministic(name: str, value: Tensor) -> None:
    """``pyro.deterministic`` of one number for each datum, which the model need not have."""
    point = dist.Delta(value).mask(False)
    pyro.sample(name, point, obs=value, infer={"_deterministic": True, "is_auxiliary": True})  # pyright: ignore
