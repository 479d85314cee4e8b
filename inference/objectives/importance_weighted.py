"""Importance-weighted bounds, with three estimators of their gradient."""

import math
from dataclasses import replace
from enum import Enum
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..pairs.log_terms import sum_sites, trace_model
from ..pairs.sites import latent_sites
from ..pairs.structure import Structure
from .objective import Objective
from .reading import Reading


class Gradient(Enum):
    """An estimator of an importance-weighted bound's gradient in the guide's parameters φ.

    With z = z(ε, φ), and wᵢ the weights of a group divided by their sum::

        PLAIN    Σᵢ wᵢ d/dφ log p(x, zᵢ)/q(zᵢ|x), by autograd through draws and density
        STICKING_THE_LANDING    Σᵢ wᵢ ∂/∂zᵢ log p(x, zᵢ)/q(zᵢ|x) · dzᵢ/dφ
        DOUBLY_REPARAMETERIZED    Σᵢ wᵢ² ∂/∂zᵢ log p(x, zᵢ)/q(zᵢ|x) · dzᵢ/dφ

    Sticking the landing (Roeder, Wu and Duvenaud 2017, arXiv 1703.09194) leaves out the derivative
    of log q in its parameters. The mean of that term is zero for one draw but not for more, so the
    estimator is biased for k > 1. The doubly reparameterized one (Tucker et al. 2019, arXiv
    1810.04152) reparameterizes that term too, and is unbiased. Both are zero where q is the exact
    posterior.
    """

    PLAIN = "plain"
    STICKING_THE_LANDING = "sticking the landing"
    DOUBLY_REPARAMETERIZED = "doubly reparameterized"


