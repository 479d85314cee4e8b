"""The base of our objectives: a bound of each datum becomes the loss of all data."""

from abc import abstractmethod
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from ..pairs.all_values import draw_all_values
from ..pairs.inspection import inspect_pair
from ..pairs.log_terms import trace_model
from ..pairs.minibatch_scaling import data_scale, subsamples
from ..pairs.programs import Program, evaluating, plain_errors
from ..pairs.sites import latent_sites
from ..pairs.structure import Structure
from .reading import Reading, closed_forms
from .schedules import Weight


class Objective(ELBO):
    """The base of objectives: a bound that is a function of a pair's log terms on a batch.

    A subclass implements :meth:`bound`, and :meth:`surrogate` where its gradient is not that of the
    bound. As in Pyro, the loss is that of all data, of which a minibatch is a sample. An objective
    is a ``pyro.infer.ELBO``, so it also runs in ``pyro.infer.SVI``.

    Args:
        num_particles: S, the number of draws of each datum's z.

    Raises:
        ValueError: if S is less than 1; when first run, if the pair does not suit it.

    >>> class Chi_ELBO(Objective):  # the χ upper bound of Dieng et al. 2017, arXiv 1611.00328
    ...     def bound(self, reading):
    ...         moment = (2 * reading.log_weight).logsumexp(0) - math.log(self.num_particles)
    ...         return -0.5 * moment  # to be maximized, so minus the upper bound
    >>> import math
    >>> from latente.guides import DiagonalNormal
    >>> from latente.inference import fit
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(3, 1), DiagonalNormal(mlp(3, out=2), 1)
    >>> run = fit(model, guide, torch.zeros(8, 3), objective=Chi_ELBO(5), epochs=1,
    ...           show_progress=False)
    """

    points_allowed = False
    """Whether the guide may be a point, which has no density."""

    enumerates = False
    """Whether :meth:`bound` takes all values of the discrete sites that the guide marks
    ``infer={"enumerate": "parallel"}``: see :class:`Reading`. Where it is false, such a pair is
    refused, as a mean over the draws would weigh all values alike."""

    def __init__(self, num_particles: int = 1):
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles)
        self._seen: tuple[Program, Program, Structure, frozenset[str], bool] | None = None

    @abstractmethod
    def bound(self, reading: Reading) -> Tensor:
        """The bound in nats, of each datum (N,), or their mean ()."""

    def surrogate(self, reading: Reading) -> Tensor | None:
        """A tensor to differentiate in place of the bound, of its shape; ``None``: the bound."""
        return None

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse a pair that does not suit the objective; called when the pair is first run.

        Args:
            sites: each latent site of the data plate, in the guide and in the model.
            structure: the facts of the pair.

        Raises:
            ValueError: with the reason, and what to use.
        """

    def __repr__(self) -> str:
        """Name it with its settings: a run is resumed by an objective of the same text."""
        settings = [repr(weight) for weight in self.weights]
        settings += [f"num_particles={self.num_particles}"]
        return f"{type(self).__name__}({', '.join(settings)})"

    @property
    def weights(self) -> list[Weight]:
        """The weights of the objective's terms."""
        return [value for value in vars(self).values() if isinstance(value, Weight)]

    def move_to(self, epoch: float) -> None:
        """Set the weights to their values after so many epochs; ``fit`` does so at each step."""
        for weight in self.weights:
            weight.move_to(epoch)

    def check_pair(
        self, model: Program, guide: Program, args: tuple[Any, ...], structure: Structure
    ) -> None:
        """Refuse a pair of known structure for which the objective is not.

        Raises:
            ValueError: if the objective cannot take its draws, or its sites.
        """
        self._inspect(model, guide, args, structure)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss of all data: minus the bound."""
        with torch.no_grad():
            reading = self._read(model, guide, args, kwargs)
            return -_total(self.bound(reading), reading).item()

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss of all data, whose value is minus the bound; to be differentiated."""
        reading = self._read(model, guide, args, kwargs)
        bound = _total(self.bound(reading), reading)
        surrogate = self.surrogate(reading)
        if surrogate is None:
            return -bound
        total = _total(surrogate, reading)
        return -(total + (bound - total).detach())

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss of all data; its gradient is added to the parameters' ``grad``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} reads all its draws at once")

    def _read(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Reading:
        if kwargs:
            raise ValueError(
                f"{type(self).__name__} takes data and contexts by position: give "
                f"{', '.join(kwargs)} as a positional argument"
            )
        structure, closed, subsampled = self._inspect(model, guide, args)
        draws, log_shares = draw_all_values(guide, args, self.num_particles, structure)
        trace = trace_model(model, draws)
        scale = data_scale(trace, draws, subsampled or subsamples(trace))
        return Reading(model, guide, draws, trace, structure, closed, scale, log_shares)

    def _inspect(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        known: Structure | None = None,
    ) -> tuple[Structure, frozenset[str], bool]:
        """The facts of a pair, found when it is first run; its structure may be known."""
        # A fit tells the structure anew, as the pair may have changed since the objective's last.
        if self._seen is None or known is not None or self._seen[:2] != (model, guide):
            with evaluating(model, guide), torch.random.fork_rng(), plain_errors():
                structure = known or inspect_pair(model, guide, args)
                draws, shares = draw_all_values(guide, args, 1, structure)
                trace = trace_model(model, draws)
                reading = Reading(model, guide, draws, trace, structure, frozenset(), 1.0, shares)
                _check_all(self, reading)
                closed = closed_forms(reading)
            self._seen = model, guide, structure, closed, subsamples(trace)
        return self._seen[2:]


def _check_all(objective: Objective, reading: Reading) -> None:
    """Refuse a pair whose draws the objective cannot take, or that does not suit it."""
    name, structure = type(objective).__name__, reading.structure
    if structure.enumerated:
        raise ValueError(
            f"the guide has no site {structure.enumerated[0]!r}, which the model marks to be "
            f"summed out, and {name} draws all sites: use TraceEnum_ELBO"
        )
    _check_values(objective, reading)
    enumerated = dict(structure.all_values)
    for site_name, site in latent_sites(reading.draws.trace).items():
        if not site["fn"].has_rsample and site_name not in enumerated:
            marked = ""
            if site["infer"].get("enumerate"):
                marked = (
                    "; and it is not enumerated, as the guide draws it after another site, or it "
                    "has several values for each datum"
                )
            raise ValueError(
                f"the guide's {site_name!r} cannot be drawn with a gradient to its parameters, "
                f"which {name} needs{marked}: use Trace_ELBO() or ScoreFunction_ELBO()"
            )
    if structure.points and not objective.points_allowed:
        raise ValueError(
            f"the guide puts {structure.points[0]!r} on one point, which has no density, and "
            f"{name} needs one: leave the objective out, or use Beta_ELBO(beta=0)"
        )
    objective.check(reading.local_sites(), structure)


def _check_values(objective: Objective, reading: Reading) -> None:
    """Refuse to enumerate where the objective, or the pair, does not allow it."""
    structure, name = reading.structure, type(objective).__name__
    if not structure.all_values:
        return
    site = structure.all_values[0][0]
    if not objective.enumerates:
        raise ValueError(
            f"the guide marks {site!r} to be enumerated, and {name} takes draws alone: use "
            "Beta_ELBO(), ImportanceWeighted_ELBO() or TraceEnum_ELBO()"
        )
    if structure.apart or structure.keeps_rows:
        raise ValueError(
            f"the guide marks {site!r} to be enumerated, and each of its draws is a run of its "
            "own: use TraceEnum_ELBO()"
        )


def _total(bound: Tensor, reading: Reading) -> Tensor:
    """The bound of all data, from the bounds of the data of a batch, or from their mean."""
    num_data = reading.draws.num_data
    if not isinstance(bound, Tensor) or bound.shape not in ((), (num_data,)):
        got = tuple(bound.shape) if isinstance(bound, Tensor) else type(bound).__name__
        raise ValueError(
            f"an objective's bound is one number for each datum, ({num_data},), or their mean, (); "
            f"got {got}: average over the draws, which come first"
        )
    total = bound.sum() if bound.dim() else bound * num_data
    total = reading.scale * total
    if reading.structure.global_latents or reading.structure.observed_outside:
        total = total + reading.log_weight_beyond.mean()
    return total
