"""Objectives: which ``pyro.infer.ELBO`` suits a pair, and those that Pyro lacks."""

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor

from .bounds import has_closed_form
from .pairs import Program
from .regularized import Beta_ELBO
from .terms import Structure, latent_sites


class _WithoutPath(TorchDistribution):
    """A law whose draws carry no gradient to its parameters.

    Pyro's ``has_rsample_(False)`` does not reach laws made by ``to_event``, nor survive ``expand``.
    """

    has_rsample = False

    def __init__(self, law: TorchDistribution):
        self.law = law
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the law."""
        return self.law.support

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draw, without a gradient."""
        with torch.no_grad():
            return self.law.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """That of the law."""
        return self.law.log_prob(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_WithoutPath":
        """The same law in a larger batch."""
        return _WithoutPath(self.law.expand(torch.Size(batch_shape)))


class _CutPaths(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        # A plate's own draw of its indices is no distribution.
        if isinstance(msg["fn"], TorchDistributionMixin) and not msg["is_observed"]:
            msg["fn"] = _WithoutPath(msg["fn"])
            msg["infer"] = {**msg["infer"], "enumerate": None}  # here all sites are drawn


class ScoreFunction_ELBO(ELBO):
    """The ELBO with score-function gradients, whatever the guide's laws are.

    The bound is that of ``Trace_ELBO``. Its gradient in the guide's parameters φ is not taken
    through the draws z, but by (Williams 1992; Ranganath et al. 2014, arXiv 1401.0118)::

        ∇ELBO = E_q[f ∇log q(z|x)],   f = log p(x, z) − log q(z|x)

    each datum's draw weighed by its own f. It asks for no reparameterization, and varies far
    more: use it for what cannot be reparameterized, and to see what reparameterization is worth.

    Args:
        num_particles: S, how many draws are averaged.
        vectorize_particles: whether they are taken together.
        max_plate_nesting: of the pair, needed to take them together.

    >>> from latente.inference import fit
    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import PPCA, mlp
    >>> model, guide = PPCA(3, 1), DiagonalNormal(mlp(3, out=2), 1)
    >>> x = torch.zeros(8, 3)
    >>> objective = ScoreFunction_ELBO(num_particles=2)
    >>> run = fit(model, guide, x, objective=objective, batch_size=8, epochs=1, show_progress=False)
    >>> run.history[0]["epoch"]
    1
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        vectorize_particles: bool = False,
        max_plate_nesting: float = float("inf"),
    ):
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )
        self._elbo = Trace_ELBO(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        return self._elbo._get_trace(model, _CutPaths()(guide), args, kwargs)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss −ELBO: that of ``Trace_ELBO``."""
        return self._elbo.loss(model, guide, *args, **kwargs)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss −ELBO, whose gradient is the score-function estimate."""
        return self._elbo.differentiable_loss(model, _CutPaths()(guide), *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss −ELBO; its gradient is added to the parameters' ``grad``."""
        return self._elbo.loss_and_grads(model, _CutPaths()(guide), *args, **kwargs)


def choose_objective(
    objective: ELBO | None,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
) -> ELBO:
    """The objective asked for, if it suits the pair; the one that suits it best, if none was.

    ``TraceEnum_ELBO`` where a site is to be enumerated; ``TraceMeanField_ELBO`` where the guide is
    reparameterized, has its sites in the model's order (else a KL given the sites drawn before is
    not that of the bound) and some KL term has a closed form; else ``Trace_ELBO``. For the guide of
    an autoencoder, whose site says that it is without a KL, ``Beta_ELBO(beta=0)``.

    Raises:
        ValueError: if closed-form KL terms are asked for and there is none, or the objective
            would draw a site that the guide leaves to be summed out.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    guides, models = latent_sites(guide_trace), latent_sites(model_trace)
    shared = [name for name in guides if name in models]
    ordered = shared == [name for name in models if name in guides]
    closed = [name for name in shared if has_closed_form(guides[name]["fn"], models[name]["fn"])]
    if isinstance(objective, type):
        raise ValueError(
            f"objective is the class {objective.__name__}: give {objective.__name__}()"
        )
    if objective is not None:
        if structure.enumerated and not isinstance(objective, TraceEnum_ELBO):
            raise ValueError(
                f"the guide has no site {structure.enumerated[0]!r}, which the model marks to be "
                f"summed out; {type(objective).__name__} does not: use TraceEnum_ELBO, leave the "
                "objective out, or take a guide that has the site"
            )
        if isinstance(objective, TraceMeanField_ELBO) and shared and not closed:
            raise ValueError(
                f"the KL from the guide's {shared[0]!r} to the model's has no closed form, which "
                f"{type(objective).__name__} is there to use: use Trace_ELBO(), or leave the "
                "objective out"
            )
        if isinstance(objective, ScoreFunction_ELBO) and structure.points:
            raise ValueError(
                f"the guide puts {structure.points[0]!r} on one point, which has no density whose "
                "score could be taken: leave the objective out, or use Trace_ELBO()"
            )
        return objective
    if structure.enumerated or any(site["infer"].get("enumerate") for site in guides.values()):
        return TraceEnum_ELBO(max_plate_nesting=structure.nesting)
    if any(site["infer"].get("without_kl") for site in guides.values()):
        return Beta_ELBO(beta=0.0)
    reparameterized = all(site["fn"].has_rsample for site in guides.values())
    suits = closed and reparameterized and ordered
    return TraceMeanField_ELBO() if suits else Trace_ELBO()
