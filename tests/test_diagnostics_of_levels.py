"""What diagnostics say of guides of several levels, held to a linear Gaussian hierarchy."""

import math
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from latente.guides import BottomUp, DiagonalNormal, Residual, TopDown
from latente.inference import (
    Gradient,
    ImportanceWeighted_ELBO,
    annealed_evidence,
    calibrate,
    encode,
    fit,
    inference_gap,
    log_evidence,
)
from latente.inference.diagnostics.annealing import Annealing, judge_annealing
from latente.inference.diagnostics.finding import Level
from latente.inference.diagnostics.nuts import judge_nuts, nuts_posterior
from latente.models import Conditional, FlattenEvent, Stages, mlp

from .oracles import LinearHierarchy, linear
from .test_hierarchies import EVERY, bottom_up, data, features, ladder, normal


@pytest.fixture(scope="module")
def hierarchy():
    return LinearHierarchy()


def pair(hierarchy, make):
    levels = hierarchy.levels()
    return hierarchy.model(levels), make(hierarchy, levels)


def spoil(guide, *names, shift=0.0, widen=1.0):
    """Move means by a number, and widen scales by a factor, of some levels of scalars."""
    with torch.no_grad():
        for name in names:
            bias = [*guide.posteriors[name].encoder.parameters()][-1]
            bias += torch.tensor([shift, math.log(widen)]).double()
    return guide


# --- The gap.


@pytest.mark.slow
@EVERY
def test_from_spoiled_encoders_the_family_finds_the_exact_posterior(hierarchy, make):
    """All levels, for each datum: ELBO = log p(x) within 1e-3 nats."""
    model, guide = pair(hierarchy, make)
    spoil(guide, *hierarchy.names, shift=0.3, widen=1.5)
    x = data(hierarchy, 6)
    gap = inference_gap(model, guide, x, num_steps=120, learning_rate=0.1, num_samples=1000)
    exact = hierarchy.marginal.log_prob(x)
    assert torch.allclose(gap.elbo_local, exact, rtol=0, atol=1e-3)
    assert torch.allclose(gap.log_px, exact, rtol=0, atol=1e-3)
    assert gap.reason == ""
    assert gap.approximation.abs().max() < 2e-3
    assert (gap.amortization > 0.5).all()
    # As a guide for any of these data, in any order.
    again = log_evidence(model, gap.local, x[[4, 1]], num_samples=20)
    assert torch.allclose(again.log_px, exact[[4, 1]], rtol=0, atol=0.02)
    if make in (normal, bottom_up):
        # A level that is off by c standard deviations, s times as wide, loses the same whatever is
        # drawn above. Within 5 standard errors and 1e-3 (false alarms 1 in 10⁵).
        scales = [
            hierarchy.conditional(*level)[2].sqrt().item()
            for level in (
                (("z1", "x"), ("z2", "z1"), ("z3", "z2"))
                if make is bottom_up
                else (("z3", "x"), ("z2", "x", "z3"), ("z1", "x", "z2"))
            )
        ]
        lost = sum(0.5 * (1.5**2 + (0.3 / sd) ** 2 - 1) - math.log(1.5) for sd in scales)
        assert ((gap.amortization - lost).abs() < 5 * gap.elbo_error + 1e-3).all()


def diagonal(hierarchy, levels, dependence=1.0):
    """The best diagonal normals of vectors: the posterior's means, and variances 1 / P_kk."""
    posteriors, loss = {}, 0.0
    for name, above in (("z3", ()), ("z2", ("z3",)), ("z1", ("z2",))):
        gain, shift, covariance = hierarchy.conditional(name, "x", *above)
        precision = covariance.inverse()
        loss += 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
        gain[:, hierarchy.sizes[-1] :] *= dependence
        weight, bias = features(gain, shift, torch.ones(()))
        bias[len(shift) :] = -0.5 * precision.diagonal().log()
        sizes = (hierarchy.sizes[-1], gain.shape[1] - hierarchy.sizes[-1])
        network = linear(sum(sizes), weight, bias)
        if above:
            network = Conditional(network, *[FlattenEvent((size,)) for size in sizes])
        posteriors[name] = DiagonalNormal(network, len(shift))
    return TopDown(posteriors, levels).double(), loss


def test_what_a_family_of_vectors_loses_at_all_levels_is_its_closed_form():
    """Diagonal normals lose ½ (Σ log P_kk − log det P) at each level, whatever is drawn above.

    Per datum within 5 standard errors and 2e-3 (false alarms below 1e-5).
    """
    hierarchy = LinearHierarchy((2, 2, 3, 5))
    levels = hierarchy.levels()
    guide, loss = diagonal(hierarchy, levels)
    with torch.no_grad():
        for part in guide.posteriors.values():
            [*part.encoder.parameters()][-1][: part.latent_dim] += 0.2
    model, x = hierarchy.model(levels), data(hierarchy, 8)
    gap = inference_gap(
        model, guide, x, num_steps=70, num_draws=32, learning_rate=0.1, num_samples=2000
    )
    exact = hierarchy.marginal.log_prob(x)
    assert loss > 0.2
    assert ((gap.approximation - loss).abs() < 5 * gap.elbo_error + 2e-3).all()
    assert (gap.amortization > 0.1).all()
    assert (gap.elbo < gap.elbo_local).all()
    assert (gap.elbo_local < exact).all()


