"""Data that are given to a fitted pair: by the columns, the transform and the labels of its fit."""

import gc
import json

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta

from latente.guides import DiagonalNormal, PointPosterior
from latente.inference import evaluate, fit, load_data, load_run, log_evidence
from latente.inference.data import known_rows
from latente.inference.data.transform_json import from_json, to_json
from latente.models import VAE, Normal, StandardNormal, mlp

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(30, 2)), columns=["a", "b"]).astype("float32")
Y = pd.DataFrame(RNG.normal(size=(30, 2)) * 2, columns=["u", "v"]).astype("float32")
SLOPES = torch.tensor([[2.0, -1.0], [0.5, 3.0]])


def regression(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x @ SLOPES + z[:, None], 1.0).to_event(1), obs=y)


def posterior(x, y):
    """The exact posterior, so that all importance weights are p(y|x)."""
    offset = pyro.param("offset", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((y - x @ SLOPES).sum(1) / 3 + 0 * offset, 3**-0.5))


def exact(x=X, y=Y):
    """log p(y|x): y is normal around its regression, with the covariance I + 11ᵀ."""
    x, y = torch.tensor(x.to_numpy()), torch.tensor(y.to_numpy())
    covariance = torch.eye(2) + 1
    return dist.MultivariateNormal(x @ SLOPES, covariance).log_prob(y).double()


def fitted(data):
    return fit(regression, posterior, data, epochs=1, show_progress=False)


def close(evidence, wanted):
    return torch.allclose(evidence.log_px, wanted, rtol=0, atol=2e-4)


OTHER_ORDER = {
    "x": lambda: (X[["b", "a"]], Y),
    "y": lambda: (X, Y[["v", "u"]]),
    "both": lambda: (X[["b", "a"]], Y[["v", "u"]]),
    "by keyword": lambda: {"y": Y[["v", "u"]], "x": X[["b", "a"]]},
    "with an array": lambda: (X.to_numpy(), Y[["v", "u"]]),
}


@pytest.mark.parametrize("form", list(OTHER_ORDER))
@pytest.mark.parametrize("by_keyword", [False, True])
def test_columns_of_all_arguments_are_aligned(form, by_keyword, tmp_path):
    run = fitted({"x": X, "y": Y} if by_keyword else (X, Y))
    given = OTHER_ORDER[form]()
    if not (by_keyword and form == "with an array"):  # then nothing says which argument it is
        assert close(log_evidence(run.model, run.guide, given, num_samples=20), exact())
    assert close(run.log_evidence((X, Y), num_samples=20), exact())
    again = from_json(json.loads(json.dumps(to_json(run.transform))))
    assert again.argument_columns == run.transform.argument_columns


@pytest.mark.parametrize("by_keyword", [False, True])
def test_renamed_columns_of_any_argument_are_refused(by_keyword):
    run = fitted((X, Y))
    for x, y in ((X, Y.rename(columns={"u": "w"})), (X.rename(columns={"a": "w"}), Y)):
        data = {"x": x, "y": y} if by_keyword else (x, y)
        with pytest.raises(ValueError, match=r"lacks column '[ua]'"):
            log_evidence(run.model, run.guide, data)
    with pytest.raises(ValueError, match="lacks columns 'a', 'b'"):
        log_evidence(run.model, run.guide, (Y, X))


def test_tables_of_equal_columns_in_two_orders_are_not_guessed():
    other = Y.set_axis(["b", "a"], axis=1)
    run = fitted((X, other))
    assert close(log_evidence(run.model, run.guide, (X, other[["a", "b"]])), exact())
    with pytest.raises(ValueError, match="as several arguments of the fit had in different orders"):
        log_evidence(run.model, run.guide, {"x": X, "y": other})


def test_further_tables_are_aligned_where_they_validate_and_after_loading(tmp_path):
    histories = []
    for y in (Y, Y[["v", "u"]]):
        run = fit(
            regression, posterior, (X, Y), validation=(X, y), epochs=1, out=tmp_path / "v".join(y),
            show_progress=False,
        )  # fmt: skip
        histories.append(run.history[0]["validation_elbo"])
    assert histories[0] == histories[1]
    loaded = load_run(run.out, model=regression, guide=posterior, data=(X, Y))
    found = log_evidence(loaded.model, loaded.guide, (X, Y[["v", "u"]]), num_samples=20)
    assert close(found, exact())


