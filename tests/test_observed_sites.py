"""Several observed sites: found among the arguments, drawn, checked, reconstructed, exported."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.inference import (
    calibrate,
    decode,
    evaluate,
    plot_reconstructions,
    predictive_check,
    psis_loo,
    reconstruct,
    sample_prior,
    simulate,
    to_datatree,
)
from latente.inference.pairs.observed_values import find_observed_values
from latente.inference.simulation.ancestral import draw_data

STEPS, DECAY, NOISE = 4, 0.8, 0.6


def normal_z(x):
    return pyro.sample("z", dist.Normal(x.new_zeros(len(x)).double(), 1.0))


def chain(x):
    """x_t = 0.8 x_{t−1} + z + noise, each step a site of its own."""
    with pyro.plate("data", len(x)):
        z, before = normal_z(x), torch.zeros(len(x)).double()
        for t in pyro.markov(range(x.shape[1])):
            pyro.sample(f"x_{t}", dist.Normal(DECAY * before + z, NOISE), obs=x[:, t])
            before = x[:, t]


def shifted_chain(x):
    """The same, with all predecessors read before the first step."""
    before = torch.cat([x.new_zeros(len(x), 1), x[:, :-1]], 1)
    with pyro.plate("data", len(x)):
        z = normal_z(x)
        for t in range(x.shape[1]):
            pyro.sample(f"x_{t}", dist.Normal(DECAY * before[:, t] + z, NOISE), obs=x[:, t])


def chain_guide(x, widen=1.0):
    """The exact posterior: x_t − 0.8 x_{t−1} are four noisy readings of z."""
    before = torch.cat([x.new_zeros(len(x), 1), x[:, :-1]], 1)
    precision = 1 + STEPS / NOISE**2
    loc = (x - DECAY * before).sum(1) / NOISE**2 / precision
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, widen * precision**-0.5))


def chain_covariance():
    step = torch.eye(STEPS).double() - DECAY * torch.diag(torch.ones(STEPS - 1), -1).double()
    inverse = torch.linalg.inv(step)
    return inverse @ (torch.ones(STEPS, STEPS) + NOISE**2 * torch.eye(STEPS)).double() @ inverse.T


def assert_covariance(x, wanted):
    """Each covariance within 5 standard errors, (σᵢᵢ σⱼⱼ + σᵢⱼ²) / N: false alarm 6e-6 for ten."""
    variance = wanted.diagonal()
    error = ((variance[:, None] * variance + wanted**2) / len(x)).sqrt()
    assert ((x.T.cov() - wanted).abs() < 5 * error).all()


LIKE = torch.linspace(-300, 300, 28).double().reshape(7, STEPS)


def views(x, y):
    """Two views of one z: x = z + noise, y = −2 z + noise in two coordinates."""
    with pyro.plate("data", len(x)):
        z = normal_z(x)
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        mean = torch.stack([-2 * z, 0 * z], -1)
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


def views_guide(x, y):
    precision = 1 + 5 / 0.25
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - 2 * y[:, 0]) / 0.25 / precision, precision**-0.5))


VIEWS = torch.zeros(3).double(), torch.ones(3, 2).double()
VIEWS_COVARIANCE = torch.tensor([[1.25, -2, 0], [-2, 4.25, 0], [0, 0, 0.25]]).double()


def labelled(x, y):
    """As in M2: a class y, then x given y and z; y is whole numbers."""
    with pyro.plate("data", len(x)):
        z = normal_z(x)
        pyro.sample("y", dist.Categorical(torch.tensor([0.2, 0.3, 0.5]).double()), obs=y)
        pyro.sample("x", dist.Normal(z + 10.0 * y, 1.0), obs=x)


def labelled_guide(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - 10.0 * y) / 2, 0.5**0.5))


def test_places_are_found_exactly():
    """Views by their memory; copies, casts and joins by the digits of their elements' numbers."""
    x, y, size = torch.rand(3, 4), torch.tensor([2, 0, 5]), torch.rand(3)

    def model(x, y, size):
        with pyro.plate("data", len(x)):
            pyro.sample("slice", dist.Normal(0.0, 1.0), obs=x[:, 1])
            pyro.sample("cast", dist.Poisson(1.0), obs=y.float())
            joined = torch.cat([x[:, 2:].flip(1), size[:, None]], 1)
            pyro.sample("join", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=joined)
            pyro.sample("root", dist.Normal(0.0, 1.0), obs=x[:, 0].sqrt())
            pyro.sample("again", dist.Normal(0.0, 1.0), obs=x[:, 1])
            pyro.sample("held", dist.Normal(0.0, 1.0), obs=torch.ones(3))
            pyro.factor("factor", torch.zeros(3))

    before = torch.random.get_rng_state()
    found = find_observed_values(model, (x, y, size))
    assert torch.equal(before, torch.random.get_rng_state())
    elements = {name: [part[2].tolist() for part in p.parts] for name, p in found.places.items()}
    assert elements == {
        "slice": [[1, 5, 9]],
        "cast": [[0, 1, 2]],
        "join": [[3, 2, 7, 6, 11, 10], [0, 1, 2]],
    }
    assert found.held == ("held",)
    assert found.refused == {
        "root": "a transform of x: transform x before it is given to the model",
        "again": "data that 'slice' observes too: let one site observe each value",
    }
    assert found.names == {0: "slice…join", 1: "cast", 2: "join"}
    transposed = find_observed_values(
        lambda x: pyro.sample("x", dist.Normal(torch.zeros(4, 3), 1.0).to_event(2), obs=x.T), (x,)
    )
    wanted = torch.arange(12).reshape(3, 4).T.flatten()
    assert torch.equal(transposed.places["x"].parts[0][2], wanted)