@pytest.mark.slow
def test_how_an_encoder_uses_the_state_counts_as_its_family(hierarchy):
    """That is not freed: a guide that does not look at the state keeps an approximation gap."""
    levels = hierarchy.levels()
    guide, _ = diagonal(hierarchy, levels, dependence=0.0)
    model, x = hierarchy.model(levels), data(hierarchy, 4)
    gap = inference_gap(model, guide, x, num_steps=100, learning_rate=0.1)
    assert (gap.approximation > 0.05).all()
    assert (gap.amortization > 0.05).all()
    assert torch.allclose(gap.log_px, hierarchy.marginal.log_prob(x), rtol=0, atol=0.01)


def test_which_numbers_are_freed():
    """What an encoder gives; of one that takes the state, its features and a shift of that."""
    levels = LinearHierarchy().levels()
    seeing = Conditional(mlp(7, out=2), FlattenEvent((6,)), FlattenEvent((1,)))
    posteriors = {
        "z3": DiagonalNormal(mlp(5, out=2), 1),
        "z2": Residual(seeing, 1),
        "z1": Residual(mlp(8, out=2), 1),
    }
    stages = {"z1": mlp(4, out=8), "z2": mlp(8, out=6), "z3": mlp(6, out=5)}
    guide = TopDown(posteriors, levels, Stages(stages)).double()
    x = torch.randn(9, 4).double()
    own = guide.local_parameters(x)
    assert [tuple(value.shape) for value in own] == [(9, 2), (9, 6), (9, 2), (9, 2)]
    torch.manual_seed(0)
    first = guide(x)
    torch.manual_seed(0)
    again = guide.run_local(own)
    assert all(torch.equal(z, again[name]) for name, z in first.items())
    torch.manual_seed(0)
    shifted = guide.run_local([*own[:2], own[2] + 1, own[3]])
    assert torch.equal(shifted["z3"], first["z3"])
    assert (shifted["z2"] != first["z2"]).all()
    with pytest.raises(ValueError, match="level 'z2': the encoder gave features of shape"):
        guide.run_local([*own[:2], own[2][:, :1], own[3]])
    # From the bottom up, the first encoder alone sees x.
    parts = {"z1": DiagonalNormal(mlp(4, out=6), 3), "z2": DiagonalNormal(mlp(3, out=2), 1)}
    guide = BottomUp(parts).double()
    own = guide.local_parameters(x)
    assert [tuple(value.shape) for value in own] == [(9, 6), (9, 2)]
    torch.manual_seed(0)
    first = guide(x)
    torch.manual_seed(0)
    shifted = guide.run_local([own[0], own[1] + torch.tensor([1.0, 0.0])])
    assert torch.equal(shifted["z1"], first["z1"])
    assert torch.allclose(shifted["z2"], first["z2"] + 1)


# --- Posterior means.


@pytest.mark.parametrize(("make", "first"), [(ladder, "z3"), (bottom_up, "z1")])
def test_moments_of_the_level_that_is_drawn_first_are_exact(hierarchy, make, first):
    """The others are averages of 1,000 draws: within 5 standard errors (false alarms 1e-5)."""
    model, guide = pair(hierarchy, make)
    x = data(hierarchy, 5)
    codes = encode(model, guide, x, num_samples=50)
    for name in hierarchy.names:
        gain, shift, covariance = hierarchy.conditional(name, "x")
        sd, mean = covariance.sqrt(), x @ gain.T + shift
        noise = 0.0 if name == first else 5 * sd.item() / math.sqrt(1000)
        assert torch.allclose(codes.mean[name].double(), mean, rtol=0, atol=noise + 1e-6)
        assert torch.allclose(codes.sd[name].double(), sd.expand(5, 1), rtol=0, atol=noise + 1e-6)


# --- Calibration, Markov chains and annealing.
# Each guide is spoiled at the level that it draws last: no other one's draws depend on that.


