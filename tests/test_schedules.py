"""Weights that move: their schedules, how ``fit`` moves them, and what objectives refuse."""

import math
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI

from latente.guides import FullRankNormal, PointPosterior
from latente.inference import (
    Beta_ELBO,
    Constant,
    Cyclical,
    ImportanceWeighted_ELBO,
    Info_ELBO,
    Objective,
    Schedule,
    TotalCorrelation_ELBO,
    Warmup,
    Weight,
    fit,
    gaussian_kernel,
    inverse_multiquadratic,
)
from latente.models import NormalMixture

from .oracles import GlobalMean, linear_data
from .test_checkpoints import interrupted
from .test_fit import same, weights
from .test_importance import TwoLayers
from .test_regularized import BITS, OBJECTIVES, SEED, at_seed, bernoulli_pair, parameters_of

quiet = partial(fit, compile="plain", show_progress=False, batch_size=50)


class Recorded(Beta_ELBO):
    """Keeps the β of each step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = []

    def differentiable_loss(self, *args):
        self.steps.append(self.beta.tensor.item())
        return super().differentiable_loss(*args)


class Dip(Schedule):
    """Above zero at its ends, and below it in the middle."""

    settled = 4.0

    def __call__(self, epoch):
        return (epoch - 2) ** 2 - 1


@pytest.mark.parametrize(
    ("schedule", "epochs", "values", "settled"),
    [
        (Constant(0.7), [0, 3.5], [0.7, 0.7], 0),
        (Warmup(4), [0, 1, 3.5, 4, 9], [0, 0.25, 0.875, 1, 1], 4),
        (Warmup(4, 2.0, 0.5), [0, 2, 4, 9], [2, 1.25, 0.5, 0.5], 4),
        (Cyclical(8), [0, 1, 4, 7.9, 8, 10, 16], [0, 0.25, 1, 1, 0, 0.5, 0], 4),
        (Cyclical(8, 0.25, 0.1, 0.5), [0, 1, 2, 7, 9], [0.1, 0.3, 0.5, 0.5, 0.3], 2),
        (Cyclical(5, 1.0), [0, 2.5, 4, 5], [0, 0.5, 0.8, 0], 5),
    ],
)
def test_a_schedule_takes_the_values_of_its_formula(schedule, epochs, values, settled):
    assert [schedule(float(epoch)) for epoch in epochs] == pytest.approx(values)
    assert schedule.settled == settled


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceWeighted_ELBO(0), "k and m must be at least 1, got k=0, m=1"),
        (lambda: ImportanceWeighted_ELBO(2, 0), "k and m must be at least 1, got k=2, m=0"),
        (lambda: ImportanceWeighted_ELBO(2, elbo_weight=1.1), "elbo_weight must be between 0"),
        (lambda: ImportanceWeighted_ELBO(2, elbo_weight=math.nan), "elbo_weight must be between"),
        (lambda: ImportanceWeighted_ELBO(2, gradient="steep"), "'steep' is not a valid Gradient"),
        (lambda: Beta_ELBO(-0.1), "beta must be a number of at least 0, got -0.1"),
        (lambda: Beta_ELBO(math.nan), "beta must be a number of at least 0, got nan"),
        (lambda: Beta_ELBO(math.inf), "beta must be a number of at least 0, got inf"),
        (lambda: Beta_ELBO(Warmup(4, 1.0, -1.0)), "beta must be a number of at least 0, got -1"),
        (lambda: Beta_ELBO(Warmup(4, -1.0)), "beta must be a number of at least 0, got -1"),
        (lambda: Beta_ELBO(Cyclical(4, start=-0.5)), "beta must be a number of at least 0"),
        (lambda: Beta_ELBO(Dip()), "beta must be a number of at least 0, got -1"),
        (lambda: Beta_ELBO(free_bits=-0.1), "free_bits must be a number of at least 0"),
        (lambda: Beta_ELBO(free_bits=math.nan), "free_bits must be a number of at least 0"),
        (lambda: Beta_ELBO(num_particles=0), "num_particles must be at least 1, got 0"),
        (lambda: Info_ELBO(-0.1), r"alpha must be in \[0, 1\]"),
        (lambda: Info_ELBO(1.1), r"alpha must be in \[0, 1\]"),
        (lambda: Info_ELBO(0.2, 0.7), "strength at least 1 − alpha, got alpha=0.2, strength=0.7"),
        (lambda: TotalCorrelation_ELBO(-1.0), "beta must be a number of at least 0, got -1"),
        (lambda: TotalCorrelation_ELBO(alpha=-1.0), "alpha must be a number of at least 0"),
        (lambda: TotalCorrelation_ELBO(gamma=math.nan), "gamma must be a number of at least 0"),
        (lambda: Warmup(0), "a warm-up takes a positive number of epochs, got 0"),
        (lambda: Warmup(math.nan), "a warm-up takes a positive number of epochs"),
        (lambda: Cyclical(0), "a cycle takes a positive period"),
        (lambda: Cyclical(4, 0.0), r"a rise in \(0, 1\], got period=4, rise=0.0"),
        (lambda: Cyclical(4, 1.5), r"a rise in \(0, 1\], got period=4, rise=1.5"),
        (lambda: inverse_multiquadratic(0.0), "scale of a kernel must be positive, got 0.0"),
        (lambda: gaussian_kernel(-1.0), "scale of a kernel must be positive, got -1.0"),
    ],
)
def test_an_argument_out_of_range_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", [Warmup(2), Cyclical(2), Warmup(3, 2.0, 0.5)], ids=repr)
def test_fit_moves_beta_with_each_step(schedule, make_pair, binary_images):
    """200 data in batches of 50: four steps an epoch."""
    objective = Recorded(schedule)
    run = quiet(*make_pair(), binary_images, objective=objective, epochs=3)
    assert objective.steps == pytest.approx([schedule(step / 4) for step in range(12)])
    last = [schedule(epoch + 3 / 4) for epoch in range(3)]
    assert [row["beta"] for row in run.history] == pytest.approx(last)


def test_a_weight_that_stays_is_no_column(make_pair, binary_images):
    run = quiet(*make_pair(), binary_images, objective=Recorded(0.5), epochs=1)
    assert "beta" not in run.history[0]
    objective = TotalCorrelation_ELBO(Warmup(1, 1.0, 6.0))
    run = quiet(*make_pair(), binary_images, objective=objective, epochs=1)
    assert run.history[0]["beta"] == pytest.approx(1.0 + 5.0 * 3 / 4)
    assert not {"alpha", "gamma"} & run.history[0].keys()


def test_the_loss_is_that_of_the_beta_of_the_step(make_pair, binary_images):
    """With the posterior far off, the KL is in the second epoch's loss and not in the first's."""
    pair = make_pair()
    with torch.no_grad():
        pair[1].encoder[-1].bias[:2] = 10.0
    step = {"epochs": 2, "batch_size": 200, "learning_rate": 1e-6}
    objective = Beta_ELBO(Warmup(1))
    run = quiet(*pair, binary_images, objective=objective, **step)
    assert run.history[1]["loss"] - run.history[0]["loss"] == pytest.approx(100, rel=0.1)


def test_a_schedule_that_outlasts_the_run_is_warned_of(make_pair, binary_images):
    message = (
        r"of beta reaches 1 at epoch 10, .* epoch 2, with 0\.2: its full value is never reached"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        quiet(*make_pair(), binary_images, objective=Beta_ELBO(Warmup(10)), epochs=2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet(*make_pair(), binary_images, objective=Beta_ELBO(Warmup(2)), epochs=2)


def test_a_resumed_run_goes_on_with_the_schedule_bit_for_bit(
    make_pair, binary_images, tmp_path, monkeypatch
):
    whole, pair, resumed = make_pair(), make_pair(), make_pair(seed=9)
    options = {"epochs": 5, "learning_rate": 1e-4}
    objectives = [Recorded(Warmup(4, 0.1, 2.0)) for _ in range(3)]
    expected = quiet(
        *whole, binary_images, objective=objectives[0], out=tmp_path / "whole", **options
    )
    interrupted(
        monkeypatch, pair, binary_images, tmp_path / "run", at=11, objective=objectives[1],
        batch_size=50, **{**options, "schedule": None},
    )  # fmt: skip
    run = quiet(
        *resumed, binary_images, objective=objectives[2], out=tmp_path / "run", resume=True,
        **options,
    )  # fmt: skip
    assert objectives[2].steps == objectives[0].steps[8:]
    assert same(weights(*resumed), weights(*whole))
    for name in ("loss", "beta", "elbo", "kl"):
        assert [row[name] for row in run.history] == [row[name] for row in expected.history]


@pytest.mark.parametrize(
    "other", [Beta_ELBO(2.0), Beta_ELBO(Warmup(1)), Beta_ELBO(1.0, free_bits=0.1), None]
)
def test_a_run_cannot_be_resumed_with_another_weight(other, make_pair, binary_images, tmp_path):
    options = {"out": tmp_path / "run", "epochs": 1}
    quiet(*make_pair(), binary_images, objective=Beta_ELBO(1.0), **options)
    with pytest.raises(ValueError, match=r"was run with objective=Beta_ELBO\(beta=1\.0, .*not "):
        quiet(*make_pair(), binary_images, objective=other, resume=True, **options)


def test_in_plain_svi_a_schedule_is_moved_by_hand():
    pair, moved = bernoulli_pair(), Beta_ELBO(Warmup(10))
    svi = SVI(*pair, pyro.optim.Adam({"lr": 0.0}), moved)  # pyright: ignore
    for epoch in (0, 5, 20):
        moved.move_to(epoch)
        expected = at_seed(Beta_ELBO(min(epoch / 10, 1.0)).loss, pair, BITS)
        torch.manual_seed(SEED)
        assert svi.step(BITS) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_in_plain_svi_a_batch_stands_for_itself(objective):
    pair = bernoulli_pair()
    expected = at_seed(objective.loss, pair, BITS)
    before = [p.detach().clone() for p in parameters_of(*pair)]
    svi = SVI(*pair, pyro.optim.Adam({"lr": 0.01}), objective)  # pyright: ignore
    torch.manual_seed(SEED)
    assert svi.evaluate_loss(BITS) == expected
    torch.manual_seed(SEED)
    assert svi.step(BITS) == expected
    assert all(not torch.equal(a, b) for a, b in zip(before, parameters_of(*pair), strict=True))


def test_plain_parameters_are_met_in_plain_svi():
    pair, x = GlobalMean(), torch.randn(9).double()
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), Beta_ELBO(2.0))  # pyright: ignore
    for _ in range(3):
        svi.step(x)
    assert {name: value.item() for name, value in pyro.get_param_store().items()} == {
        "loc": pytest.approx(0.3, abs=0.05),
        "scale": pytest.approx(0.5, abs=0.05),
        "slope": pytest.approx(0.2, abs=0.05),
    }
    assert all(pyro.param(name).item() != start for name, start in (("loc", 0.3), ("slope", 0.2)))


def test_a_site_with_a_scale_of_its_own_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    for objective in OBJECTIVES.values():
        with pytest.raises(ValueError, match=r"poutine\.scale of their own.* Beta_ELBO"):
            objective.loss(model, bernoulli_pair()[1], BITS)


def test_arguments_by_name_are_refused():
    vae, guide = bernoulli_pair()
    for objective in OBJECTIVES.values():
        with pytest.raises(ValueError, match="give x as a positional argument"):
            objective.differentiable_loss(vae, guide, x=BITS)


@pytest.mark.parametrize(
    "objective",
    [
        Beta_ELBO(1.0),
        Beta_ELBO(Warmup(3)),
        Info_ELBO(0.5),
        ImportanceWeighted_ELBO(2),
        TotalCorrelation_ELBO(),
    ],
    ids=repr,
)
def test_a_point_has_no_kl(objective):
    vae, guide = bernoulli_pair(family=PointPosterior)
    with pytest.raises(ValueError, match=r"the guide puts 'z' on one point.*(Beta_ELBO\(b|b)eta=0"):
        objective.loss(vae, guide, BITS)


def test_a_guide_without_a_path_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Poisson(x.new_ones(())))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Poisson(x.exp()))

    for objective in OBJECTIVES.values():
        with pytest.raises(ValueError, match=r"'z' cannot be drawn with a gradient.*ScoreFunction"):
            objective.loss(model, guide, torch.zeros(4))


@pytest.mark.parametrize(
    ("objective", "options", "size", "message"),
    [
        (Info_ELBO(), {"prior": NormalMixture(2, 3)}, 7, "prior of 'z' cannot be drawn with"),
        (
            TotalCorrelation_ELBO(),
            {"prior": NormalMixture(2, 3)},
            7,
            "model's distribution of 'z' is no",
        ),
        (
            TotalCorrelation_ELBO(),
            {"family": FullRankNormal},
            7,
            "guide's distribution of 'z' is not a prod",
        ),
        (Info_ELBO(), {}, 1, "needs two draws or more: a larger batch"),
        (TotalCorrelation_ELBO(), {}, 1, "needs batches of two data or more"),
    ],
)
def test_what_an_objective_makes_no_sense_for_is_refused(objective, options, size, message):
    with pytest.raises(ValueError, match=message):
        objective.loss(*bernoulli_pair(**options), BITS[:size])


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda a, b: -inverse_multiquadratic()(a, b), "not positive definite"),
        (lambda a, b: 1 - gaussian_kernel()(a, b), "not positive definite"),
        (lambda a, b: gaussian_kernel()(a, b) * a[:, :1].exp(), "symmetric"),
        (lambda a, b: gaussian_kernel()(a, b)[0], "symmetric"),
    ],
)
def test_a_kernel_that_is_none_is_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        Info_ELBO(kernel=kernel)


def test_sites_that_hang_together_and_stand_outside_are_refused():
    two, shared, x = TwoLayers(), GlobalMean(), linear_data(4, 2, 6)
    with pytest.raises(ValueError, match="needs one latent site, and the pair has 2"):
        Info_ELBO().loss(two.model, two.guide, x)
    with pytest.raises(ValueError, match=r"site 'w' stands outside .* use Trace_ELBO\(\)"):
        ImportanceWeighted_ELBO().loss(shared.model, shared.guide, x[:, 0])


class Bent(Schedule):
    """A schedule of one's own, without a name of its own."""

    def __init__(self, top):
        self.top = top

    def __call__(self, epoch):
        return self.top

    @property
    def settled(self):
        return 0.0