def test_a_second_argument_of_a_run_is_taken_or_refused():
    run = fitted((X, Y))
    assert close(run.log_evidence(X[["b", "a"]], Y[["v", "u"]], num_samples=20), exact())
    data = load_data(X, standardize=True)
    vae = fit(*pair(2), data, epochs=1, show_progress=False)
    for given in (X, data, (data.test,), {"x": data.test}):
        with pytest.raises(ValueError, match=r"give \(x, context\) as a tuple"):
            vae.log_evidence(given, torch.zeros(30))


def pair(dim):
    vae = VAE(StandardNormal(1), mlp(1, 4, out=dim), Normal((dim,)))
    return vae, DiagonalNormal(mlp(dim, 4, out=2), latent_dim=1)


@pytest.mark.parametrize("wrap", [list, lambda x: x.tolist(), lambda x: {"x": x}, pd.Series])
def test_raw_values_are_refused_in_any_container(wrap):
    raw = RNG.normal(100, 5, (60, 2))
    data = load_data(raw, standardize=True)
    run = fit(*pair(2), data, epochs=1, show_progress=False)
    if wrap is pd.Series:
        raw, data = raw[:, 0], load_data(raw[:, 0], standardize=True)
        run = fit(scalar_model, scalar_guide, data, epochs=1, show_progress=False)
    with pytest.raises(ValueError, match=r"was not standardized .*run.transform\(new\)"):
        log_evidence(run.model, run.guide, wrap(raw))
    seen = wrap(data.transform(raw)[0].numpy())
    assert len(log_evidence(run.model, run.guide, seen, num_samples=20).log_px) == 60


def scalar_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def scalar_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, pyro.param("sd", torch.tensor(0.7))))


def test_rows_of_a_data_set_are_known_however_few_or_extreme():
    raw = RNG.normal(5, 2, (60, 2))
    data = load_data(raw, standardize=True, test=raw[:5] + 1e3)  # 500 standard deviations away
    model, guide = pair(2)
    run = fit(model, guide, data, epochs=1, show_progress=False)
    for rows in (data.test, data.test[2:3], data.test.numpy()[::-1], data.train[4:5], data.train):
        with pytest.raises(ValueError, match="standardized already"):
            run.log_evidence(rows, num_samples=20)
    far = torch.tensor(raw[:5] + 1e3)
    assert torch.equal(run.rows(far)[0], data.test)
    assert len(log_evidence(model, guide, data.test, num_samples=20).log_px) == 5
    with pytest.raises(ValueError, match="another mean and standard deviation"):
        log_evidence(model, guide, load_data(raw, standardize=True, seed=1).test)


def test_extreme_rows_are_taken_only_where_they_are_known():
    """Half of an element's values are beyond ±30, and would look raw."""
    raw = RNG.normal(50, 1, (60, 2))
    data = load_data(raw, standardize=True, test=raw[:5] + 40)
    model, guide = pair(2)
    fit(model, guide, data, epochs=1, show_progress=False)
    assert len(log_evidence(model, guide, data.test[:3], num_samples=20).log_px) == 3
    with pytest.raises(ValueError, match="was not standardized"):
        log_evidence(model, guide, raw[:5])


def test_levels_that_were_divided_are_not_divided_again():
    values = RNG.uniform(0, 99, (40, 3))
    data = load_data(values, scale=100)
    run = fit(*pair(3), data, epochs=1, show_progress=False)
    with pytest.raises(ValueError, match="divided by 100 already"):
        run.log_evidence(data.test)
    plain = load_data(values)
    untouched = fit(*pair(3), plain, epochs=1, show_progress=False)
    assert torch.equal(untouched.rows(plain.test)[0], plain.test)


