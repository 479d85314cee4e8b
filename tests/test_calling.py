"""Pairs as their users write them: plates of any name and place, and arguments in any form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from latente.inference import (
    ImportanceWeighted_ELBO,
    evaluate,
    fit,
    inference_gap,
    latent_information,
    log_evidence,
    nuts_posterior,
    posterior_means,
    psis_loo,
    reconstruct,
    simulate,
    to_datatree,
)
from latente.inference.data.arguments import open_pair

torch.manual_seed(0)
X = torch.randn(12, 2, dtype=torch.float64) + 0.5
"""12 data of 2 elements, each element the same z plus noise of variance 1."""

EXACT = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double() + 1).log_prob(X)
"""log p(x), for z ~ N(0, 1)."""

STANDARD = dist.Normal(torch.zeros(()).double(), 1.0)
NOISE = torch.ones(()).double()


def posterior(x: Tensor, dim: int = -1) -> dist.Normal:
    """p(z | x), exactly."""
    return dist.Normal(x.sum(dim) / 3, 3**-0.5)


def _plate(name, size=None, dim=None):
    """Model and guide with a data plate of this name, size and dimension at the right."""

    def model(x):
        with pyro.plate(name, size and len(x), dim=dim):
            z = pyro.sample("z", STANDARD.expand([len(x)]))
            pyro.sample(
                "x", dist.Normal(z[..., None], NOISE).expand([len(x), 2]).to_event(1), obs=x
            )

    def guide(x):
        with pyro.plate(name, size and len(x), dim=dim):
            pyro.sample("z", posterior(x))

    return model, guide


def of_another_name():
    return *_plate("z_minibatch", True), X


def without_a_size():
    return *_plate("data"), X


def without_a_size_and_of_another_name():
    return *_plate("rows"), X


def at_dimension_two():
    def model(x):
        with pyro.plate("sequences", len(x), dim=-2):
            z = pyro.sample("z", STANDARD)
            with pyro.plate("times", 2, dim=-1):
                pyro.sample("x", dist.Normal(z, NOISE), obs=x)

    def guide(x):
        with pyro.plate("sequences", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 3, 3**-0.5))

    return model, guide, X


def with_an_inner_plate_on_the_left():
    def model(x):
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", STANDARD)
            with pyro.plate("times", 2, dim=-2):
                pyro.sample("x", dist.Normal(z, NOISE), obs=x.T)

    def guide(x):
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", posterior(x))

    return model, guide, X


def rows_along_the_second_dimension():
    def model(words):
        with pyro.plate("documents", words.shape[1], dim=-1):
            z = pyro.sample("z", STANDARD)
            with pyro.plate("words", words.shape[0], dim=-2):
                pyro.sample("x", dist.Normal(z, NOISE), obs=words)

    def guide(words):
        with pyro.plate("documents", words.shape[1], dim=-1):
            pyro.sample("z", posterior(words, 0))

    return model, guide, X.T.contiguous()


def as_keywords():
    model, guide = _plate("data", True)
    return model, guide, {"x": X}


def covariates_first():
    def model(offset, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", STANDARD.expand([len(x)]))
            pyro.sample(
                "x",
                dist.Normal((offset + z)[..., None], NOISE).expand([len(x), 2]).to_event(1),
                obs=x,
            )

    def guide(offset, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x - offset[..., None]))

    offset = torch.arange(12.0, dtype=torch.float64)
    return model, guide, (offset, X + offset[:, None])


def with_constants():
    def model(x, scale, labels=None):
        assert labels is None
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", STANDARD.expand([len(x)]))
            pyro.sample(
                "x", dist.Normal(z[..., None], scale * NOISE).expand([len(x), 2]).to_event(1), obs=x
            )

    def guide(x, scale, labels=None):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", posterior(x))

    return model, guide, (X, 1.0, None)


def subsampling_itself():
    def model(x):
        with pyro.plate("rows", len(x), subsample_size=5) as index:
            z = pyro.sample("z", STANDARD.expand([len(index)]))
            pyro.sample(
                "x",
                dist.Normal(z[..., None], NOISE).expand([len(index), 2]).to_event(1),
                obs=x[index],
            )

    def guide(x):
        with pyro.plate("rows", len(x), subsample_size=5) as index:
            pyro.sample("z", posterior(x[index]))

    return model, guide, X


FORMS = [
    of_another_name,
    without_a_size,
    without_a_size_and_of_another_name,
    at_dimension_two,
    with_an_inner_plate_on_the_left,
    rows_along_the_second_dimension,
    as_keywords,
    covariates_first,
    with_constants,
    subsampling_itself,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_evidence_of_each_form_is_exact(form):
    model, guide, data = form()
    found = log_evidence(model, guide, data, num_samples=4)
    torch.testing.assert_close(found.log_px, EXACT, rtol=0, atol=1e-10)
    assert found.standard_error.max() < 1e-10


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_samples_of_a_wide_guide_lie_along_their_own_dimension(form):
    """A wrong layout would mix data and samples: the estimate would be far off."""
    model, guide, data = form()

    def wide(*args, **kwargs):
        return Widened()(guide)(*args, **kwargs)

    found = log_evidence(model, wide, data, num_samples=4000)
    error = (found.log_px - EXACT).abs() / found.standard_error
    assert found.standard_error.min() > 1e-3
    assert error.max() < 4.5  # twelve z-tests: a false alarm in 12,000


class Widened(Messenger):
    """Twice the standard deviation for a normal latent site."""

    def _pyro_sample(self, msg):
        fn = msg["fn"]
        if msg["name"] == "z":
            base = fn.base_dist if hasattr(fn, "base_dist") else fn
            msg["fn"] = dist.Normal(base.loc, 2 * base.scale)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_functions_of_each_form_give_rows_in_the_order_of_the_data(form):
    model, guide, data = form()
    means = posterior_means(model, guide, data)["z"].flatten()
    offset = data[0] if form is covariates_first else torch.zeros(12)
    x = X.float().double()
    torch.testing.assert_close(means.double(), X.sum(1) / 3, rtol=1e-6, atol=1e-6)
    again = reconstruct(model, guide, data)
    assert again.shape == (12, 2)
    assert (again - offset[:, None] - x.mean(1, keepdim=True)).abs().max() < 4
    drawn, values = simulate(model, guide, data, 12)
    drawn = drawn if isinstance(drawn, dict) else drawn[0] if len(drawn) == 1 else drawn
    assert type(drawn) is type(data)  # as it was given
    again = log_evidence(model, guide, drawn, num_samples=2)
    assert again.standard_error.max() < 1e-10
    assert values["z"].numel() == 12
    gap = inference_gap(model, guide, data, num_steps=5)
    torch.testing.assert_close(gap.log_px, EXACT, rtol=0, atol=1e-6)
    kl = latent_information(model, guide, data).kl.sum(1)
    exact = 0.5 * ((X.sum(1) / 3) ** 2 + 1 / 3 - 1 + math.log(3))
    torch.testing.assert_close(kl, exact, rtol=0, atol=1e-6)
    tree = to_datatree(model, guide, data, num_samples=3)
    assert tree["posterior"]["z"].sizes["datum"] == 12


def test_keywords_that_the_programs_do_not_take_are_named():
    """They were given by position, in the order of the dict."""

    def regression(X, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Normal(w * X[:, 0], 1.0), obs=y)

    with pytest.raises(ValueError, match=r"keyword arguments X, Y: TypeError: .* argument 'Y'"):
        fit(regression, AutoNormal(regression), {"X": torch.ones(4, 1), "Y": torch.ones(4)})


def test_a_plate_of_another_place_has_the_posterior_of_nuts():
    model, guide, data = at_dimension_two()
    found = nuts_posterior(
        model, guide, data[:3], num_samples=100, warmup_steps=50, num_temperatures=10
    )
    off = (found.mean.flatten() - data[:3].sum(1) / 3) * 3**0.5
    assert off.abs().max() < 0.4


class Shifted(Messenger):
    """A normal latent site whose mean has a parameter more, which starts at zero."""

    def _pyro_sample(self, msg):
        if msg["name"] == "z":
            fn = getattr(msg["fn"], "base_dist", msg["fn"])
            shift = pyro.param("shift", torch.zeros((), dtype=torch.float64))
            msg["fn"] = dist.Normal(fn.loc + shift, fn.scale)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_each_form_is_fitted_in_minibatches_as_the_plain_form_is(form):
    """The loss of all data is the same number for each form."""
    model, guide, data = form()
    settings = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-12, "show_progress": False}
    run = fit(model, Shifted()(guide), data, objective=Trace_ELBO(), **settings)
    assert run.history[-1]["elbo"] == pytest.approx(EXACT.mean().item(), abs=1e-6)
    assert run.history[-1]["loss"] == pytest.approx(-EXACT.mean().item(), abs=1e-6)


def test_a_plate_that_subsamples_itself_sets_the_size_of_a_batch():
    model, guide, data = subsampling_itself()
    sizes = []

    def counted(x):
        sizes.append(len(x))
        Shifted()(guide)(x)

    run = fit(
        model,
        counted,
        data,
        objective=Trace_ELBO(),
        epochs=1,
        learning_rate=1e-12,
        show_progress=False,
    )
    assert sizes.count(4) >= 3  # three batches of at most five
    assert run.history[-1]["loss"] == pytest.approx(-EXACT.mean().item(), abs=1e-5)


def test_two_plates_of_one_size_are_told_apart_by_their_growth():
    square = X[:2]

    def model(x):
        with pyro.plate("a", 2, dim=-1), pyro.plate("b", len(x), dim=-2):
            pyro.sample("x", dist.Normal(torch.zeros(()).double(), 1.0), obs=x)

    def guide(x):
        pass

    _, _, (rows,) = open_pair(model, guide, square)
    assert torch.equal(rows, square)
    found = log_evidence(model, guide, square, num_samples=2)
    exact = dist.Normal(0.0, 1.0).log_prob(square).sum(1)
    torch.testing.assert_close(found.log_px, exact, rtol=0, atol=1e-10)


def _square():
    def model(x):
        with pyro.plate("a", x.shape[1], dim=-1), pyro.plate("b", x.shape[0], dim=-2):
            pyro.sample("x", dist.Normal(torch.zeros(()).double(), 1.0), obs=x)

    return model, lambda x: None, X[:, :2][:2]


def test_of_two_plates_the_data_are_those_of_the_rows_and_data_plate_decides():
    model, guide, square = _square()
    log_prob = dist.Normal(0.0, 1.0).log_prob(square)
    for name, dim in ((None, 1), ("a", 0), ("b", 1)):
        found = log_evidence(model, guide, square, num_samples=2, data_plate=name)
        torch.testing.assert_close(found.log_px, log_prob.sum(dim), rtol=0, atol=1e-10)


def test_two_plates_that_both_fit_are_listed():
    def model(x):
        for name in ("a", "b"):
            with pyro.plate(name, len(x)):
                pyro.sample(f"x_{name}", dist.Normal(torch.zeros(()).double(), 1.0), obs=2 * x)

    with pytest.raises(ValueError, match=r"plate 'a' .*plate 'b' .*data_plate="):
        log_evidence(model, lambda x: None, X[:, 0], num_samples=2)


def test_a_data_plate_that_is_none_is_named():
    model, guide, data = of_another_name()
    with pytest.raises(ValueError, match=r"'rows'.* are 'z_minibatch'"):
        log_evidence(model, guide, data, data_plate="rows")


def _regression(inputs, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Normal(inputs @ w, NOISE), obs=y)


INPUTS = torch.randn(60, 2, dtype=torch.float64)
OUTPUTS = INPUTS @ torch.tensor([1.0, -1.0], dtype=torch.float64) + torch.randn(60).double()


def _posterior_of_weights(inputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    covariance = (inputs.T @ inputs + torch.eye(2)).inverse()
    return covariance @ inputs.T @ y, covariance


def test_a_regression_with_inputs_first_is_fitted_and_left_one_out():
    guide = AutoMultivariateNormal(_regression)
    torch.set_default_dtype(torch.float64)
    try:
        data = (INPUTS, OUTPUTS)
        fit(_regression, guide, data, epochs=250, learning_rate=0.05, show_progress=False)
        found = psis_loo(_regression, guide, data, num_samples=2000)
    finally:
        torch.set_default_dtype(torch.float32)
    total = 0.0
    for left in range(60):
        kept = torch.arange(60) != left
        mean, covariance = _posterior_of_weights(INPUTS[kept], OUTPUTS[kept])
        variance = INPUTS[left] @ covariance @ INPUTS[left] + 1
        exact = dist.Normal(INPUTS[left] @ mean, variance.sqrt()).log_prob(OUTPUTS[left])
        total += exact.item()
    assert found.elpd == pytest.approx(total, abs=0.15)


def test_data_without_a_plate_are_one_datum():
    """A Gaussian process: y is jointly normal."""

    def model(inputs, y):
        level = pyro.sample("level", STANDARD)
        covariance = torch.exp(-0.5 * torch.cdist(inputs, inputs) ** 2) + torch.eye(len(y)).double()
        mean = level[..., None].expand(*level.shape, len(y))
        pyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=y)

    def guide(inputs, y):
        covariance = torch.exp(-0.5 * torch.cdist(inputs, inputs) ** 2) + torch.eye(len(y)).double()
        solved = torch.linalg.solve(covariance, torch.stack([torch.ones_like(y), y], 1)).sum(0)
        pyro.sample("level", dist.Normal(solved[1] / (1 + solved[0]), (1 + solved[0]) ** -0.5))

    y = X[:, 0]
    found = log_evidence(model, guide, (X, y), num_samples=50)
    covariance = torch.exp(-0.5 * torch.cdist(X, X) ** 2) + torch.eye(12) + 1
    exact = dist.MultivariateNormal(torch.zeros(12).double(), covariance).log_prob(y)
    assert found.log_px.tolist() == pytest.approx([exact.item()], abs=1e-8)


def test_a_plate_that_is_iterated_over_makes_the_data_one_datum():
    def model(x):
        mean = pyro.sample("mean", STANDARD)
        for row in pyro.plate("rows", len(x)):
            pyro.sample(f"x_{row}", dist.Normal(mean, NOISE), obs=x[row])

    def guide(x):
        size = len(x)
        pyro.sample("mean", dist.Normal(x.sum() / (1 + size), (1 + size) ** -0.5))

    x = X[:, 0]
    found = log_evidence(model, guide, x, num_samples=10)
    exact = dist.MultivariateNormal(torch.zeros(12).double(), torch.eye(12).double() + 1).log_prob(
        x
    )
    assert found.log_px.tolist() == pytest.approx([exact.item()], abs=1e-8)


def _masked(x):
    known = ~x.isnan()
    filled = torch.where(known, x, torch.zeros_like(x))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", STANDARD.expand([len(x)]))
        normal = dist.Normal(z[..., None], NOISE).expand([len(x), 2])
        pyro.sample("x", normal.mask(known).to_event(1), obs=filled)


def _masked_as_it_is(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", STANDARD.expand([len(x)]))
        normal = dist.Normal(z[..., None], NOISE).expand([*z.shape, 2])
        pyro.sample("x", normal.mask(~x.isnan()).to_event(1), obs=x)


def _guide_of_masked(x):
    known = ~x.isnan()
    precision = 1 + known.sum(1).double()
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.nan_to_num().sum(1) / precision, precision**-0.5))


def test_nan_that_the_model_masks_is_taken_and_other_nan_is_refused():
    x = X.clone()
    x[3, 1] = x[5, 0] = math.nan
    found = log_evidence(_masked, _guide_of_masked, x, num_samples=4)
    exact = EXACT.clone()
    one = dist.Normal(torch.zeros(()).double(), 2**0.5)
    exact[3], exact[5] = one.log_prob(x[3, 0]), one.log_prob(x[5, 1])
    torch.testing.assert_close(found.log_px, exact, rtol=0, atol=1e-10)
    again = log_evidence(_masked_as_it_is, _guide_of_masked, x, num_samples=4)
    torch.testing.assert_close(again.log_px, exact, rtol=0, atol=1e-10)
    model, guide = _plate("data", True)
    with pytest.raises(ValueError, match="NaN or infinity in rows 3, 5"):
        log_evidence(model, guide, x)
    x[0, 0] = math.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        log_evidence(_masked, _guide_of_masked, x)


def test_whole_numbers_stay_whole_where_the_programs_take_them():
    seen = []

    def model(words):
        with pyro.plate("data", len(words)):
            z = pyro.sample("z", STANDARD)
            logits = torch.stack([z, -z, 0 * z], -1)[..., None, :].expand(*z.shape, 4, 3)
            pyro.sample("words", dist.Categorical(logits=logits).to_event(1), obs=words)

    def guide(words):
        seen.append(words.dtype)
        counts = nn.functional.one_hot(words, 3).sum(-2)
        with pyro.plate("data", len(words)):
            pyro.sample("z", dist.Normal(0.1 * counts[:, 0].double(), 1.0))

    words = torch.randint(0, 3, (12, 4))
    log_evidence(model, guide, words, num_samples=10)
    assert set(seen) == {torch.int64}


def test_whole_numbers_under_a_normal_likelihood_are_made_real():
    model, guide = _plate("data", True)
    (drawn,), _ = simulate(model, guide, torch.arange(24).reshape(12, 2), 100)
    assert drawn.is_floating_point()
    assert (drawn != drawn.round()).all()


def test_sequences_of_different_lengths_are_padded():
    sequences = [torch.ones(length, dtype=torch.float64) for length in (1, 3, 2)]

    def model(x, lengths):
        steps = torch.arange(x.shape[1]) < lengths[:, None]
        with pyro.plate("sequences", len(x)):
            z = pyro.sample("z", STANDARD)
            normal = dist.Normal(z[..., None], NOISE).expand([*z.shape, x.shape[1]])
            pyro.sample("x", normal.mask(steps).to_event(1), obs=x)

    def guide(x, lengths):
        with pyro.plate("sequences", len(x)):
            size = 1 + lengths.double()
            pyro.sample("z", dist.Normal(x.sum(1) / size, size**-0.5))

    found = log_evidence(model, guide, sequences, num_samples=4)
    for value, sequence in zip(found.log_px, sequences, strict=True):
        size = len(sequence)
        covariance = torch.eye(size).double() + 1
        exact = dist.MultivariateNormal(torch.zeros(size).double(), covariance).log_prob(sequence)
        assert value.item() == pytest.approx(exact.item(), abs=1e-10)


def test_an_autoguide_of_a_model_that_subsamples_itself_finds_the_posterior():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), subsample_size=4) as index:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])

    guide = AutoNormal(model)
    x = X[:, 0].float()
    fit(model, guide, x, epochs=600, learning_rate=0.02, show_progress=False)
    assert guide.median()["mean"].item() == pytest.approx(x.sum().item() / 13, abs=0.1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((), "empty tuple"),
        ({}, "empty dict"),
        ("x.csv", "load_data"),
        ((X, X[:5]), "different lengths"),
        (3.0, "single number"),
    ],
)
def test_data_that_cannot_be_taken_are_refused_in_one_line(data, message):
    model, guide = _plate("data", True)
    with pytest.raises(ValueError, match=message):
        log_evidence(model, guide, data)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_local_posteriors_are_guides_that_go_with_the_model_as_it_was_written(form):
    model, guide, data = form()
    gap = inference_gap(model, guide, data, num_steps=5)
    found = log_evidence(model, gap.full_rank, data, num_samples=500)
    assert ((found.log_px - EXACT).abs() < 4.5 * found.standard_error + 1e-6).all()


def test_a_subsample_of_all_probed_rows_is_noticed():
    def model(x):
        mean = pyro.sample("mean", STANDARD)
        with pyro.plate("rows", len(x), subsample_size=50) as index:
            pyro.sample("x", dist.Normal(mean, NOISE), obs=x[index])

    def guide(x):
        size = len(x)
        pyro.sample("mean", dist.Normal(x.sum() / (1 + size), (1 + size) ** -0.5))

    _, _, (rows,) = open_pair(model, guide, torch.zeros(120).double())
    assert rows.shape == (120,)
    found, _, _ = open_pair(model, guide, torch.zeros(120).double())
    assert found.calling.subsample_size == 50


def test_validation_by_keyword_may_have_another_order():
    """Offsets and data in each other's place would be refused or give another bound."""
    model, guide, (offset, x) = covariates_first()
    settings = {"epochs": 1, "learning_rate": 1e-12, "show_progress": False}
    data, held_out = {"offset": offset, "x": x}, {"x": x, "offset": offset}
    run = fit(
        model, Shifted()(guide), data, validation=held_out, objective=Trace_ELBO(), **settings
    )
    assert run.history[-1]["validation_elbo"] == pytest.approx(EXACT.mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="give both in the same form"):
        fit(model, Shifted()(guide), data, validation=(offset, x), **settings)