class ImportanceWeighted_ELBO(Objective):
    """The importance-weighted bound of k draws, averaged over m groups of them.

    ::

        L_{k,m} = Σₙ 1/m Σⱼ log 1/k Σᵢ w_{nji},   w = p(x, z) / q(z|x),   z ~ q(z|x)

    (k, 1) is IWAE (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519), (1, m) the ELBO. The
    bound rises with k, up to log p(x). The variants are from Rainforth et al. 2018, arXiv
    1802.04537: MIWAE is (k, m); CIWAE adds the ELBO of the same draws, ``elbo_weight`` · ELBO +
    (1 − ``elbo_weight``) · L; PIWAE (``partial``) fits the model to the bound of all k · m draws as
    one group, and the guide to that of the m groups.

    Discrete sites y that the guide marks ``infer={"enumerate": "parallel"}`` are not drawn. The sum
    over their values stands outside the logarithm::

        L = Σₙ Σ_y q(y|xₙ) [L_{k,m}(xₙ, y) − log q(y|xₙ)]

    with L(x, y) the bound of log p(x, y) of k draws z ~ q(z|x, y). It is a bound of log p(x), and
    at k = 1 the ELBO. Inside the logarithm, log 1/k Σᵢ Σ_y p(x, y, zᵢ) / q(zᵢ|x, y), the bound
    would be tighter, but without q(y|x), which it would not fit; :func:`log_evidence` takes that.

    Args:
        k: number of draws in a group.
        m: number of groups.
        gradient: the estimator of the guide's gradient, one of :class:`Gradient`.
        elbo_weight: weight of the ELBO, between 0 and 1.
        partial: whether the model's gradient is that of one group of all draws; the reported bound
            is then that one.

    Raises:
        ValueError: if k or m is less than 1 or the weight out of range; when first run, if a site
            is outside the data plate (there is one bound for each datum), or the guide is a point
            or cannot be reparameterized.

    >>> ImportanceWeighted_ELBO(k=8, m=8, gradient=Gradient.DOUBLY_REPARAMETERIZED)
    ImportanceWeighted_ELBO(k=8, m=8, gradient=DOUBLY_REPARAMETERIZED)
    """

    enumerates = True

    def __init__(
        self,
        k: int = 5,
        m: int = 1,
        *,
        gradient: Gradient = Gradient.PLAIN,
        elbo_weight: float = 0.0,
        partial: bool = False,
    ):
        if not isinstance(k, int) or not isinstance(m, int):
            raise ValueError(f"k and m are whole numbers, got k={k}, m={m}")
        if min(k, m) < 1:
            raise ValueError(f"k and m must be at least 1, got k={k}, m={m}")
        if gradient not in (*Gradient, *[known.value for known in Gradient]):
            names = ", ".join(f"Gradient.{known.name}" for known in Gradient)
            raise ValueError(f"{gradient!r} is not a valid Gradient: there are {names}")
        if not 0 <= elbo_weight <= 1:
            raise ValueError(f"elbo_weight must be between 0 and 1, got {elbo_weight}")
        super().__init__(k * m)
        self.k, self.m, self.gradient = k, m, Gradient(gradient)
        self.elbo_weight, self.partial = elbo_weight, partial

    def check(self, sites: dict[str, tuple[Any, Any]], structure: Structure) -> None:
        """Refuse sites outside the data plate."""
        outside = (*structure.global_sites, *structure.observed_outside)
        if outside:
            raise ValueError(
                f"the site {outside[0]!r} stands outside {structure.data_plate}, and an "
                "importance-weighted bound has one term for each datum: use Trace_ELBO()"
            )

    def bound(self, reading: Reading) -> Tensor:
        """The bound of each datum, (N,)."""
        return self._over_values(reading, reading.log_weight, 1 if self.partial else self.m)

    def _over_values(self, reading: Reading, log_weight: Tensor, groups: int) -> Tensor:
        """Σ_y q(y|x) of the bounds of all values of y: (N,)."""
        return reading.sum_values([self._bound(w, groups) for w in reading.by_value(log_weight)])

    def _bound(self, log_weight: Tensor, groups: int) -> Tensor:
        grouped = log_weight.unflatten(0, (groups, -1))
        bound = grouped.logsumexp(1).mean(0) - math.log(grouped.shape[1])
        if not self.elbo_weight:
            return bound
        return self.elbo_weight * log_weight.mean(0) + (1 - self.elbo_weight) * bound

    def surrogate(self, reading: Reading) -> Tensor | None:
        """A tensor with the chosen gradient; its value has no meaning.

        The draws are detached from the guide's parameters. The gradient in the draws, with the
        guide's weights, is then passed on along their paths. So model and guide can have different
        weights.
        """
        if self.gradient is Gradient.PLAIN and not self.partial:
            return None
        cut = {
            name: site["value"].detach().requires_grad_()
            for name, site in latent_sites(reading.draws.trace).items()
            if site["value"].requires_grad
        }
        if not cut:
            return None
        at_cut = _read_at(reading, cut)
        log_joint = at_cut.log_likelihood + at_cut.log_prior
        log_weight = (log_joint - at_cut.log_posterior).detach()
        shares = [self._shares(part) for part in reading.by_value(log_weight)]
        of_model, of_guide = _times_mass(reading, shares)
        arriving = torch.autograd.grad(
            (of_guide * (log_joint - at_cut.log_posterior)).sum(),
            list(cut.values()),
            retain_graph=True,
        )
        surrogate = (of_model * log_joint).sum()
        if self.gradient is Gradient.PLAIN:
            log_q = at_cut.log_posterior
            if reading.log_shares is not None:  # a value of no mass counts nothing
                log_q = log_q.clamp(min=torch.finfo(log_q.dtype).min)
            surrogate = surrogate - (of_guide * log_q).sum()
        if reading.log_shares is not None:  # the slope in q(y|x), of which the shares are parts
            surrogate = surrogate + self._over_values(reading, log_weight, self.m).sum()
        sites = latent_sites(reading.draws.trace)
        for name, slope in zip(cut, arriving, strict=True):
            surrogate = surrogate + (slope * sites[name]["value"]).sum()
        return surrogate / reading.draws.num_data

    def _shares(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of each draw, (S, N): in the model's gradient, and in the guide's."""
        mixed = self.elbo_weight / len(log_weight)

        def share(groups: int) -> Tensor:
            return log_weight.unflatten(0, (groups, -1)).softmax(1) / groups

        own = share(self.m)
        of_model = share(1) if self.partial else own
        if self.gradient is Gradient.DOUBLY_REPARAMETERIZED:
            own = own.square() * self.m
        return tuple(
            mixed + (1 - self.elbo_weight) * part.flatten(0, 1) for part in (of_model, own)
        )  # pyright: ignore[reportReturnType]

    def __repr__(self) -> str:
        more = f", elbo_weight={self.elbo_weight}" if self.elbo_weight else ""
        more += ", partial=True" if self.partial else ""
        return (
            f"ImportanceWeighted_ELBO(k={self.k}, m={self.m}, gradient={self.gradient.name}{more})"
        )


def _times_mass(reading: Reading, shares: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The shares of model and guide at each value of y, (S, N) each, times q(y|x): (S · C, N)."""
    if reading.log_shares is None:
        return shares[0]
    mass = reading.log_shares.detach().exp()
    of_model, of_guide = (torch.stack(part, 1) * mass for part in zip(*shares, strict=True))
    return of_model.flatten(0, 1), of_guide.flatten(0, 1)


def _read_at(reading: Reading, cut: dict[str, Tensor]) -> Reading:
    """Read the pair at draws that are detached from the guide's parameters."""
    draws = reading.draws
    trace = Trace()
    for name, site in latent_sites(draws.trace).items():
        trace.add_node(name, **{**site, "value": cut.get(name, site["value"])})
    if len(cut) > 1:
        # The distribution of one site may depend on the draws of another: run the guide again at
        # these draws.
        trace = trace_model(reading.guide, replace(draws, trace=trace))
    log_posterior, _ = sum_sites(
        latent_sites(trace).values(), reading.shape, draws.plated, draws.log_posterior
    )
    draws = replace(draws, trace=trace, log_posterior=log_posterior)
    return replace(reading, draws=draws, model_trace=trace_model(reading.model, draws))
