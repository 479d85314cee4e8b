"""Draws from a guide at all values of its discrete sites, in place of one drawn value each."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .log_terms import Draws, draw
from .programs import Program
from .sites import in_data_plate, latent_sites, rows_dim
from .structure import Structure


def sites_of_all_values(
    in_guide: Mapping[str, Any], in_model: Mapping[str, Any]
) -> tuple[tuple[str, int], ...]:
    """The discrete sites of a guide whose values are all taken; and how many values each has.

    Such a site is marked ``infer={"enumerate": "parallel"}``, has a finite list of values, one of
    them for each datum, and is drawn before all sites of the data plate that have draws: as in
    q(y|x) q(z|x, y). Any other site has draws, too where it is marked.

    Args:
        in_guide: the latent sites of the guide, in the order in which it draws them.
        in_model: those of the model.
    """
    found = []
    for name, site in in_guide.items():
        if not in_data_plate(site):
            continue
        plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        if (
            site["infer"].get("enumerate") != "parallel"
            or site["infer"].get("num_samples")
            or not getattr(site["fn"], "has_enumerate_support", False)
            or name not in in_model
            or len(plates) > 1
        ):
            break
        found.append((name, len(site["fn"].enumerate_support(expand=False))))
    return tuple(found)


class _Setting(Messenger):
    """Give each site to be enumerated all of its values, along the samples."""

    def __init__(self, sites: tuple[tuple[str, int], ...], draws: int, nesting: int, plated: bool):
        super().__init__()
        self.draws, self.nesting, self.plated = draws, nesting, plated
        total = math.prod(size for _, size in sites)
        self.strides: dict[str, tuple[int, int]] = {}
        for name, size in sites:
            total //= size
            self.strides[name] = total, size

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.strides:
            return
        stride, size = self.strides[msg["name"]]
        fn, dim = msg["fn"], rows_dim(msg)
        values = fn.enumerate_support(expand=False).reshape(size, *fn.event_shape)
        number = torch.arange(self.draws, device=values.device) // stride % size
        rows = fn.batch_shape[dim]
        batch = [1] * (self.nesting if self.plated else -dim)
        batch[dim] = rows
        if self.plated:
            chosen = values[number].reshape(self.draws, *[1] * len(batch), *fn.event_shape)
            msg["value"] = chosen.expand(self.draws, *batch, *fn.event_shape)
        else:
            chosen = values[number.repeat_interleave(rows // self.draws)]
            msg["value"] = chosen.reshape(*batch, *fn.event_shape)


def draw_all_values(
    guide: Program, args: tuple[Any, ...], num_samples: int, structure: Structure
) -> tuple[Draws, Tensor | None]:
    """Draw S times from q(z|x, y) at each of the C values of the sites y that are enumerated.

    ::

        E_q[f(y, z)] = Σ_y q(y|x) E_q(z|x,y)[f(y, z)]

    The S · C draws lie along the dimension of the samples, the C values of one sample next to one
    another. Where a mask leaves y out, as where its value is known, all values count alike: 1 / C.

    Returns:
        the draws, and the logarithm of the share of each value, log q(y|x), (C, N); ``None`` for
        the latter where no site is enumerated.
    """
    sites = structure.all_values
    if not sites:
        return draw(guide, args, num_samples, structure), None
    count = structure.num_values
    total = num_samples * count
    setting = _Setting(sites, total, structure.nesting, structure.plated(total))
    draws = draw(setting(guide), args, total, structure)
    found = latent_sites(draws.trace)
    shares = [_log_share(found[name], size, draws)[:count] for name, size in sites]
    return draws, sum(shares[1:], shares[0])


def _log_share(site: Any, size: int, draws: Draws) -> Tensor:
    """The log mass of a site's values, (S · C, N): −log C where it is masked."""
    log_mass = site["fn"].log_prob(site["value"])
    if site["mask"] is not None:
        log_mass = log_mass.where(torch.as_tensor(site["mask"]), -math.log(size))
    return log_mass.reshape(draws.num_samples, draws.num_data)


def is_known(draws: Draws, structure: Structure) -> Tensor:
    """Whether a row's value of all sites that are enumerated is known, as a mask leaves it out.

    Returns:
        (N,) of bool.
    """
    found, known = latent_sites(draws.trace), torch.ones(draws.num_data, dtype=torch.bool)
    for name, _ in structure.all_values:
        site = found[name]
        mask = torch.as_tensor(True if site["mask"] is None else site["mask"])
        shape = site["fn"].batch_shape
        rows = mask.expand(shape).reshape(draws.num_samples, draws.num_data)[0]
        known = known.to(rows.device) & ~rows
    return known


def average_values(term: Tensor, log_shares: Tensor) -> Tensor:
    """Σ_y q(y|x) of a term (S · C, N, …) of each value, for each sample: (S, N, …).

    A value of no mass counts nothing, whatever its term is.
    """
    shares = log_shares.exp()
    shares = shares.reshape(*shares.shape, *[1] * (term.dim() - 2))
    by_value = term.unflatten(0, (-1, len(log_shares)))
    return (shares * torch.where(shares > 0, by_value, 0.0)).sum(1)


def sum_values(log_weight: Tensor, log_shares: Tensor) -> Tensor:
    """log Σ_y q(y|x) w(y) of weights (S · C, N), for each sample: (S, N).

    With w = p(x, y, z) / (q(y|x) q(z|x, y)) the mean over the samples is p(x), whatever q(y|x) is.
    """
    by_value = log_weight.unflatten(0, (-1, len(log_shares)))
    return torch.where(log_shares > -torch.inf, by_value + log_shares, -torch.inf).logsumexp(1)