@pytest.mark.parametrize(("groups", "rows"), [(4, 4), (50, 60)])
def test_a_plate_of_groups_as_large_as_the_data_is_no_plate_of_data(groups, rows):
    """Random effects: b_j ~ N(0, 1), y_n ~ N(b_{j(n)}, 1). The guide is exact, so each weight is
    p(y). A probe of 50 rows must not take 50 groups for the plate of data either."""
    index = torch.arange(rows) % groups
    y = torch.linspace(-2, 2, rows, dtype=torch.float64)

    def model(index, y):
        with pyro.plate("groups", groups):
            b = pyro.sample("b", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(b[index], 1.0), obs=y)

    design = torch.nn.functional.one_hot(index, groups).double()
    count, total = design.sum(0), design.T @ y

    def guide(index, y):
        with pyro.plate("groups", groups):
            pyro.sample("b", dist.Normal(total / (count + 1), (count + 1) ** -0.5))

    covariance = torch.eye(rows).double() + design @ design.T
    exact = dist.MultivariateNormal(y.new_zeros(rows), covariance).log_prob(y)
    found = log_evidence(model, guide, (index, y), num_samples=5)
    assert found.log_px.shape == (1,)
    assert found.log_px.item() == pytest.approx(exact.item(), abs=1e-8)


