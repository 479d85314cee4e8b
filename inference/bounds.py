"""What our objectives share: a pair run on a batch, and the loss of all data it makes."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from .pairs import DATA_PLATE, Program, evaluating, plain_errors
from .schedules import Weight
from .terms import (
    Draws,
    Structure,
    draw,
    in_data_plate,
    inspect_pair,
    latent_sites,
    observed_sites,
    replay,
    sample_sites,
    sum_sites,
)


@dataclass(frozen=True)
class Reading:
    """A pair at S draws z ~ q(z|x) for each of the N data of a batch, with gradients.

    What an objective is a function of. All terms are in nats.
    """

    model: Program
    guide: Program
    draws: Draws
    model_trace: Trace
    structure: Structure
    closed: frozenset[str]
    """Latent sites whose KL is taken in closed form."""
    scale: float
    """How many data each of the batch stands for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return self.draws.num_samples, self.draws.num_data

    @cached_property
    def log_likelihood(self) -> Tensor:
        """log p(x|z), (S, N)."""
        observed = [site for site in sample_sites(self.model_trace).values() if site["is_observed"]]
        return self._sum(observed)[0]

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z), (S, N)."""
        return self._sum(latent_sites(self.model_trace).values())[0]

    @property
    def log_posterior(self) -> Tensor:
        """log q(z|x), (S, N)."""
        return self.draws.log_posterior

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x), (S, N)."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    @cached_property
    def log_weight_beyond(self) -> Tensor:
        """The same of what stands outside the data plate, once for all data: (S,)."""
        return self._sum(sample_sites(self.model_trace).values())[1] - (
            self.draws.log_posterior_global
        )

    def _sum(self, sites: Any) -> tuple[Tensor, Tensor]:
        return sum_sites(sites, self.shape, self.draws.plated, self.draws.log_posterior)

    def local_sites(self) -> dict[str, tuple[Any, Any]]:
        """Each latent site of the data plate, in the guide and in the model, by name."""
        models = latent_sites(self.model_trace)
        return {
            name: (site, models[name])
            for name, site in latent_sites(self.draws.trace).items()
            if name in models and in_data_plate(site)
        }

    def kl_by_dimension(self) -> list[Tensor]:
        """KL(q(z|x) ‖ p(z)) of each latent site, (S, N, J).

        In closed form where there is one, and then one number for each of J dimensions where both
        laws are products over them; else log q − log p at the draws, with J = 1. Each element of a
        plate within the data plate has dimensions of its own.
        """
        return [self._site_kl(name, *pair) for name, pair in self.local_sites().items()]

    def _site_kl(self, name: str, q: Any, p: Any) -> Tensor:
        if name in self.closed:
            if is_product(q["fn"]) and is_product(p["fn"]):
                kl = kl_divergence(q["fn"].base_dist, p["fn"].base_dist).flatten(-q["fn"].event_dim)
            else:
                kl = kl_divergence(q["fn"], p["fn"])[..., None]
        else:
            kl = (q["fn"].log_prob(q["value"]) - p["fn"].log_prob(q["value"]))[..., None]
        kl = scale_and_mask(kl.movedim(-1, 0), mask=q["mask"]).movedim(0, -1)
        # What stands in plates of its own within a datum has as many dimensions more.
        return kl.movedim(-2, 1 if self.draws.plated else 0).reshape(*self.shape, -1)

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)) of all latent sites of each datum, (S, N)."""
        total = torch.zeros_like(self.draws.log_posterior)
        for kl in self.kl_by_dimension():
            total = total + kl.sum(-1)
        return total


