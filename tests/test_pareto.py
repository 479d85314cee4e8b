"""Pareto k̂ and smoothed weights, against ArviZ and against tails that are known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from latente.inference.evidence.pareto_smoothing import (
    pareto_khat,
    pareto_smooth,
    summarize_weights,
)


def test_weights_are_smoothed_where_their_tail_can_be_fitted():
    generator = torch.Generator().manual_seed(0)
    log_weight = 2 * torch.randn(200, 5, dtype=torch.float64, generator=generator)
    log_weight[:, 1], log_weight[:, 2], log_weight[3:, 3] = 0.0, -math.inf, -math.inf
    log_weight[:, 4] *= 1e-6  # what float32 makes of equal weights
    log_weight[0, 0] = log_weight[:, 0].max() + 20
    khat, smooth = pareto_smooth(log_weight)
    assert khat[1] == khat[4] == -math.inf
    assert khat[2] == khat[3] == math.inf
    share = smooth.softmax(0)
    assert share[0, 0] < 0.99 < log_weight[:, 0].softmax(0)[0]  # the peak is cut
    assert torch.equal(share[:, 0].argsort(), log_weight[:, 0].argsort())
    for column in (1, 4):
        assert torch.allclose(share[:, column], torch.full((200,), 1 / 200).double(), rtol=1e-4)
    assert torch.allclose(share[:, 3], log_weight[:, 3].softmax(0))


def test_smoothing_a_flat_tail_leaves_the_weights():
    """Half of the draws share the largest weight, to rounding: their fit has no scale."""
    log_weight = torch.linspace(-3e-6, 0, 200, dtype=torch.float64)[:, None].clone()
    log_weight[:100] -= 2
    _, smooth = pareto_smooth(log_weight)
    assert torch.allclose(smooth.softmax(0), log_weight.softmax(0), rtol=1e-4)


@pytest.mark.parametrize("num_samples", [30, 225, 226, 3000])
def test_khat_and_smoothed_weights_are_those_of_arviz(num_samples):
    from arviz_stats.base import array_stats

    generator = torch.Generator().manual_seed(3)
    log_weight = 1.5 * torch.randn(num_samples, 6, dtype=torch.float64, generator=generator)
    normalized, khat = array_stats.psislw(-log_weight.T.numpy())
    own, smoothed = pareto_smooth(log_weight)
    assert np.allclose(own, khat, atol=1e-8, rtol=0)
    assert np.allclose(smoothed.log_softmax(0).T, normalized, atol=1e-8, rtol=0)
    below = log_weight.argsort(0)[: num_samples // 2]  # far from the tail: left as they are
    assert torch.allclose(smoothed.gather(0, below), log_weight.gather(0, below), atol=1e-9)


@pytest.mark.parametrize("shape", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_khat_recovers_the_shape_of_generalized_pareto_draws(shape):
    """The mean of 100 fits, each to M = 3√S of S = 10,000 draws, against the known shape.

    Two allowances: four standard errors of that mean (false alarms: 1 in 16,000), and 0.05 for the
    weak prior towards ½ that ArviZ puts on k̂, which is worth ten draws of a tail of 300.
    """
    rng = np.random.default_rng(int(10 * shape))
    draws = stats.genpareto.rvs(shape, size=(10_000, 100), random_state=rng)
    khat = pareto_khat(torch.from_numpy(np.log(draws)))
    error = khat.std().item() / 10
    assert abs(khat.mean().item() - shape) < 4 * error + 0.05


def test_smoothing_moves_a_heavy_tail_nearer_to_the_truth():
    """Weights 1/u^k have the mean 1/(1 − k): smoothed, their error is less on the whole."""
    rng = np.random.default_rng(0)
    k = 0.8
    log_weight = torch.from_numpy(-k * np.log(rng.uniform(size=(1000, 400))))
    figures = summarize_weights(log_weight)
    truth = -math.log(1 - k)
    plain = (figures["log_px"] - truth).square().mean()
    assert (figures["log_px_smoothed"] - truth).square().mean() < 0.8 * plain