@pytest.mark.parametrize("model", [chain, shifted_chain])
def test_steps_that_depend_on_earlier_data_have_the_exact_covariance(model):
    (x,), values = simulate(model, chain_guide, LIKE, 4000)
    assert_covariance(x, chain_covariance())
    assert values.keys() == {"z"}
    residual = x[:, 1] - DECAY * x[:, 0] - values["z"]
    assert abs(residual.std().item() / NOISE - 1) < 5 / math.sqrt(2 * 4000)


def test_calibration_of_a_time_loop():
    """The exact posterior passes; one that is too narrow does not."""
    assert not calibrate(chain, chain_guide, LIKE, num_simulations=300).miscalibrated
    found = calibrate(chain, lambda x: chain_guide(x, 0.5), LIKE, num_simulations=300)
    assert found.miscalibrated["z"] == "too narrow"


def test_two_views_are_correlated_through_z():
    (x, y), _ = simulate(views, views_guide, VIEWS, 4000)
    assert_covariance(torch.cat([x[:, None], y], 1), VIEWS_COVARIANCE)
    assert not calibrate(views, views_guide, VIEWS, num_simulations=300).miscalibrated


def test_classes_are_drawn_as_whole_numbers_and_x_follows_them():
    like = torch.zeros(4).double(), torch.zeros(4, dtype=torch.long)
    (x, y), values = simulate(labelled, labelled_guide, like, 3000)
    assert y.dtype == torch.long
    share = y.bincount(minlength=3) / 3000
    assert (share - torch.tensor([0.2, 0.3, 0.5])).abs().max() < 5 * 0.5 / math.sqrt(3000)
    assert (x - 10 * y - values["z"]).abs().max() < 6


def lag(x):
    """Correlation of neighbours in time; 0 for what has no time."""
    return torch.corrcoef(torch.stack([x[:, 1:].flatten(), x[:, :-1].flatten()]))[0, 1]


