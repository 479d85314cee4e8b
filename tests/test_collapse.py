"""A decoder strong enough to collapse the posterior, what prevents it, and what is said of it."""

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, Cyclical, Warmup, evaluate, fit, hold_then_fall, load_data
from latente.inference.evaluation.metrics import describe_posterior as verdict
from latente.models import VAE, AutoregressiveLikelihood, Bernoulli, StandardNormal, mlp

EPOCHS = 300
OBJECTIVES = {
    "ELBO": (lambda: None, 0),
    "warm-up": (lambda: Beta_ELBO(Warmup(2 / 3 * EPOCHS)), 1),
    "cyclical": (lambda: Beta_ELBO(Cyclical(EPOCHS / 3)), 1),
    "free bits": (lambda: Beta_ELBO(free_bits=0.25), 1),
}


def test_the_verdict_names_a_collapse_and_only_that(make_pair, binary_images):
    model, guide = make_pair()
    with torch.no_grad():
        guide.encoder[-1].weight.zero_()
        guide.encoder[-1].bias.zero_()
    collapsed = evaluate(model, guide, binary_images, num_samples=30)
    assert collapsed["kl"] == pytest.approx(0, abs=1e-6)
    assert "collapsed onto the prior" in verdict(collapsed)
    assert "collapsed" not in verdict(evaluate(model, guide, binary_images[:1], num_samples=30))
    assert "collapsed" not in verdict(evaluate(*make_pair(), binary_images, num_samples=30))


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
