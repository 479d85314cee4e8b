"""Batting averages, partially pooled (``examples/baseball.py``): hits of 18 players at 45 bats."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

from .example import Example

HITS = torch.tensor([18.0, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])
"""Efron and Morris 1975."""


def model(at_bats, hits):
    num_players = at_bats.shape[0]
    m = pyro.sample("m", dist.Uniform(0.0, 1.0))
    kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
    with pyro.plate("num_players", num_players):
        phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        return pyro.sample("obs", dist.Binomial(at_bats, phi), obs=hits)


def evidence() -> Tensor:
    """Exact log p(hits) of all players, by quadrature over m and log kappa."""
    m = torch.linspace(0, 1, 202, dtype=torch.float64)[1:-1]
    log_kappa = torch.linspace(0, 16, 300, dtype=torch.float64)
    mean, spread = m[:, None], log_kappa.exp()
    beta_binomial = dist.BetaBinomial(
        (mean * spread)[..., None], ((1 - mean) * spread)[..., None], 45, validate_args=False
    )
    prior = dist.Pareto(1.0, 1.5).log_prob(spread.clamp_min(1 + 1e-12)) + log_kappa
    log_p = beta_binomial.log_prob(HITS.double()).sum(-1) + prior
    return log_p.flatten().logsumexp(0) + (m[1] - m[0]).log() + (log_kappa[1] - log_kappa[0]).log()


def build(full_rank: bool = False) -> Example:
    torch.manual_seed(0)
    guide = (AutoMultivariateNormal if full_rank else AutoNormal)(model)
    return Example(model, guide, (torch.full((18,), 45.0), HITS), Trace_ELBO(),
                   exact=evidence, learning_rate=0.05)  # fmt: skip