class Objective(ELBO):
    """An objective of one's own: a bound as a function of what a pair says of a batch.

    A subclass implements :meth:`bound`, and :meth:`surrogate` where its gradient is not that of the
    bound. Data outside a minibatch are accounted for: the loss is that of all data, as Pyro's are.
    It is a ``pyro.infer.ELBO``, and so also runs in ``pyro.infer.SVI``.

    Args:
        num_particles: S, how many draws of each datum's z.

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
    """Whether it makes sense for a guide that is a point, without a density."""

    def __init__(self, num_particles: int = 1):
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles)
        self._seen: tuple[Program, Program, Structure, frozenset[str], bool] | None = None

    @abstractmethod
    def bound(self, reading: Reading) -> Tensor:
        """The bound in nats, of each datum (N,), or their mean ()."""

    def surrogate(self, reading: Reading) -> Tensor | None:
        """What is differentiated in the bound's place, of the same shape; ``None``: the bound."""
        return None

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse a pair that the objective makes no sense for; called when it is first met.

        Args:
            sites: each latent site of the data plate, in the guide and in the model.
            structure: the facts of the pair.

        Raises:
            ValueError: with the reason, and what to use.
        """

    def __repr__(self) -> str:
        """Name it with its settings: a run is resumed by what says the same."""
        settings = [repr(weight) for weight in self.weights]
        settings += [f"num_particles={self.num_particles}"]
        return f"{type(self).__name__}({', '.join(settings)})"

    @property
    def weights(self) -> list[Weight]:
        """The weights of its terms."""
        return [value for value in vars(self).values() if isinstance(value, Weight)]

    def move_to(self, epoch: float) -> None:
        """Let the weights be what they are after so many epochs; ``fit`` does so at each step."""
        for weight in self.weights:
            weight.move_to(epoch)

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
                f"{type(self).__name__} passes on data and contexts in order, not by name: give "
                f"{', '.join(kwargs)} as a positional argument"
            )
        structure, closed, subsampled = self._inspect(model, guide, args)
        draws = draw(guide, args, self.num_particles, structure)
        trace = replay(model, draws)
        scale = _data_scale(trace, draws, subsampled or _subsamples(trace))
        return Reading(model, guide, draws, trace, structure, closed, scale)

    def _inspect(
        self, model: Program, guide: Program, args: tuple[Any, ...]
    ) -> tuple[Structure, frozenset[str], bool]:
        """The facts of a pair, found when it is first met."""
        if self._seen is None or self._seen[0] != model or self._seen[1] != guide:
            with evaluating(model, guide), torch.random.fork_rng(), plain_errors():
                structure = inspect_pair(model, guide, args)
                draws = draw(guide, args, 1, structure)
                trace = replay(model, draws)
                reading = Reading(model, guide, draws, trace, structure, frozenset(), 1.0)
                self._check_all(reading)
                closed = closed_forms(reading)
            self._seen = model, guide, structure, closed, _subsamples(trace)
        return self._seen[2:]

    def _check_all(self, reading: Reading) -> None:
        name, structure = type(self).__name__, reading.structure
        if structure.enumerated:
            raise ValueError(
                f"the guide has no site {structure.enumerated[0]!r}, which the model marks to be "
                f"summed out; {name} draws all sites: use TraceEnum_ELBO"
            )
        for site_name, site in latent_sites(reading.draws.trace).items():
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"the guide's {site_name!r} cannot be drawn with a gradient to its parameters, "
                    f"as {name} needs: use Trace_ELBO() or ScoreFunction_ELBO()"
                )
        if structure.points and not self.points_allowed:
            raise ValueError(
                f"the guide puts {structure.points[0]!r} on one point, which has no density, and "
                f"{name} needs one: leave the objective out, or take Beta_ELBO(beta=0)"
            )
        self.check(reading.local_sites(), structure)


def closed_forms(reading: Reading) -> frozenset[str]:
    """The local sites whose KL has a closed form: none where orders differ, as that KL given the
    sites drawn before is then not a term of the bound."""
    sites = reading.local_sites()
    in_model = [name for name in latent_sites(reading.model_trace) if name in sites]
    if list(sites) != in_model:
        return frozenset()
    return frozenset(
        name
        for name, (q, p) in sites.items()
        if name not in reading.structure.points and has_closed_form(q["fn"], p["fn"])
    )


def has_closed_form(posterior: Any, prior: Any) -> bool:
    """Whether KL(posterior ‖ prior) is known."""
    try:
        kl_divergence(posterior, prior)
    except (NotImplementedError, IndexError):  # that of Bernoulli laws does not broadcast
        return False
    return True


def is_product(law: Any) -> bool:
    """Whether a law is one of independent numbers."""
    return isinstance(law, Independent) and len(law.event_shape) == law.reinterpreted_batch_ndims


def _total(bound: Tensor, reading: Reading) -> Tensor:
    """The bound of all data, from that of each datum of a batch, or their mean."""
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


def _subsamples(model_trace: Trace) -> bool:
    """Whether the data plate itself says how many data there are beside the batch."""
    return any(
        frame.name == DATA_PLATE and frame.full_size not in (None, frame.size)
        for site in sample_sites(model_trace).values()
        for frame in site["cond_indep_stack"]
    )


def _data_scale(model_trace: Trace, draws: Draws, subsampled: bool) -> float:
    """How many data each of a batch stands for: the scale that all its sites have in common."""
    sites = [*latent_sites(draws.trace).values(), *sample_sites(model_trace).values()]
    scales = [site["scale"] for site in sites if in_data_plate(site)]
    first = scales[0]
    if isinstance(first, Tensor) or any(scale is not first and scale != first for scale in scales):
        raise ValueError(
            "some sites of the pair have a poutine.scale of their own, which this objective "
            "cannot tell from a term's weight: use its own weights, such as Beta_ELBO(beta=…)"
        )
    if not draws.plated and draws.num_samples > 1:
        # Repeated data pass for as many more, each with less weight: that is undone.
        if subsampled:
            return float(first) * draws.num_samples
        folded = draws.num_data * draws.num_samples
        first = first * _outer_scale(draws.num_data) / _outer_scale(folded)
    return float(first)


def _outer_scale(size: int) -> float:
    """The scale that a data plate of this size gets from whatever the objective runs inside."""

    def probe() -> None:
        with pyro.plate(DATA_PLATE, size, dim=-1):
            pyro.sample("latente_probe", dist.Normal(0.0, 1.0), obs=torch.zeros(size))

    (site,) = observed_sites(poutine.trace(probe).get_trace()).values()
    return float(site["scale"])