def test_predictive_checks_see_whole_arguments_and_name_sites():
    (x,), _ = simulate(chain, chain_guide, LIKE, 200, seed=5)
    for model in (chain, shifted_chain):
        checks = predictive_check(
            model, chain_guide, x, {"lag": lag}, from_prior=True, num_samples=40
        )
        assert 0.02 < checks["lag"].p_value < 0.98
    mixed = torch.stack([row[torch.randperm(STEPS)] for row in x])
    checks = predictive_check(chain, chain_guide, mixed, {"lag": lag}, num_samples=40)
    assert checks["lag"].p_value == 1
    data, _ = simulate(views, views_guide, VIEWS, 100)
    level = {"mean": lambda x: x.mean(), "sd": lambda x: x.std()}
    checks = predictive_check(views, views_guide, data, level, num_samples=40, from_prior=True)
    assert checks.keys() == {"mean of x", "sd of x", "mean of y", "sd of y"}
    assert all(0.02 < check.p_value < 0.98 for check in checks.values())
    shifted = data[0], data[1] + 3
    checks = predictive_check(views, views_guide, shifted, level, num_samples=40, from_prior=True)
    assert checks["mean of y"].p_value == 0
    assert 0.02 < checks["mean of x"].p_value < 0.98


def test_reconstructions_and_samples_by_site():
    x, y = (part.double() for part in (torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 3], [1, 1]])))
    found = reconstruct(views, views_guide, (x, y))
    assert {name: value.shape for name, value in found.items()} == {"x": (2,), "y": (2, 2)}
    assert torch.allclose(found["y"][:, 0], -2 * found["x"])
    assert (found["y"][:, 1] == 0).all()
    decoded = decode(views, views_guide, {"z": torch.tensor([0.25, -1, 2]).double()}, (x, y))
    assert decoded["x"].tolist() == [0.25, -1, 2]
    assert decoded["y"].tolist() == [[-0.5, 0], [2, 0], [-4, 0]]
    means, draws = sample_prior(views, views_guide, 4000, (x, y))
    assert torch.equal(means["y"][:, 0], -2 * means["x"])
    assert_covariance(torch.cat([draws["x"][:, None], draws["y"]], 1), VIEWS_COVARIANCE)
    assert plot_reconstructions(views, views_guide, (x, y)).axes


def test_reconstructions_and_samples_of_a_time_loop_have_its_shape():
    (x,), _ = simulate(chain, chain_guide, LIKE, 5)
    found = reconstruct(chain, chain_guide, x)
    z = found[:, 0].double()
    assert torch.allclose(found[:, 1:].double() - DECAY * x[:, :-1], z[:, None], atol=1e-5)
    means, draws = sample_prior(chain, chain_guide, 4000, x)
    assert_covariance(draws, chain_covariance())
    assert torch.allclose(means[:, 1:] - DECAY * draws[:, :-1], means[:, :1])


def test_sites_are_exported_one_by_one():
    data, _ = simulate(views, views_guide, VIEWS, 5)

    tree = to_datatree(views, views_guide, data, num_samples=30)
    assert "constant_data" not in tree
    assert set(tree.observed_data) == set(tree.log_likelihood) == {"x", "y"}
    z = torch.as_tensor(tree.posterior["z"].values[0])
    for name, centre in (("x", z), ("y", torch.stack([-2 * z, 0 * z], -1))):
        value = torch.as_tensor(tree.observed_data[name].values)
        log_prob = dist.Normal(centre, 0.5).log_prob(value)
        exact = log_prob if name == "x" else log_prob.sum(-1)
        assert np.allclose(tree.log_likelihood[name][0], exact)
    total = tree.log_likelihood["x"] + tree.log_likelihood["y"]
    weight = total[0] + dist.Normal(0.0, 1.0).log_prob(z).numpy()
    assert np.allclose(tree.sample_stats["lp"][0], weight.sum("datum"))


