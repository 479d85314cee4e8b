"""A composition: a choice on each axis."""

from dataclasses import dataclass
from typing import Any

from pyro.infer import ELBO

from ..data.binarization import Binarization
from ..data.load_data import Data
from ..data.some_labels import UNKNOWN
from ..objectives.auxiliary_loss import AuxiliaryLoss
from ..objectives.beta import Beta_ELBO
from .axis import Choice, Part
from .contexts import SOME_LABELS, GivenPart
from .likelihoods import LikelihoodPart
from .objectives import KLWeight, ObjectivePart
from .posteriors import PosteriorPart


@dataclass(frozen=True)
class Composition:
    """A model, a guide and an objective, as the choice on each axis."""

    levels: Choice[Part]
    prior: Choice[Part]
    posterior: Choice[PosteriorPart]
    likelihood: Choice[LikelihoodPart]
    network: Choice[Part]
    objective: Choice[ObjectivePart]
    beta: Choice[Part] | None
    """The weight of the KL; ``None``: the objective's own."""
    free_bits: float
    given: Choice[GivenPart]
    binarize: Binarization

    @property
    def is_conditional(self) -> bool:
        """Whether the model is given a context."""
        return self.given.part.reader is not None

    @property
    def is_half_labelled(self) -> bool:
        """Whether labels are given for a few data."""
        return self.given.name == SOME_LABELS

    @property
    def is_hierarchy(self) -> bool:
        """Whether there are several levels of latent variables."""
        return self.levels.name != "one" and not self.takes_sequences

    @property
    def takes_sequences(self) -> bool:
        """Whether the model is one of sequences, whose lengths it takes after x."""
        return self.levels.part.sequences

    @property
    def has_density(self) -> bool:
        """Whether the posterior has a density; a point has none."""
        return self.posterior.name != "point"

    @property
    def is_without_kl(self) -> bool:
        """Whether the weight of the KL is zero in all epochs."""
        return self.beta is not None and self.beta.name == "constant" and self.beta["value"] == 0

    def make_objective(self) -> ELBO | None:
        """Make the objective; ``None`` if :func:`fit` is to choose the default for the pair.

        Raises:
            ValueError: if its parameters do not go together.
        """
        beta = None if self.beta is None else self.beta.build()
        objective: Any = self.objective.build(KLWeight(beta, self.free_bits))
        terms = self.posterior.part.auxiliary(self.posterior)
        if objective is None and (terms or self.is_half_labelled):
            objective = Beta_ELBO()
        return AuxiliaryLoss(objective, terms) if terms else objective  # pyright: ignore

    def objective_for(self, data: Data) -> ELBO | None:
        """The objective, with a term of the classifier where labels are given for a few data.

        It weighs ``weight`` · N / Nₗ for each of Nₗ known labels of N data, as in the paper.
        """
        objective = self.make_objective()
        if not self.is_half_labelled:
            return objective
        labels: Any = data.train_context[-1]
        weight = self.given["weight"] * len(labels) / int((labels != UNKNOWN).sum())
        return AuxiliaryLoss(objective, {"classifier_loss": weight})  # pyright: ignore