@pytest.mark.parametrize(
    ("make", "last", "widen", "word"),
    [(ladder, "z1", 0.5, "too narrow"), (bottom_up, "z3", 3.0, "too wide")],
)
def test_calibration_names_the_level_whose_scale_is_wrong(hierarchy, make, last, widen, word):
    """The exact guide raises an alarm, and another level is named, with probability 5 % at most."""
    model, guide = pair(hierarchy, make)
    like = torch.zeros(1, 4).double()
    exact = calibrate(model, guide, like, num_simulations=400, num_draws=50)
    assert exact.names[:3] == (("z3", "z2", "z1") if make is ladder else ("z1", "z2", "z3"))
    assert exact.miscalibrated == exact.weighted_miscalibrated == exact.biased == {}
    spoil(guide, last, widen=widen)
    found = calibrate(model, guide, like, num_simulations=400, num_draws=50)
    assert {n: found.miscalibrated.get(n) for n in hierarchy.names} == {
        name: word if name == last else None for name in hierarchy.names
    }


@pytest.mark.slow
@pytest.mark.parametrize(("make", "last"), [(bottom_up, "z3"), (ladder, "z1")])
def test_nuts_names_the_level_whose_mean_is_off(hierarchy, make, last):
    """All levels jointly: the chains' moments within 4 errors (12 numbers: false alarm 1e-3), and
    of the levels whose guide is exact none is named."""
    model, guide = pair(hierarchy, make)
    x = data(hierarchy, 2)
    spoil(guide, last, shift=3.0)
    nuts = nuts_posterior(
        model, guide, x, num_samples=150, warmup_steps=80, num_temperatures=0, seed=1
    )
    assert nuts.converged.all()
    for index, name in enumerate(nuts.names):
        gain, shift, covariance = hierarchy.conditional(name, "x")
        sd, error = covariance.sqrt().item(), 4 / nuts.ess[:, index].sqrt()
        assert ((nuts.mean[:, index] - (x @ gain.T + shift)[:, 0]).abs() < sd * error).all()
        assert ((nuts.sd[:, index] / sd).log().abs() < error).all()
    missed = {name for name, off in zip(nuts.names, nuts.misses().T, strict=True) if off.any()}
    assert missed == {last}
    (finding,) = judge_nuts(nuts)
    assert finding.level > Level.GOOD
    assert f"plus noise ({last}: 2)" in finding.sentence


@pytest.mark.parametrize("make", [ladder, bottom_up])
def test_annealing_shows_that_a_guide_misses_some_of_a_level(hierarchy, make):
    """The top level's posterior is 0.02 times as wide as it should be: log p(x) is far too low."""
    model, guide = pair(hierarchy, make)
    x = data(hierarchy, 4)
    exact = hierarchy.marginal.log_prob(x)
    annealed = annealed_evidence(model, guide, x, num_chains=200, num_temperatures=30)
    assert ((annealed.log_px - exact).abs() < 5 * annealed.standard_error).all()
    evidence = log_evidence(model, guide, x, num_samples=200)
    (right,) = judge_annealing(Annealing(annealed, None, evidence))
    assert right.level == Level.GOOD
    evidence = log_evidence(model, spoil(guide, "z3", shift=3.0, widen=0.02), x, num_samples=200)
    (wrong,) = judge_annealing(Annealing(annealed, None, evidence))
    assert wrong.level == Level.BAD
    assert "the guide misses some of the posterior" in wrong.sentence


# --- Training.


def seeing_state(part):
    return part(Conditional(mlp(5, out=2), FlattenEvent((4,)), FlattenEvent((1,))), 1)


@pytest.mark.parametrize(
    ("part", "steps"),
    [(Residual, 600), pytest.param(DiagonalNormal, 1500, marks=pytest.mark.slow)],
)
def test_fit_brings_a_random_guide_to_the_exact_posterior(hierarchy, part, steps):
    """With the gradient that has no noise at the exact posterior, and a falling rate: each datum's
    ELBO is within 1e-3 nats of log p(x)."""
    torch.manual_seed(0)
    levels = hierarchy.levels()
    model, x = hierarchy.model(levels).requires_grad_(False), data(hierarchy, 64)
    posteriors = {"z3": DiagonalNormal(mlp(4, out=2), 1)}
    posteriors |= {name: seeing_state(part) for name in ("z2", "z1")}
    guide = TopDown(posteriors, levels).double()
    with torch.no_grad():
        for value in guide.posteriors.parameters():
            value *= 0.3
    exact = hierarchy.marginal.log_prob(x)
    assert log_evidence(model, guide, x, num_samples=50).elbo < exact.mean() - 1
    fit(
        model,
        guide,
        x,
        objective=ImportanceWeighted_ELBO(1, gradient=Gradient.STICKING_THE_LANDING),
        epochs=steps,
        batch_size=len(x),
        learning_rate=0.1,
        schedule=partial(CosineAnnealingLR, T_max=steps),
        show_progress=False,
    )
    found = log_evidence(model, guide, x, num_samples=20)
    assert found.elbo == pytest.approx(exact.mean().item(), abs=1e-3)
    assert torch.allclose(found.log_px, exact, rtol=0, atol=1e-3)
