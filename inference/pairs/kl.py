"""The KL divergence between posterior and prior of a site: in closed form, or from draws."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from .cached_flows import log_prob_of
from .chains import Chain, StepKL
from .sites import base_distribution, rows_dim

Sites = Mapping[str, Any]
"""Sites of a trace by name, in the order in which the program draws them."""


def sites_in_closed_form(posteriors: Sites, priors: Sites) -> frozenset[str]:
    """Find the sites whose KL in closed form is a term of the ELBO: the mean of log q − log p.

    A closed form KL(q(z|parents) ‖ p(z|parents)) holds given the sites drawn before z. That of a
    distribution of steps is the sum over them, each given the draws of the steps before. Where the
    guide draws its sites in another order than the model, a parent of z in the model may follow
    from z in the guide, and the closed form is then no term of the bound: no site has one.

    Args:
        posteriors: all latent sites of the guide, those outside the data plate too.
        priors: all latent sites of the model.
    """
    if not same_order(posteriors, priors):
        return frozenset()
    return frozenset(
        name
        for name, posterior in posteriors.items()
        if name in priors
        and (
            has_closed_form(posterior["fn"], priors[name]["fn"])
            or has_conditional_form(posterior, priors[name])
        )
        and is_weighed_alike(posterior, priors[name])
    )


def same_order(posteriors: Sites, priors: Sites) -> bool:
    """Whether guide and model draw the sites that both have in the same order."""
    shared = [name for name in posteriors if name in priors]
    return shared == [name for name in priors if name in posteriors]


def has_closed_form(posterior: Any, prior: Any) -> bool:
    """Whether KL(posterior ‖ prior) of two distributions is known.

    It is not for a ``Delta``, although Pyro registers −log p(v): that ignores the log-density of
    the ``Delta``, such as the Jacobian in Pyro's autoguides.
    """
    return not is_delta(posterior) and is_registered(posterior, prior)


def has_conditional_form(posterior: Any, prior: Any) -> bool:
    """Whether two sites are drawn in steps, such as Markov chains, whose KLs have a closed form.

    Pyro's ``TraceMeanField_ELBO`` does not know of it.
    """
    q = posterior["fn"]
    return isinstance(q, StepKL) and q.has_conditional_kl(posterior["value"], prior["fn"])


def is_registered(posterior: Any, prior: Any) -> bool:
    """Whether PyTorch or Pyro has a formula for KL(posterior ‖ prior)."""
    try:
        kl_divergence(posterior, prior)
    except (NotImplementedError, IndexError):  # Bernoulli's does not broadcast
        return False
    return True


def is_misread(posterior: Any, prior: Any) -> bool:
    """Whether Pyro's formula for the KL of a site is not the mean of its log q − log p.

    ``TraceMeanField_ELBO`` always uses a registered formula. It is wrong for a ``Delta`` with a
    log-density, and where mask or scale differ between guide and model: Pyro uses the guide's.

    Args:
        posterior: the guide's site.
        prior: the model's.
    """
    if not is_registered(posterior["fn"], prior["fn"]):
        return False
    return carries_density(posterior["fn"]) or not is_weighed_alike(posterior, prior)


def is_delta(distribution: Any) -> bool:
    """Whether a distribution puts all its mass on one point."""
    return isinstance(base_distribution(distribution), Delta)


def carries_density(distribution: Any) -> bool:
    """Whether a distribution is a ``Delta`` with a log-density.

    A program that transforms the draws of an auxiliary site gives their density in this way: the
    log-density is the Jacobian of the transform.
    """
    base = base_distribution(distribution)
    return isinstance(base, Delta) and bool(torch.as_tensor(base.log_density != 0).any())


def is_weighed_alike(posterior: Any, prior: Any) -> bool:
    """Whether the guide's site and the model's have the same scale and the same mask."""
    scales = torch.as_tensor(posterior["scale"]) == torch.as_tensor(prior["scale"])
    return bool(scales.all()) and _equal(counted(posterior), counted(prior))


def counted(site: Any) -> Tensor:
    """Which elements of a site count: by ``poutine.mask`` and by the distribution's own masks.

    Of a Markov chain, the steps of its padding do not.

    Returns:
        True or False for each element of a value, (*batch_shape, *event_shape): masks of elements
        that ``to_event`` has joined to one event are kept apart.
    """
    distribution: Any = site["fn"]
    shape = (*distribution.batch_shape, *distribution.event_shape)
    counts = torch.ones(shape, dtype=torch.bool)
    mask = site["mask"]
    while True:
        if mask is not None:
            own = torch.as_tensor(mask).bool().to(counts.device)
            own = own.expand(torch.broadcast_shapes(own.shape, distribution.batch_shape))
            counts = counts & own[(..., *[None] * len(distribution.event_shape))]
        if isinstance(distribution, Chain):
            present = distribution.present
            return counts if present is None else counts & present[..., None].to(counts.device)
        if not hasattr(distribution, "base_dist"):
            return counts
        mask = getattr(distribution, "_mask", None)
        distribution = distribution.base_dist


def _equal(first: Tensor, second: Tensor) -> bool:
    try:
        return bool((first == second).all())
    except RuntimeError:  # shapes that do not broadcast
        return False


def is_product(distribution: Any) -> bool:
    """Whether a distribution is a product over the elements of its event."""
    return (
        isinstance(distribution, Independent)
        and len(distribution.event_shape) == distribution.reinterpreted_batch_ndims
    )


def site_kl(
    posterior: Any, prior: Any, shape: tuple[int, int], *, closed: bool, plated: bool
) -> Tensor:
    """KL(q(z|x) ‖ p(z)) of one site in the data plate, in nats, by dimension: (S, N, J).

    In closed form, J is the number of dimensions if both distributions are products over them, else
    1; of T steps it is T times as many. Without a closed form it is log q − log p at the
    draws, with J = 1. Each element of a plate within the data plate adds dimensions. Masked
    elements count 0.

    Args:
        posterior: the guide's site, at S draws for each of N data.
        prior: the model's site.
        shape: (S, N).
        closed: whether to take the closed form: see :func:`sites_in_closed_form`.
        plated: whether samples lie along a separate plate: see :class:`Draws`.
    """
    q, p = posterior["fn"], prior["fn"]
    if not closed:
        log_q, log_p = (
            scale_and_mask(log_prob_of({**site, "value": posterior["value"]}), mask=site["mask"])
            for site in (posterior, prior)
        )
        kl = (log_q - log_p)[..., None]
    elif isinstance(q, StepKL):
        kl = _masked(q.conditional_kl(posterior["value"], p).flatten(-2), posterior)
    elif is_product(q) and is_product(p):
        kl = _masked(kl_divergence(q.base_dist, p.base_dist).flatten(-q.event_dim), posterior)
    else:
        kl = _masked(kl_divergence(q, p)[..., None], posterior)
    # A site in plates within a datum has that many dimensions more.
    return kl.movedim(rows_dim(posterior) - 1, 1 if plated else 0).reshape(*shape, -1)


def _masked(kl: Tensor, site: Any) -> Tensor:
    """KLs (*batch, J) of a site, with 0 for masked elements."""
    return scale_and_mask(kl.movedim(-1, 0), mask=site["mask"]).movedim(0, -1)
