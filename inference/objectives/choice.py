"""Choose the objective that suits a pair, and refuse those that do not."""

from typing import Any

from pyro import poutine
from pyro.infer import ELBO, EnergyDistance, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from ..pairs.kl import (
    Sites,
    has_conditional_form,
    is_delta,
    is_misread,
    is_registered,
    sites_in_closed_form,
)
from ..pairs.programs import Program
from ..pairs.sites import latent_sites, observed_sites
from ..pairs.structure import Structure
from .beta import Beta_ELBO
from .pyro_objectives import LossFunction
from .score_function import ScoreFunction_ELBO


def choose_objective(
    objective: ELBO | LossFunction | None,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    structure: Structure,
) -> ELBO | LossFunction:
    """Choose the objective of a pair: the given one if it suits the pair, else the default.

    The default is ``TraceEnum_ELBO`` where a site is to be enumerated; ``TraceMeanField_ELBO``
    where the guide is reparameterized, some KL term has a closed form, and Pyro's closed forms are
    all terms of the bound (:func:`sites_in_closed_form`, :func:`is_misread`); else ``Trace_ELBO``.
    Where a site is a Markov chain, the KL of whose steps has a closed form, it is ``Beta_ELBO()``,
    which is then the ELBO with that KL. For the guide of an autoencoder, whose site is marked to
    have no KL, it is ``Beta_ELBO(beta=0)``.

    Raises:
        ValueError: if the objective takes KLs in closed form and there is no closed form, or
            Pyro's is wrong for the pair; or if it draws a site that the guide leaves to be summed
            out.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    guides, models = latent_sites(guide_trace), latent_sites(model_trace)
    if objective is None:
        objective = _default_objective(guides, models, structure)
    else:
        _check_suits(objective, guides, models, structure)
        if isinstance(objective, EnergyDistance):
            _check_reparameterized({**guides, **observed_sites(model_trace)})
    return objective


def _check_reparameterized(sites: Sites) -> None:
    """Refuse sites through whose draws a gradient is needed, and lost without a word."""
    for name, site in sites.items():
        if not site["fn"].has_rsample:
            raise ValueError(
                f"{name!r} cannot be drawn with a gradient to its parameters, which EnergyDistance "
                "needs of the guide's sites and of the observed ones: use an objective that takes "
                "densities, such as Trace_ELBO()"
            )


def _default_objective(guides: Sites, models: Sites, structure: Structure) -> ELBO:
    """The default objective for the latent sites of a guide and a model."""
    if structure.enumerated or any(site["infer"].get("enumerate") for site in guides.values()):
        return TraceEnum_ELBO(max_plate_nesting=structure.nesting)
    if any(site["infer"].get("without_kl") for site in guides.values()):
        return Beta_ELBO(beta=0.0)
    reparameterized = all(site["fn"].has_rsample for site in guides.values())
    closed = sites_in_closed_form(guides, models)
    if any(has_conditional_form(guides[name], models[name]) for name in closed) and reparameterized:
        return Beta_ELBO()
    suits = closed and reparameterized and not _misread(guides, models)
    return TraceMeanField_ELBO() if suits else Trace_ELBO()


def _misread(guides: Sites, models: Sites) -> list[str]:
    """The sites for which the KL of ``TraceMeanField_ELBO`` is wrong."""
    shared = [name for name in guides if name in models]
    return [name for name in shared if is_misread(guides[name], models[name])]


def _check_suits(
    objective: ELBO | LossFunction, guides: Sites, models: Sites, structure: Structure
) -> None:
    """Refuse a given objective that does not suit the pair."""
    given = type(objective).__name__
    if structure.enumerated and not isinstance(objective, TraceEnum_ELBO):
        raise ValueError(
            f"the guide has no site {structure.enumerated[0]!r}, which the model marks to be "
            f"summed out, and {given} cannot do that: use TraceEnum_ELBO, leave the objective "
            "out, or use a guide that has the site"
        )
    if isinstance(objective, TraceMeanField_ELBO):
        shared = [name for name in guides if name in models]
        if shared and not any(is_registered(guides[n]["fn"], models[n]["fn"]) for n in shared):
            raise ValueError(
                f"the KL from the guide's {shared[0]!r} to the model's has no closed form, which "
                f"{given} needs: use Trace_ELBO(), or leave the objective out"
            )
        for name in _misread(guides, models):
            ignored = (
                "the Jacobian that the guide's Delta carries in its log-density"
                if is_delta(guides[name]["fn"])
                else "that guide and model give the site different masks or scales"
            )
            raise ValueError(
                f"the KL that {given} takes of {name!r} ignores {ignored}: use Trace_ELBO(), or "
                "leave the objective out"
            )
    if isinstance(objective, ScoreFunction_ELBO) and structure.points:
        raise ValueError(
            f"the guide puts {structure.points[0]!r} on one point, which has no density, and so no "
            "score function: leave the objective out, or use Trace_ELBO()"
        )
    if isinstance(objective, ScoreFunction_ELBO) and structure.point_masses:
        raise ValueError(
            f"the guide puts a mass of 1 on one value of {structure.point_masses[0]!r}, so its "
            "score function is 0 and its encoder would never learn: leave the objective out, or "
            "use Trace_ELBO()"
        )
