"""The N/M scaling: M data of a minibatch stand for all N."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .log_terms import Draws
from .sites import (
    DATA_PLATE,
    in_data_plate,
    is_deterministic,
    latent_sites,
    observed_sites,
    sample_sites,
)

SCALE_TOLERANCE = 0.05
"""A weight of the data whose logarithm differs from log N/M by less is taken for N/M."""


class ScaleData(Messenger):
    """Scale each site of the data plate by N/M, so that M of N data stand for all.

    Sites outside the plate (global latent variables) keep their weight, so the loss of a minibatch
    is unbiased for the loss of all data. A plate that the program subsamples itself has its own
    scale and is not scaled again.

    A program that scales its data by N/M itself, with ``poutine.scale``, would be scaled twice, and
    its posterior would be too narrow by √(N/M). So an observed site of the data plate whose own
    scale is within 5 % of N/M (and nearer to it than to 1) is refused, for M the size of the batch
    and for the batch size that was asked for. Any other scale is taken as a weight that the program
    intends, such as that of a tempered likelihood, and so is any scale of a latent site, such as
    that of KL annealing: these are multiplied by N/M. The scale is checked only while Pyro's
    validation is on, as it is when :func:`fit` first runs a pair.

    Args:
        num_data: N.
        batch_size: what was asked for; batches may be smaller, so that all are of one size.

    Raises:
        ValueError: within a program, at an observed site that is already scaled by N/M.
    """

    def __init__(self, num_data: int, batch_size: int | None = None):
        super().__init__()
        self.num_data, self.batch_size = num_data, batch_size

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == DATA_PLATE and frame.full_size in (None, frame.size):
                if is_validation_enabled() and msg["is_observed"]:
                    for size in {frame.size, self.batch_size or frame.size}:
                        _refuse_second_scale(msg, self.num_data, size)
                msg["scale"] = msg["scale"] * (self.num_data / frame.size)


def _refuse_second_scale(site: Any, num_data: int, size: int) -> None:
    """Refuse a site that its program already scales by about N/M."""
    if is_deterministic(site):
        return
    expected = math.log(num_data / size)
    distance = (hand_scale(site).log() - expected).abs().max().item()
    if distance < min(SCALE_TOLERANCE, expected / 2):
        raise ValueError(
            f"the program scales {site['name']!r} by {hand_scale(site).mean().item():.4g} "
            f"(poutine.scale), which is about N/M = {num_data}/{size}: fit scales the plate "
            "of data by N/M itself, so the data would count twice. Remove the scale from "
            "the program; if it is meant as a weight of the likelihood, choose another batch_size"
        )


def hand_scale(site: Any) -> Tensor:
    """The scale of a site, apart from that of plates that its program subsamples."""
    return torch.as_tensor(site["scale"], dtype=torch.float64) / plate_scale(site)


def plate_scale(site: Any) -> float:
    """The scale of a site from the plates that its program subsamples."""
    sizes = [(f.full_size, f.size) for f in site["cond_indep_stack"] if f.full_size is not None]
    return math.prod(full_size / size for full_size, size in sizes)


def subsamples(model_trace: Trace) -> bool:
    """Whether the program subsamples the data plate itself."""
    return any(
        frame.name == DATA_PLATE and frame.full_size not in (None, frame.size)
        for site in sample_sites(model_trace).values()
        for frame in site["cond_indep_stack"]
    )


def data_scale(model_trace: Trace, draws: Draws, subsampled: bool) -> float:
    """How many data each datum of a batch stands for: the common scale of all sites."""
    sites = [*latent_sites(draws.trace).values(), *sample_sites(model_trace).values()]
    scales = [site["scale"] for site in sites if in_data_plate(site)]
    first = scales[0]
    if isinstance(first, Tensor) or any(scale is not first and scale != first for scale in scales):
        raise ValueError(
            "some sites of the pair have a poutine.scale of their own, which this objective "
            "cannot tell from N/M: use the objective's weights, such as Beta_ELBO(beta=…)"
        )
    if not draws.plated and draws.num_samples > 1:
        # Repeated data count as more data, each with less weight: undo that.
        if subsampled:
            return float(first) * draws.num_samples
        folded = draws.num_data * draws.num_samples
        first = first * _outer_scale(draws.num_data) / _outer_scale(folded)
    return float(first)


def _outer_scale(size: int) -> float:
    """The scale of a data plate of this size, from the handlers around the objective."""

    def probe() -> None:
        with pyro.plate(DATA_PLATE, size, dim=-1):
            pyro.sample("latente_probe", dist.Normal(0.0, 1.0), obs=torch.zeros(size))

    (site,) = observed_sites(poutine.trace(probe).get_trace()).values()
    return float(site["scale"])