def test_no_rows_are_kept_or_mistaken_once_they_are_gone():
    gc.collect()
    before = len(known_rows._TRANSFORMS)
    data = load_data(RNG.normal(size=(40, 2)), standardize=True)
    assert len(known_rows._TRANSFORMS) == before + 3
    row = data.train[3]
    assert known_rows.transform_of_rows(row) is data.transform
    del data, row
    gc.collect()
    assert len(known_rows._TRANSFORMS) == before
    # Memory that is used again is that of other rows: what was at an address says nothing.
    others = [torch.randn(32, 2, dtype=torch.float64) for _ in range(50)]
    assert all(known_rows.transform_of_rows(other) is None for other in others)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_table_and_an_array_of_the_same_values_are_the_same(standardize):
    frame = pd.DataFrame(RNG.normal(1e4, 3, (60, 2)), columns=["a", "b"])
    table = load_data(frame, standardize=standardize)
    array = load_data(frame.to_numpy(), standardize=standardize)
    other_units = load_data(frame.to_numpy() * 2, standardize=True)
    wider = load_data(frame.assign(c=frame["a"] * frame["b"]), standardize=standardize)
    for first, second in ((table, array), (array, table)):
        run = fit(*pair(2), first, epochs=1, show_progress=False)
        mine, theirs = (
            log_evidence(run.model, run.guide, data, num_samples=20) for data in (first, second)
        )
        assert torch.allclose(mine.log_px, theirs.log_px, rtol=1e-2)
        with pytest.raises(ValueError, match="with another mean and standard deviation than"):
            log_evidence(run.model, run.guide, other_units)
        what = "other columns" if first is table else "another shape of a datum"
        with pytest.raises(ValueError, match=f"was loaded with {what} than the data of the fit"):
            log_evidence(run.model, run.guide, wider)


def test_pixels_in_another_order_are_not_the_same_data():
    frame = pd.DataFrame(RNG.integers(0, 256, (40, 4))).add_prefix("p")
    data, other = (
        load_data(f, shape=(2, 2), scale=255) for f in (frame, frame[frame.columns[::-1]])
    )
    model, guide = pair(4)
    model.likelihood, guide.encoder = Normal((2, 2)), mlp((2, 2), 4, out=2)
    fit(model, guide, data, epochs=1, show_progress=False)
    with pytest.raises(ValueError, match="loaded with another order of columns"):
        log_evidence(model, guide, other)


def conditional(x, label):
    table = pyro.param("table", torch.arange(3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(table[label] + z, 1.0), obs=x)


def guide_of_conditional(x, label):
    table = pyro.param("table", torch.arange(3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - table[label]) / 2, 0.5**0.5))


def test_labels_beyond_those_of_the_fit_are_refused_in_one_line():
    x, labels = RNG.normal(size=40).astype("float32"), np.arange(40) % 3
    data = load_data(x, labels=labels, given="labels")
    run = fit(conditional, guide_of_conditional, data, epochs=1, learning_rate=1e-9,
              show_progress=False)  # fmt: skip
    assert from_json(json.loads(json.dumps(to_json(data.transform)))).label_range == (0, 2)
    wanted = dist.Normal(torch.tensor(labels).float(), 2**0.5).log_prob(torch.tensor(x)).double()
    assert torch.allclose(run.log_evidence(x, labels, num_samples=20).log_px, wanted, atol=1e-5)
    beyond = labels.copy()
    beyond[7] = 3
    message = r"has the label 3 in row 7, and those of the fit were from 0 to 2$"
    with pytest.raises(ValueError, match=message):
        run.log_evidence(x, beyond)
    with pytest.raises(ValueError, match=message):
        log_evidence(run.model, run.guide, (torch.tensor(x), torch.tensor(beyond)))
    late = torch.zeros(1200, dtype=torch.long)
    late[1100] = -1
    with pytest.raises(ValueError, match="has the label -1 in row 1100"):
        log_evidence(run.model, run.guide, (torch.zeros(1200), late))
    other = load_data(x, labels=beyond, given="labels")
    with pytest.raises(ValueError, match="loaded with another range of labels"):
        log_evidence(run.model, run.guide, other)


def test_a_point_has_no_codes_and_the_error_says_where_the_points_are():
    x = torch.randn(20, 5)
    point = VAE(StandardNormal(2), mlp(2, out=5), Normal((5,))), PointPosterior(mlp(5, out=2), 2)
    auto = scalar_model, AutoDelta(scalar_model)
    for (model, guide), rows in ((point, x), (auto, x[:, 0])):
        run = fit(model, guide, rows, epochs=1, show_progress=False)
        for answer in (run.encode, run.log_evidence):
            with pytest.raises(ValueError, match=r"on one point.*posterior_means\(model, guide, x"):
                answer(rows)


def masked(x, mask):
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        normal = dist.Normal(loc + z[:, None], 1.0).mask(mask).to_event(1)
        pyro.sample("x", normal, obs=torch.where(mask, x, 0.0))