class Halved(Objective):
    """An objective of one's own."""

    def __init__(self, weight):
        super().__init__(2)
        self.beta = Weight("beta", weight)

    def bound(self, reading):
        return reading.log_likelihood.mean(0) - self.beta.tensor * reading.kl.mean(0)


@pytest.mark.parametrize("make", [lambda b: Halved(b), lambda b: Beta_ELBO(Bent(b))])
def test_a_run_with_parts_of_ones_own_is_resumed(make, make_pair, binary_images, tmp_path):
    options = {"out": tmp_path, "show_progress": False}
    fit(*make_pair(), binary_images, objective=make(0.5), epochs=1, **options)
    run = fit(*make_pair(), binary_images, objective=make(0.5), epochs=2, resume=True, **options)
    assert run.epoch == 2
    with pytest.raises(ValueError, match="was run with objective="):
        fit(*make_pair(), binary_images, objective=make(0.7), epochs=3, resume=True, **options)


@pytest.mark.parametrize("wrong", [lambda r: r.log_weight, lambda r: 1.0])
def test_a_bound_of_another_shape_is_refused(wrong, make_pair, binary_images):
    class Wrong(Objective):
        def bound(self, reading):
            return wrong(reading)

    with pytest.raises(ValueError, match="one number for each datum"):
        fit(*make_pair(), binary_images, objective=Wrong(3), epochs=1, show_progress=False)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: ImportanceWeighted_ELBO(2.5), "are whole numbers"),
        (lambda: ImportanceWeighted_ELBO(2, gradient="dreg"), "there are Gradient.PLAIN"),
        (lambda: Beta_ELBO(lambda epoch: epoch), "a number or a Schedule"),
        (lambda: Beta_ELBO("4"), "a number or a Schedule"),
        (lambda: Info_ELBO(kernel="rbf"), "a kernel is a function"),
    ],
)
def test_what_is_no_number_schedule_or_function_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_the_class_of_an_objective_is_no_objective(make_pair, binary_images):
    with pytest.raises(ValueError, match=r"give Beta_ELBO\(\)"):
        fit(*make_pair(), binary_images, objective=Beta_ELBO, epochs=1, show_progress=False)