@pytest.mark.parametrize("model", [chain, shifted_chain])
def test_exported_predictions_of_a_time_loop_follow_their_own_past(model):
    (x,), _ = simulate(model, chain_guide, LIKE, 40)
    tree = to_datatree(model, chain_guide, x, num_samples=50)
    assert set(tree.observed_data) == {f"x_{t}" for t in range(STEPS)}
    drawn = [tree.prior_predictive[f"x_{t}"].values.ravel() for t in range(STEPS)]
    assert_covariance(torch.as_tensor(np.stack(drawn, 1)), chain_covariance())
    predicted = tree.posterior_predictive
    residual = predicted["x_2"] - DECAY * predicted["x_1"] - tree.posterior["z"]
    assert abs(residual.values.std() / NOISE - 1) < 5 / math.sqrt(2 * 2000)


def test_covariates_are_constant_and_observed_arguments_are_not():
    def model(x, size, y, extra):
        with pyro.plate("data", len(x)):
            z = normal_z(x)
            pyro.sample("x", dist.Normal(z + size, 0.5), obs=x)
            pyro.sample("y", dist.Normal(z, 0.5), obs=y[:, 0])

    def guide(x, size, y, extra):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x - size, 0.5))

    x, size, extra = torch.rand(3, 5).double()
    y = torch.rand(5, 2).double()
    tree = to_datatree(model, guide, (x, size, y, extra), num_samples=3)
    # The second column of y is not observed: y is both.
    assert set(tree.constant_data) == {"context_1", "context_2", "context_3"}
    assert np.array_equal(tree.constant_data["context_3"], extra)
    assert np.array_equal(tree.observed_data["y"], y[:, 0])
    (x_new, size_new, y_new, _), _ = simulate(model, guide, (x, size, y, extra), 10)
    assert torch.equal(y_new[:, 1], y[:, 1].repeat(2))
    assert torch.equal(size_new, size.repeat(2))
    assert not torch.equal(x_new, x.repeat(2))


VALUES = torch.linspace(0, 1, 10).double()


def effect(x):
    w = pyro.sample("w", dist.Normal(torch.zeros(()).double(), 1.0))
    with pyro.plate("data", len(x)):
        v = pyro.sample("v", dist.Normal(w, 2.0))
        pyro.sample("x", dist.Normal(w + v, 1.0), obs=x)


def effect_posterior(x, kept):
    """Mean and variance of w given v = VALUES and the x that are kept."""
    precision = 1 + 10 / 4 + kept.sum()
    return (VALUES.sum() / 4 + ((x - VALUES) * kept).sum()) / precision, 1 / precision


def test_leave_one_out_leaves_x_out_and_not_a_value_that_is_conditioned_on():
    """Against the exact p(xₙ|x₋ₙ, v), to 0.1 nats, as in psis_loo's own example."""
    model = pyro.condition(effect, data={"v": VALUES})
    x = torch.linspace(-1, 2, 10).double()

    def guide(x):
        mean, variance = effect_posterior(x, torch.ones(10))
        pyro.sample("w", dist.Normal(mean, variance**0.5))

    exact = 0.0
    for n in range(10):
        mean, variance = effect_posterior(x, (torch.arange(10) != n).double())
        exact += dist.Normal(mean + VALUES[n], (variance + 1) ** 0.5).log_prob(x[n]).item()
    assert psis_loo(model, guide, x).elpd == pytest.approx(exact, abs=0.1)
    tree = to_datatree(model, guide, x, num_samples=20)
    assert np.array_equal(tree.observed_data["v"], VALUES)
    assert set(tree.posterior) == set(tree.prior) == {"w"}
    assert set(tree.posterior_predictive) == set(tree.prior_predictive) == {"x"}
    w = torch.as_tensor(tree.posterior["w"].values[0])[:, None]
    exact = dist.Normal(w + VALUES, 1.0).log_prob(x)
    assert np.allclose(tree.log_likelihood["x"][0], exact)
    assert np.allclose(tree.log_likelihood["v"][0], dist.Normal(w, 2.0).log_prob(VALUES))


