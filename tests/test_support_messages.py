"""Data outside a support are named as the cause, also where the networks fail on them first."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.inference import evaluate, fit, log_evidence

COUNTS = torch.tensor([[0.0, 2.0], [1.0, 5.0], [3.0, 1.0], [2.0, 2.0]])
NEGATIVE = COUNTS.clone()
NEGATIVE[2, 1] = -2.0
CLASSES = torch.tensor([0, 2, 3, 1])


class Pair(nn.Module):
    """z ~ N(0, I), x ~ p(x|z), with an encoder of features of x."""

    def __init__(self, likelihood, features, width=2, dtype=torch.float32):
        super().__init__()
        self.likelihood, self.features = likelihood, features
        self.decoder = nn.Linear(1, width, dtype=dtype)
        self.encoder = nn.Linear(width, 1, dtype=dtype)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.encoder.bias.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(self.features(x)), 1.0).to_event(1))


def poisson(logits):
    return dist.Poisson(logits.exp()).to_event(1)


def gamma(logits):
    return dist.Gamma(logits.exp(), 1.0).to_event(1)


def indicators(y):
    return nn.functional.one_hot(y.long(), 3).float()


def same(x):
    return x


OUTSIDE = {
    "negative count, logarithm": (
        poisson,
        torch.log1p,
        2,
        NEGATIVE,
        "Poisson at site 'x', such as -2",
    ),
    "negative count": (
        poisson,
        same,
        2,
        NEGATIVE,
        "support of Poisson at site 'x', such as -2, in row [02]",
    ),
    "zero, logarithm": (
        gamma,
        torch.log,
        2,
        COUNTS,
        "Gamma at site 'x', where its density is zero or",
    ),
    "zero": (gamma, same, 2, COUNTS, "the edge of the support of Gamma at site 'x', .* in row 0"),
    "class": (
        lambda logits: dist.Categorical(logits=logits),
        indicators,
        3,
        CLASSES,
        "outside the support of Categorical at site 'x', such as 3, in row [02]",
    ),
    "bits": (
        lambda logits: dist.Bernoulli(logits=logits).to_event(1),
        torch.log,
        2,
        NEGATIVE,
        "outside the support of Bernoulli at site 'x'",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_data_outside_a_support_are_named_as_the_cause(case):
    likelihood, features, width, data, message = OUTSIDE[case]
    pair = Pair(likelihood, features, width)
    runs = (
        lambda: fit(pair.model, pair.guide, data, epochs=1, show_progress=False),
        lambda: log_evidence(pair.model, pair.guide, data, num_samples=5),
        lambda: evaluate(pair.model, pair.guide, data[2:], num_samples=5),
    )
    for run in runs[: 2 if "zero" in case else 3]:
        with pytest.raises(ValueError, match=message) as caught:
            run()
        assert "\n" not in str(caught.value)


def test_networks_that_fail_on_good_data_are_still_named():
    pair = Pair(lambda mean: dist.Normal(mean, 1.0).to_event(1), torch.log1p)
    with pytest.raises(ValueError, match="Normal got NaN"):
        fit(pair.model, pair.guide, NEGATIVE, epochs=1, show_progress=False)


def test_densities_that_are_finite_at_an_edge_are_let_through():
    """An exponential distribution has density 1 at zero; so has this gamma distribution."""
    for likelihood in (
        lambda logits: dist.Exponential(logits.exp()).to_event(1),
        lambda logits: dist.Gamma(torch.ones_like(logits), logits.exp()).to_event(1),
    ):
        pair = Pair(likelihood, same)
        assert log_evidence(pair.model, pair.guide, COUNTS, num_samples=5).log_px.isfinite().all()


def test_bytes_under_a_normal_distribution_are_noted():
    images = np.array([[0, 255], [7, 1], [9, 9]], dtype=np.uint8)
    pair = Pair(lambda mean: dist.Normal(mean, 1.0).to_event(1), same)
    with pytest.warns(UserWarning, match="the data are bytes, 0 to 255, and 'x' is Normal: they a"):
        fit(pair.model, pair.guide, images, epochs=1, show_progress=False)
    counts = Pair(poisson, lambda x: x / 255)
    fit(counts.model, counts.guide, images, epochs=1, show_progress=False)
