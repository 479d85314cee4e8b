"""Choose the objective that suits a pair, and refuse those that do not."""

from typing import Any

from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from ..pairs.kl import has_closed_form
from ..pairs.programs import Program
from ..pairs.sites import latent_sites
from ..pairs.structure import Structure
from .beta import Beta_ELBO
from .score_function import ScoreFunction_ELBO


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
