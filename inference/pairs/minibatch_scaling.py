"""The N/M scaling: M data of a minibatch stand for all N."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .log_terms import Draws
from .sites import DATA_PLATE, in_data_plate, latent_sites, observed_sites, sample_sites


class ScaleData(Messenger):
    """Scale each site of the data plate by N/M, so that M of N data stand for all.

    Sites outside the plate (a global latent variable) keep their weight, which makes
    minibatch losses unbiased for the whole data's. A plate that the user already
    subsamples carries its own scale and is left alone.
    """

    def __init__(self, num_data: int):
        super().__init__()
        self.num_data = num_data

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == DATA_PLATE and frame.full_size in (None, frame.size):
                msg["scale"] = msg["scale"] * (self.num_data / frame.size)


def subsamples(model_trace: Trace) -> bool:
    """Whether the data plate itself says how many data there are beside the batch."""
    return any(
        frame.name == DATA_PLATE and frame.full_size not in (None, frame.size)
        for site in sample_sites(model_trace).values()
        for frame in site["cond_indep_stack"]
    )


def data_scale(model_trace: Trace, draws: Draws, subsampled: bool) -> float:
    """How many data each of a batch stands for: the scale that all its sites have in common."""
    sites = [*latent_sites(draws.trace).values(), *sample_sites(model_trace).values()]
    scales = [site["scale"] for site in sites if in_data_plate(site)]
    first = scales[0]
    if isinstance(first, Tensor) or any(scale is not first and scale != first for scale in scales):
        raise ValueError(
            "some sites of the pair have a poutine.scale of their own, which this objective "
            "cannot tell from a term's weight: use its own weights, such as Beta_ELBO(beta=…)"
        )
    if not draws.plated and draws.num_samples > 1:
        # Repeated data pass for as many more, each with less weight: that is undone.
        if subsampled:
            return float(first) * draws.num_samples
        folded = draws.num_data * draws.num_samples
        first = first * _outer_scale(draws.num_data) / _outer_scale(folded)
    return float(first)


def _outer_scale(size: int) -> float:
    """The scale that a data plate of this size gets from whatever the objective runs inside."""

    def probe() -> None:
        with pyro.plate(DATA_PLATE, size, dim=-1):
            pyro.sample("latente_probe", dist.Normal(0.0, 1.0), obs=torch.zeros(size))

    (site,) = observed_sites(poutine.trace(probe).get_trace()).values()
    return float(site["scale"])
