"""Normalizing flow as the prior."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from .._zuko import FlowDistribution, in_whole_space, zuko


class FlowPrior(nn.Module):
    """A normalizing flow as the prior: p(z) is the distribution of a zuko flow without a context.

    A fit scores z under the prior at each step. zuko's autoregressive flows do this in one pass,
    so they are used as they are, not inverted. The KL has no closed form.

    Args:
        flow: a flow over the whole space of z, such as ``zuko.flows.MAF(2)`` (Papamakarios et al.
            2017, arXiv 1705.07057; as a prior, Chen et al. 2017, arXiv 1611.02731).

    Raises:
        ValueError: if it is not a zuko flow, takes a context, or draws only in a bounded region.

    >>> prior = FlowPrior(zuko.flows.NSF(2, transforms=2))
    >>> prior().event_shape
    torch.Size([2])
    """

    def __init__(self, flow: Any):
        super().__init__()
        advice = "take one without a context, such as zuko.flows.MAF(latent_dim)"
        if not isinstance(flow, zuko.lazy.Flow):
            raise ValueError(f"a FlowPrior takes a zuko flow, not a {type(flow).__name__}")
        try:
            with torch.no_grad(), torch.random.fork_rng():
                distribution = FlowDistribution(flow(None))
                distribution.log_prob(distribution.sample())
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"the flow of a FlowPrior cannot be run without a context: {advice}"
            ) from error
        if not in_whole_space(distribution):
            raise ValueError(
                f"{type(flow).__name__} draws in a bounded region, but z may lie outside: take a "
                "flow over the whole space"
            )
        self.flow = flow
        self.latent_dim = distribution.event_shape[-1]

    def forward(self) -> dist.TorchDistribution:
        """p(z): batch shape (), event shape (latent_dim,)."""
        return FlowDistribution(self.flow(None))