def masked_by_handler(x, mask):
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for column in range(3):
            known, filled = mask[:, column], torch.where(mask, x, 0.0)[:, column]
            with poutine.mask(mask=known):
                pyro.sample(f"x{column}", dist.Normal(loc[column] + z, 1.0), obs=filled)


def guide_of_masked(x, mask):
    loc = pyro.param("loc", torch.zeros(3))
    left = torch.where(mask, x - loc, 0.0).sum(1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(left / (1 + mask.sum(1)), (1.0 + mask.sum(1)) ** -0.5))


@pytest.mark.parametrize("model", [masked, masked_by_handler])
@pytest.mark.parametrize("frame", [False, True])
def test_a_model_that_masks_what_is_missing_is_fitted_and_scored(model, frame):
    """The evidence is that of the values that are there: normal, with covariance I + 11ᵀ."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 0, -2])
    mask = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) > 0.3
    holed = torch.where(mask, x, torch.nan)
    given = pd.DataFrame(holed.numpy(), columns=["a", "b", "c"]) if frame else holed
    run = fit(model, guide_of_masked, (given, mask), epochs=60, learning_rate=0.05,
              show_progress=False)  # fmt: skip
    loc = run.model.store["params"]["loc"].detach()
    wanted = []
    for row, known in zip(x, mask, strict=True):
        num = int(known.sum())
        if num:
            covariance = torch.eye(num) + 1
            wanted.append(dist.MultivariateNormal(loc[known], covariance).log_prob(row[known]))
        else:
            wanted.append(torch.tensor(0.0))
    found = run.log_evidence((given, mask), num_samples=20)
    assert torch.allclose(found.log_px, torch.stack(wanted).double(), rtol=0, atol=1e-4)
    assert (loc - torch.tensor([1.0, 0, -2])).abs().max() < 1  # 28 or so values of variance 2 each


def test_missing_values_are_refused_with_the_ways_on():
    holed = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [1.0, 2.0, 4.0]})
    data = load_data(RNG.normal(size=(40, 2)))
    for read in (load_data, data.transform, lambda x: fit(*pair(2), x)):
        for values in (holed, holed.to_numpy()):
            with pytest.raises(ValueError, match=r"in row 1,.*drop or fill them.*poutine.mask"):
                read(values)
    with pytest.raises(ValueError, match=r"NaN or infinity in row 0.*drop or fill them$"):
        load_data(np.array([[np.inf, 1.0], [1.0, 2.0]]))


def test_a_data_set_without_test_rows_says_what_to_do():
    data = load_data(RNG.normal(size=(40, 2)), test=0)
    run = fit(*pair(2), data, epochs=1, show_progress=False)
    for answer in (run.log_evidence, lambda d: evaluate(run.model, run.guide, d)):
        with pytest.raises(ValueError, match=r"no test rows.*test=0.1.*data.rows\(\"train\"\)"):
            answer(data)
    rows = data.rows("train")
    assert len(log_evidence(run.model, run.guide, rows, num_samples=20).log_px) == 36


def test_numbers_of_numpy_are_read_and_shown_as_numbers():
    x = RNG.normal(size=(50, 4))
    wanted = load_data(x, validation=0.3, test=0.2, seed=3)
    options = {"validation": np.float32(0.3), "test": np.float32(0.2), "seed": np.int64(3)}
    assert load_data(x, **options).digest() == wanted.digest()
    shaped = load_data(x, shape=(np.int64(2), np.int8(2)), scale=np.float32(2.5), seed=np.int64(3))
    assert json.loads(json.dumps(to_json(shaped.transform)))["options"]["shape"] == [2, 2]
    assert shaped.transform.divisor == 2.5
    with pytest.raises(ValueError, match=r"^validation=0.2 and test=0.9 must leave"):
        load_data(x, validation=np.float32(0.2), test=np.float32(0.9))
    with pytest.raises(ValueError, match=r"^shape \(3, 2\) has 6 values"):
        load_data(x, shape=(np.int64(3), 2))
    frame = pd.DataFrame({"size": x[:, 0], "count": np.arange(50) % 9})
    coded = load_data(frame, kinds={"count": "categorical"}).transform
    with pytest.raises(ValueError, match="'count' has no category 77, which is"):
        coded(frame.assign(count=77))
