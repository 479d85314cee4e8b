"""A study of minutes: a decoder strong enough to collapse the posterior, and what prevents it."""

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, Cyclical, Warmup, evaluate, fit, hold_then_fall, load_data
from latente.models import VAE, AutoregressiveLikelihood, Bernoulli, StandardNormal, mlp

EPOCHS = 300
OBJECTIVES = {
    "ELBO": (lambda: None, 0),
    "warm-up": (lambda: Beta_ELBO(Warmup(2 / 3 * EPOCHS)), 1),
    "cyclical": (lambda: Beta_ELBO(Cyclical(EPOCHS / 3)), 1),
    "free bits": (lambda: Beta_ELBO(free_bits=0.25), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "least"), OBJECTIVES.values(), ids=OBJECTIVES)
def test_active_units_with_an_autoregressive_decoder(make, least):
    torch.set_num_threads(1)  # the last digits, and so a unit near the threshold, depend on it
    data = load_data("digits", binarize="dynamic", seed=0)
    torch.manual_seed(0)
    likelihood = AutoregressiveLikelihood(Bernoulli((8, 8)), hidden=(500,))
    model = VAE(StandardNormal(5), mlp(5, 100, out=64), likelihood)
    guide = DiagonalNormal(mlp(64, 100, out=10), 5)
    fit(
        model,
        guide,
        data,
        objective=make(),
        epochs=EPOCHS,
        batch_size=64,
        learning_rate=1e-2,
        schedule=hold_then_fall(EPOCHS),
        show_progress=False,
    )
    active = evaluate(model, guide, data.test, num_samples=100)["active_units"]
    assert active >= least if least else active == 0