def test_a_root_that_is_held_at_a_value_is_simulated_from_and_others_are_not():
    def model(x):
        with pyro.plate("data", len(x)):
            a, b = normal_z(x), pyro.sample("b", dist.Normal(x.new_zeros(len(x)), 1.0))
            c = pyro.sample("c", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(a + 100 * b + c, 1.0), obs=x)

    def guide(x, name="c"):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 1.0))
            pyro.sample(name, dist.Normal(0 * x, 1.0))

    like = torch.zeros(10).double()
    held = pyro.condition(model, data={"b": torch.ones(10).double()})
    (x,), values = simulate(held, guide, like, 10)
    assert (x - 100 - values["z"] - values["c"]).abs().max() < 6
    held = pyro.condition(model, data={"c": torch.ones(10).double()})
    with pytest.raises(ValueError, match="'c' is held at a value, and its distribution depends on"):
        simulate(held, lambda x: guide(x, "b"), like, 10)


def _own_value(x, y):
    with pyro.plate("data", len(x)):
        normal_z(x)
        pyro.sample("x", dist.Normal(x.roll(1), 1.0), obs=x)
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


def _own_memory(x, y):
    with pyro.plate("data", len(x)):
        normal_z(x)
        pyro.sample("x", dist.Normal(x, 1.0), obs=x)
        pyro.sample("y", dist.Uniform(x - 1e3, x + 1e3), obs=y)


def _later(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(y, 1.0))
        pyro.sample("x", dist.Normal(0 * x, 1.0), obs=x)
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


def _whole_numbers(x, y):
    with pyro.plate("data", len(x)):
        normal_z(x)
        pyro.sample("x", dist.Normal(0 * x, 1.0), obs=x)
        pyro.sample("y", dist.Normal(x, 1.0), obs=y.double())


REFUSED = {
    "own value": (_own_value, "the distribution at 'x' depends on the x that the model is given"),
    "own value in memory": (_own_memory, "the distribution at 'x' depends on the x that"),
    "later data": (_later, "the distribution at 'z' depends on the x that the model is given"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_be_drawn_in_order_are_refused(case):
    model, message = REFUSED[case]

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 1.0))

    like = torch.arange(5).double(), torch.linspace(-0.1, 0.1, 5).double()
    with pytest.raises(ValueError, match=message):
        simulate(model, guide, like, 5)


def test_whole_numbers_do_not_round_what_is_drawn_for_them():
    """They are made real where a normal site observes them; so does no argument hold its draws."""
    like = torch.arange(5).double(), torch.arange(5, 10)
    (_, y), _ = simulate(_whole_numbers, _narrow_guide, like, 5)
    assert (y != y.round()).all()
    with pytest.raises(ValueError, match=r"'y' draws values that its argument, of torch\.int64"):
        draw_data(_whole_numbers, like)


def _narrow_guide(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0 * x, 1.0))


def test_bounds_that_move_with_earlier_data_are_noticed():
    """Uniform densities of equal width agree where both are positive; their bounds do not."""

    def model(x):
        before = x[:, 0].clone()
        with pyro.plate("data", len(x)):
            z = normal_z(x)
            pyro.sample("first", dist.Normal(z, 1e-3), obs=x[:, 0])
            pyro.sample("second", dist.Uniform(before - 50.0, before + 50.0), obs=x[:, 1])

    def guide(x):
        with pyro.plate("data", len(x)):
            normal_z(x)

    # Given x_0 = 40, a third of the draws would lie beyond 50 + 6; given the drawn x_0, none can.
    (x,), values = simulate(model, guide, torch.full((3, 2), 40.0).double(), 40)
    assert ((x[:, 1] - values["z"]).abs() < 50.1).all()


def test_bits_per_dimension_count_all_observed_sites():
    def model(x, y):
        with pyro.plate("data", len(x)):
            normal_z(x)
            pyro.sample("x", dist.Bernoulli(0.5 + 0 * x).to_event(1), obs=x)
            pyro.sample("y", dist.Bernoulli(0.5 + 0 * y), obs=y)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * y, 1.0))

    data = torch.ones(6, 3).double(), torch.zeros(6).double()
    assert evaluate(model, guide, data, num_samples=30)["bits_per_dimension"] == pytest.approx(1.0)
