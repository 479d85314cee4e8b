"""The ELBO with score-function gradients."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import ELBO, Trace_ELBO
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor

from ..pairs.programs import Program


class _WithoutPath(TorchDistribution):
    """A distribution whose draws have no gradient to its parameters.

    Pyro's ``has_rsample_(False)`` has no effect on distributions made by ``to_event``, and is lost
    by ``expand``.
    """

    has_rsample = False

    def __init__(self, distribution: TorchDistribution):
        self.distribution = distribution
        super().__init__(distribution.batch_shape, distribution.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the distribution."""
        return self.distribution.support

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draw, without a gradient."""
        with torch.no_grad():
            return self.distribution.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """That of the distribution."""
        return self.distribution.log_prob(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_WithoutPath":
        """The same distribution in a larger batch."""
        return _WithoutPath(self.distribution.expand(torch.Size(batch_shape)))


class _CutPaths(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        # A plate draws its indices in a sample statement too.
        if isinstance(msg["fn"], TorchDistributionMixin) and not msg["is_observed"]:
            msg["fn"] = _WithoutPath(msg["fn"])
            msg["infer"] = {**msg["infer"], "enumerate": None}  # here all sites are drawn


class ScoreFunction_ELBO(ELBO):
    """The ELBO with score-function gradients, for any distributions of the guide.

    The bound is that of ``Trace_ELBO``. Its gradient in the guide's parameters φ is not taken
    through the draws z, but by (Williams 1992; Ranganath et al. 2014, arXiv 1401.0118)::

        ∇ELBO = E_q[f ∇log q(z|x)],   f = log p(x, z) − log q(z|x)

    where f is that of the datum itself. The guide need not be reparameterized, but the gradient
    has a much larger variance. Use it for distributions that cannot be reparameterized, and to
    measure what reparameterization gains.

    Args:
        num_particles: S, the number of draws that are averaged.
        vectorize_particles: whether to draw them all at once.
        max_plate_nesting: of the pair; needed to draw them all at once.

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