def _people(X, y=None):
    """A regression as its user writes it; only the plate's name tells it from a canonical one."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("people", len(X)):
        pyro.sample("income", dist.Normal(X @ w, 1.0), obs=y)


def _hand_written(X, y=None):
    loc = pyro.param("loc", lambda: torch.zeros(2))
    pyro.sample("w", dist.Normal(loc, 1.0).to_event(1))


TABLE, TARGET = torch.randn(20, 2), torch.randn(20)


@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal])
@pytest.mark.parametrize(
    "call",
    [
        evaluate,
        lambda *given: simulate(*given, 5),
        lambda *given: fit(*given, objective=ImportanceWeighted_ELBO(2), show_progress=False),
    ],
    ids=["evaluate", "simulate", "fit"],
)
def test_errors_name_the_plate_and_the_sites_that_the_user_wrote(kind, call):
    """Not the plate ``"data"`` of the library, nor what the autoguide draws to make w from."""
    with pytest.raises(ValueError, match="site 'w' stands outside the plate 'people'") as caught:
        call(_people, kind(_people), (TABLE, TARGET))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            (TABLE, TARGET[:5]),
            r"argument 0 has 20 rows \(shape \(20, 2\)\), argument 1 has 5 rows \(shape \(5,\)\)$",
        ),
        (
            {"y": TARGET[:5], "X": TABLE},
            r"'y' has 5 rows \(shape \(5,\)\), 'X' has 20 rows \(shape \(20, 2\)\)$",
        ),
        (
            (TABLE, TARGET[:, None]),
            r"argument 1 has 1 row along dimension 1 \(shape \(20, 1\)\); "
            r"give argument 1 the shape \(20,\)$",
        ),
        ((TABLE.T, TARGET), r"argument 0 has 2 rows \(shape \(2, 20\)\), argument 1 has 20 rows"),
    ],
)
@pytest.mark.parametrize("call", [log_evidence, fit])
def test_arguments_of_different_lengths_are_named_with_their_shapes(call, data, said):
    with pytest.raises(ValueError, match="the arguments of data have different lengths: .*" + said):
        call(_people, _hand_written, data)


@pytest.mark.parametrize("call", [log_evidence, fit])
def test_arguments_in_another_order_are_refused_with_the_order_that_runs(call):
    said = r"shapes \(20,\), \(20, 2\), and run on \(20, 2\), \(20,\): .* arguments, X, y \(Runtime"
    with pytest.raises(ValueError, match=said):
        call(_people, _hand_written, (TARGET, TABLE))


def test_programs_that_fail_in_every_order_are_not_told_of_another_one():
    def broken(X, y):
        raise RuntimeError("no connection")

    with pytest.raises(RuntimeError, match="no connection"):
        log_evidence(broken, _hand_written, (TARGET, TABLE))


def _offset(X, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("people", len(X)):
        pyro.sample("y", dist.Normal(X @ torch.tensor([1.0, -1.0]) + b, 1.0), obs=y)


def _offset_guide(X, y=None):
    rest = y - X @ pyro.param("w", torch.tensor([1.0, -1.0]))
    pyro.sample("b", dist.Normal(rest.sum() / (1 + len(X)), (1 + len(X)) ** -0.5))


def test_float64_arrays_go_with_float32_numbers_in_the_programs():
    """The pair has no module whose dtype would decide. Its guide is the exact posterior."""
    table, target = TABLE.double().numpy(), TARGET.double().numpy()
    noise = torch.eye(20).double() + 1
    mean = TABLE.double() @ torch.tensor([1.0, -1.0]).double()
    exact = dist.MultivariateNormal(mean, noise).log_prob(TARGET.double()).item()
    found = log_evidence(_offset, _offset_guide, (table, target), num_samples=10)
    assert found.log_px.item() == pytest.approx(exact, abs=1e-3)
    again = log_evidence(_offset, _offset_guide, {"X": table, "y": target}, num_samples=10)
    assert again.log_px.item() == pytest.approx(exact, abs=1e-3)
    run = fit(
        _offset, _offset_guide, (table, target), validation=(table, target), epochs=1,
        show_progress=False,
    )  # fmt: skip
    assert run.history[-1]["elbo"] == pytest.approx(run.history[-1]["validation_elbo"], abs=0.5)


def test_float64_arrays_stay_where_the_programs_take_them():
    def model(x):
        b = pyro.sample("b", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("people", len(x)):
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        pyro.sample("b", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))

    _, _, rows = open_pair(model, guide, TARGET.double().numpy())
    assert rows[0].dtype == torch.float64


def test_numbers_of_two_types_in_the_programs_are_said():
    def model(X, y):
        b = pyro.sample("b", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        with pyro.plate("people", len(X)):
            pyro.sample("y", dist.Normal(X @ b + X @ torch.zeros(2), 1.0), obs=y)

    def guide(X, y):
        pyro.sample("b", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))

    with pytest.raises(RuntimeError, match=r"tensors of two types; NumPy.*\.double\(\)$"):
        log_evidence(model, guide, (TABLE.double().numpy(), TARGET.numpy()))


@pytest.mark.parametrize("call", [log_evidence, fit])
def test_a_forgotten_to_event_without_a_plate_is_told_by_the_site_and_its_shape(call):
    def model(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0))
        pyro.sample("y", dist.Normal(X @ w, 1.0).to_event(1), obs=y)

    def no_plate(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(X @ w, 1.0), obs=y)

    def guide(X, y):
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0))

    said = (
        r"'w' has 2 log densities at dimension -1, .*\(batch shape \(2,\)\): end it with \.to_event"
    )
    for own in (guide, AutoNormal(model)):
        with pytest.raises(ValueError, match=said):
            call(model, own, (TABLE, TARGET))
    said = r"'y' has 20 log densities at dimension -1, .*\(batch shape \(20,\)\): .* pyro\.plate"
    with pytest.raises(ValueError, match=said):
        call(no_plate, _hand_written, (TABLE, TARGET))


@pytest.mark.parametrize("call", [log_evidence, fit])
@pytest.mark.parametrize("shared", [False, True])
def test_a_plate_of_fixed_indices_is_told_as_what_it_is(call, shared):
    """Where all data are one datum, the evidence was of the chosen rows alone, in silence."""
    chosen = torch.arange(5)

    def local(x):
        with pyro.plate("people", len(x), subsample=chosen) as index:
            z = pyro.sample("z", STANDARD.expand([len(index)]))
            pyro.sample("x", dist.Normal(z, NOISE), obs=x[index])

    def local_guide(x):
        scale = pyro.param("scale", lambda: torch.ones(()).double())
        with pyro.plate("people", len(x), subsample=chosen) as index:
            pyro.sample("z", dist.Normal(x[index] / 2, scale))

    def one(x):
        z = pyro.sample("z", STANDARD)
        with pyro.plate("people", len(x), subsample=chosen) as index:
            pyro.sample("x", dist.Normal(z, NOISE), obs=x[index])

    def one_guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", lambda: torch.zeros(()).double()), 1.0))

    pair = (one, one_guide) if shared else (local, local_guide)
    said = "the plate 'people' takes 5 of its 12 elements, those that its subsample= names: leave"
    with pytest.raises(ValueError, match=said):
        call(*pair, X[:, 0])
