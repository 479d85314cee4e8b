"""PSIS-LOO: the leave-one-out predictive density of a pair with global latent variables."""

from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor

from ..common.arguments import check_least
from ..common.seeding import set_seed
from ..data.arguments import open_pair
from ..data.load_data import Data
from ..evidence.pareto_smoothing import KHAT_MIN_SAMPLES
from ..pairs.observed_values import find_observed_values
from ..pairs.parameters import place_all
from ..pairs.programs import Program, evaluating
from ..pairs.sites import base_distribution, global_latent_sites, latent_sites
from .predictive_density import (
    check_finite_density,
    densities_at_global_draws,
    inspect_with_density,
)

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData


def psis_loo(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_samples: int = 1000,
    inner_samples: int = 20,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> "ELPDData":
    """Estimate leave-one-out predictive densities of a pair with global latents w, without refits.

    ::

        elpd = Σₙ log p(xₙ|x₋ₙ),   p(xₙ|x₋ₙ) ≈ Σₛ rₙₛ p̂(xₙ|wₛ) / Σₛ rₙₛ,   wₛ ~ q(w)
        rₙₛ  = p(wₛ) Πₘ p̂(xₘ|wₛ) / (q(wₛ) p̂(xₙ|wₛ)),   Pareto-smoothed

    p̂(x|w) is that of :func:`log_predictive_density`: importance sampling integrates out the local
    latent variables, so the density is the marginal one, which measures how well a *new* datum is
    predicted. p̂ is unbiased and its draws are independent between data, so the estimate converges
    to the exact one as S grows, for every L. But the noise of N logarithms enters the weights, so L
    should grow with N. k̂ shows an influential datum, a q(w) that is too narrow, and an L that is
    too small (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544; for draws from an approximate
    posterior, Magnusson et al. 2019, arXiv 1904.10679).

    xₙ is all that the model observes in row n of its arguments, at one site or at several. The
    value of a conditioned site (``pyro.condition``) is no data: it is never left out, and all
    densities are given it, p(xₙ|x₋ₙ, v). So a value that says nothing of x leaves ``elpd`` as it is
    without that site.

    Args:
        model: Pyro program ``model(x, *context)``.
        guide: Pyro program of the same arguments and latent sites.
        data: the data that the guide was fitted to, x (N, *event_shape) or (x, *context); of what
            :func:`load_data` returns, the training part is used.
        num_samples: S, draws of w, at least 25 (:data:`KHAT_MIN_SAMPLES`); 2,200 or more for the
            full k̂ threshold of 0.7.
        inner_samples: L, draws of z for each draw of w.
        seed: seed of the draws.
        show_progress: whether to show the draws done.

    Returns:
        ArviZ's ``ELPDData``, with ``elpd``, ``se`` and ``p`` of the whole data set in nats, and
        ``elpd_i`` and ``pareto_k`` of each datum, along ``datum``. ArviZ warns if a ``pareto_k``
        is above ``good_k``.

    Raises:
        ValueError: if S < 25, L < 1 or N < 2; if the data cannot be used; if no latent variable is
            global (leaving a datum out then changes nothing); if the guide puts a site on a point;
            if a site outside the data plate is summed out; if the data are not independent given w;
            if the guide's support is smaller than a prior's; or if the density of a conditioned
            site depends on local latent variables.

    >>> import pyro
    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    >>> def guide(x):
    ...     pyro.sample("w", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))
    >>> x = torch.linspace(-1, 2, 10)
    >>> without = (x.sum() - x) / 10  # exact posterior mean without each datum; variance 1/10
    >>> exact = dist.Normal(without, 1.1**0.5).log_prob(x).sum()
    >>> bool(abs(psis_loo(model, guide, x).elpd - exact.item()) < 0.1)
    True
    """
    least = {"num_samples": (num_samples, KHAT_MIN_SAMPLES), "inner_samples": (inner_samples, 1)}
    check_least(least)
    data = data.rows("train") if isinstance(data, Data) else data
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    if len(rows[0]) < 2:
        raise ValueError("there is one datum only: leave-one-out needs two or more")
    args = place_all(model, guide, rows)
    with evaluating(model, guide), torch.random.fork_rng():
        set_seed(seed)
        structure = inspect_with_density(model, guide, args)
        if not structure.global_latents:
            raise ValueError(
                f"nothing is latent outside {structure.data_plate}, so leaving one datum out "
                "changes nothing for it: use log_evidence on held-out data"
            )
        _check_global_density(guide, args)
        held = find_observed_values(model, args).held
        log_px, log_p, log_q, log_held = densities_at_global_draws(
            model, guide, args, structure, num_samples, inner_samples, show_progress, held
        )
    return _loo(log_px - log_held, log_p + log_px.sum(1), log_q)


def _loo(log_px: Tensor, log_p: Tensor, log_q: Tensor) -> "ELPDData":
    """Pass log densities (S, N), log p (S,) and log q (S,) to ArviZ's leave-one-out."""
    # Slow to import.
    from arviz_base import from_dict
    from arviz_stats import loo_approximate_posterior  # pyright: ignore[reportPrivateImportUsage]

    check_finite_density(log_px.sum(0))
    if not (log_p - log_q).isfinite().any() or (log_p - log_q).isnan().any():
        raise ValueError(
            "the densities of the global latent variables are NaN, or zero at all draws"
        )
    densities = {"log_likelihood": {"x": log_px.numpy()[None]}}
    tree = from_dict(densities, dims={"x": ["datum"]})
    return loo_approximate_posterior(tree, log_p.numpy(), log_q.numpy(), pointwise=True)


def _check_global_density(guide: Program, args: tuple[Tensor, ...]) -> None:
    """Refuse a guide that puts a global site on a point: it has no density to weight by."""
    sites = latent_sites(global_latent_sites(poutine.trace(guide).get_trace(*args)))
    # An autoguide of several sites draws one vector, and sets the sites to points given it.
    if any(site["infer"].get("is_auxiliary") for site in sites.values()):
        return
    for name, site in sites.items():
        if isinstance(base_distribution(site["fn"]), Delta):
            raise ValueError(
                f"the guide puts all of {name!r} on one point: leave-one-out needs a posterior "
                "with a density"
            )
