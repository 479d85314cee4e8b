"""Measure the ELBO and its terms after each epoch, with one draw, the same each time."""

import torch

from ..common.seeding import set_seed
from ..data.rows import Rows
from ..objectives.pyro_objectives import evaluate_loss
from ..pairs.kept_rows import rows_kept
from ..pairs.kl_by_site import kl_by_site
from ..pairs.log_terms import draw, read_terms, trace_model
from ..pairs.minibatch_scaling import ScaleData
from ..pairs.programs import evaluating
from .preparation import Preparation


def measure(fit: Preparation, prefix: str, rows: tuple[Rows, ...]) -> dict[str, float]:
    """Measure the ELBO, E_q[log p(x|z)] and the KL on some rows, in nats per datum.

    If the objective sums out variables that the guide does not have, only its bound is measured. If
    the guide is a point, which has no density and so no ELBO, only the reconstruction is. Where
    there are several latent sites, the KL of each is measured too: ``kl_z1``, ``kl_z2``, …

    Args:
        prefix: put before the names ``elbo``, ``reconstruction``, ``kl`` and ``kl_<site>``.
        rows: rows of x and contexts.
    """
    if fit.structure.enumerated:
        return {f"{prefix}elbo": _own_bound(fit, rows)}
    terms = _terms(fit, rows)
    if fit.structure.points:
        return {f"{prefix}reconstruction": terms["reconstruction"]}
    return {prefix + name: value for name, value in terms.items()}


def _terms(fit: Preparation, rows: tuple[Rows, ...]) -> dict[str, float]:
    reconstruction = kl = 0.0
    by_site = dict.fromkeys(fit.structure.told_apart, 0.0)
    with evaluating(fit.model, fit.guide), torch.random.fork_rng():
        set_seed(fit.settings.seed)
        for block in fit.data.measured_blocks(rows, rows_kept(fit.guide)):
            draws = draw(fit.guide, block, 1, fit.structure)
            trace = trace_model(fit.model, draws)
            terms = read_terms(trace, draws)
            share = len(block[0]) / len(rows[0])
            beyond = terms.log_posterior_global - terms.log_prior_global
            reconstruction += share * terms.log_likelihood.mean().item()
            kl += share * (terms.log_posterior - terms.log_prior).mean().item()
            kl += share * beyond.item() / fit.data.num_data
            for name, value in kl_by_site(trace, draws, by_site).items():
                by_site[name] += share * value.mean().item()
    terms_of_bound = {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
    return terms_of_bound | {f"kl_{name}": value for name, value in by_site.items()}


def _own_bound(fit: Preparation, rows: tuple[Rows, ...]) -> float:
    bound, scale = 0.0, ScaleData(fit.data.num_data)
    with evaluating(fit.model, fit.guide), torch.random.fork_rng(), scale:
        set_seed(fit.settings.seed)
        for block in fit.data.measured_blocks(rows, rows_kept(fit.guide)):
            loss = float(evaluate_loss(fit.objective, fit.model, fit.guide, block))
            bound -= loss / fit.data.num_data * len(block[0]) / len(rows[0])
    return bound
