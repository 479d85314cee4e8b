"""Data that carry their transform: new data mean what the old ones did, and come back."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latente.guides import DiagonalNormal
from latente.inference import fit, load_data, load_run, log_evidence, quadrants
from latente.inference.data.fitted_transform import like
from latente.inference.data.transform_json import from_json, to_json
from latente.models import VAE, Bernoulli, Normal, StandardNormal, mlp

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "time": 1.7e9 + RNG.normal(size=60).round(2),
        "count": RNG.integers(0, 9, 60),
        "flag": RNG.random(60) > 0.5,
        "size": RNG.normal(3, 2, 60),
        "kind": np.array(["ant", "bee", "cat"])[np.arange(60) % 3],
    }
)
GREY = RNG.integers(0, 256, (40, 6, 5)).astype("uint8")
COLOUR = RNG.integers(0, 256, (40, 6, 5, 3)).astype("uint8")
DEEP = RNG.integers(0, 65536, (40, 4, 4)).astype("uint16")

CASES = {
    "table": (TABLE.drop(columns=["kind", "time"]), {}),
    "standardized table": (TABLE, {"labels": "kind", "standardize": True}),
    "labels given": (TABLE, {"labels": "kind", "given": "labels", "standardize": True}),
    "columns given": (TABLE, {"given": ("count", "kind"), "standardize": True}),
    "grey": (GREY, {}),
    "bits": (GREY, {"binarize": "static"}),
    "colour": (COLOUR, {}),
    "deep": (DEEP, {"scale": 65535}),
    "standardized images": (COLOUR, {"standardize": True}),
    "quadrant": (GREY, {"given": lambda shape: quadrants(shape, 1)}),
    "floats": (RNG.normal(size=(40, 3)), {"standardize": True}),
    "single floats": (RNG.normal(size=(40, 3)).astype("float32"), {}),
    "pixel table": (pd.DataFrame(GREY.reshape(40, 30)), {"shape": (6, 5), "scale": 255}),
    "digits": ("digits", {}),
}


def rows_of(source, index):
    return source.iloc[index] if isinstance(source, pd.DataFrame) else source[index]


@pytest.mark.parametrize("case", list(CASES))
def test_the_same_rows_are_the_same_in_every_call(case):
    source, options = CASES[case]
    data = load_data(source, **options)
    if isinstance(source, str):
        from sklearn.datasets import load_digits

        source = load_digits().images
    again = from_json(json.loads(json.dumps(to_json(data.transform))))
    for transform in (data.transform, again):
        found = transform(rows_of(source, data.test_index))
        expected = data.rows("test")
        assert len(found) == len(expected)
        for position, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            assert mine.dtype == theirs.dtype
            if position == 0 and options.get("binarize"):  # bits go by the number of a row
                assert mine.shape == theirs.shape
            else:
                assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("quadrant", "bits", "digits")]
)
def test_inverse_of_the_rows_is_what_was_read(case):
    source, options = CASES[case]
    data = load_data(source, **options)
    back = data.transform.inverse(data.train)
    there = rows_of(source, data.train_index)
    if not isinstance(source, pd.DataFrame):
        assert back.shape == there.shape
        if source.dtype.kind == "u":
            assert back.dtype == source.dtype
            assert np.array_equal(back, there)
        else:
            assert np.allclose(back, there, rtol=0, atol=1e-6)
    elif "shape" in options:
        assert np.array_equal(back.reshape(len(back), -1), there)
    else:
        assert set(back.columns) == set(data.transform.columns)
        for column in back:
            assert back[column].dtype == there[column].dtype
            exact = there[column].dtype.kind in "ib"
            wanted = there[column].to_numpy()
            if exact:
                assert np.array_equal(back[column], wanted)
            else:  # float32 has 24 binary digits of the standardized value
                spread = wanted.std() or 1
                assert np.abs(back[column] - wanted).max() < 1e-5 * max(spread, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["float64", "float32", "int64", "int16", "bool"]), min_size=2, max_size=5
    ),
    st.permutations(range(5)),
    st.integers(0, 99),
)
def test_columns_in_any_order_are_the_same_rows(kinds, order, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {f"c{place}": (rng.normal(size=30) * 50).astype(kind) for place, kind in enumerate(kinds)}
    )
    data = load_data(frame, standardize=False, keep_degenerate=True)
    shuffled = frame[[f"c{place}" for place in order if place < len(kinds)]]
    (x,) = data.transform(shuffled)
    assert torch.equal(x, data.transform(frame)[0])
    back = data.transform.inverse(x)
    for column in frame:
        assert back[column].dtype.kind == frame[column].dtype.kind
        assert np.array_equal(back[column].astype("float32"), frame[column].astype("float32"))


REFUSED = {
    "a renamed column": (
        TABLE.drop(columns="kind"), {"standardize": True},
        lambda t: t.rename(columns={"size": "sizes"}),
        "lacks column 'size' of the data of the fit, and has column 'sizes'$",
    ),
    "a further column": (
        TABLE.drop(columns="kind"), {"standardize": True},
        lambda t: t.assign(more=1.0), "has column 'more', which the data of the fit had not",
    ),
    "an unknown label": (
        TABLE, {"labels": "kind", "standardize": True},
        lambda t: t.assign(kind="dog"), "label 'dog'",
    ),
    "a word of a context": (
        TABLE, {"given": "kind", "standardize": True},
        lambda t: t.assign(kind="dog"), "'kind' of the DataFrame has 'dog'",
    ),
    "a context that is missing": (
        TABLE, {"given": ["kind"], "standardize": True},
        lambda t: t.drop(columns="kind"), "lacks column 'kind', which the model is given",
    ),
    "labels that are missing": (
        TABLE, {"labels": "kind", "given": "labels", "standardize": True},
        lambda t: t.drop(columns="kind"), "is given labels",
    ),
    "divided levels": (GREY, {}, lambda x: x / 255.0, "divided by 255: give levels"),
    "bits for levels": (GREY, {}, lambda x: (x > 100).astype("uint8"), "give levels"),
    "levels beyond": (GREY, {}, lambda x: x.astype("int64") + 100, "beyond the 255"),
    "levels for fractions": (
        (GREY / 255).astype("float32"), {}, lambda x: (x * 255).astype("uint8"), "as those were",
    ),
    "another shape": (GREY, {}, lambda x: x[:, :5], r"shape \(5, 5\).*\(6, 5\)"),
    "missing values": (
        np.ones((30, 2)) * np.arange(30)[:, None], {}, lambda x: x * np.nan, "NaN",
    ),
    "no rows": (GREY, {}, lambda x: x[:0], "no rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_new_data_unlike_those_of_the_fit_are_refused(case):
    source, options, change, message = REFUSED[case]
    transform = load_data(source, **options).transform
    with pytest.raises(ValueError, match=message):
        transform(change(source))


def test_a_black_image_is_one_and_bits_are_refused():
    """Bytes have the scale of the fit's bytes, which is said where they may be bits."""
    transform = load_data(GREY).transform
    assert transform(np.zeros((2, 6, 5), "u1"))[0].max() == 0
    black = np.zeros((3, 6, 5), "u1")
    black[:, 2, 3] = 1
    for rows in (black, (GREY[:1] > 100).astype("u1")):
        with pytest.warns(UserWarning, match="holds bytes up to 1, .* divided by 255, so it is"):
            (x,) = transform(rows)
        assert torch.equal(x, torch.tensor(rows / 255).float())
    for rows in ((GREY > 100).astype("u1"), black.astype("i8"), black.astype("f4")):
        with pytest.raises(ValueError, match="give levels"):
            transform(rows)


def test_uint8_counts_mean_the_same_as_other_counts():
    counts = RNG.integers(0, 200, (40, 3))
    transform = load_data(counts).transform
    assert torch.equal(transform(counts.astype("uint8"))[0], transform(counts)[0])


def test_few_new_rows_keep_the_digits_of_a_large_offset():
    data = load_data(TABLE[["time", "size"]], standardize=True)
    (one,) = data.transform(TABLE[["time", "size"]].iloc[[3]])
    exact = (TABLE["time"][3] - TABLE["time"][data.train_index].mean()) / TABLE["time"][
        data.train_index
    ].std()
    assert abs(one[0, 0].item() - exact) < 1e-5


def test_channels_come_first_where_the_shape_tells_them():
    data = load_data(COLOUR)
    assert data.event_shape == (3, 6, 5)
    assert "channels moved" in data.note
    first = np.moveaxis(COLOUR, -1, 1)
    assert torch.equal(data.transform(first)[0], data.transform(COLOUR)[0])
    assert load_data(first).event_shape == (3, 6, 5)
    assert load_data(first).note == "levels of 8 bits, divided by 255"
    with pytest.raises(ValueError, match=r"first and the last may be the channels.*layout="):
        load_data(np.zeros((20, 3, 8, 3)))
    assert load_data(np.zeros((20, 3, 8, 3)), layout="channels_last").event_shape == (3, 3, 8)
    with pytest.raises(ValueError, match="layout must be"):
        load_data(COLOUR, layout="last")
    with pytest.raises(ValueError, match="without channels"):
        load_data(GREY, layout="channels_last")


def test_streamed_images_have_their_channels_first_too(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR)
    held, streamed = (load_data(tmp_path / "x.npy", stream=flag) for flag in (False, True))
    assert torch.equal(held.train, streamed.train[: len(streamed.train)])


def test_pixels_of_a_table_get_their_shape():
    frame = pd.DataFrame(GREY.reshape(40, 30)).assign(digit=np.arange(40) % 3)
    data = load_data(frame, labels="digit", shape=(6, 5), scale=255)
    assert torch.equal(data.train, load_data(GREY).train)
    assert "; divided by 255; 'digit' is set aside as labels; " in data.note
    with pytest.raises(ValueError, match=r"shape \(7, 5\) has 35 values.*has 30"):
        load_data(frame, labels="digit", shape=(7, 5))
    with pytest.raises(ValueError, match="scale must be positive"):
        load_data(GREY, scale=0)


def pair(dim, likelihood=None):
    vae = VAE(StandardNormal(1), mlp(1, 4, out=dim), likelihood or Normal((dim,)))
    return vae, DiagonalNormal(mlp(dim, 4, out=2), latent_dim=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = load_data(TABLE.drop(columns="kind"), standardize=True)
    model, guide = pair(4)
    out = tmp_path_factory.mktemp("run") / "r"
    return fit(model, guide, data, epochs=1, out=out, show_progress=False), data


def test_a_run_answers_for_new_data_in_their_own_terms(run):
    run, data = run
    new = TABLE.drop(columns="kind").iloc[data.test_index]
    evidence = run.log_evidence(new[new.columns[::-1]], num_samples=200)
    same = log_evidence(run.model, run.guide, data.test, num_samples=200)
    assert torch.equal(evidence.log_px, same.log_px)
    assert list(run.reconstruct(new).columns) == list(new.columns)
    codes = run.encode(new, num_samples=200)
    assert torch.equal(codes.log_px, same.log_px)
    with torch.no_grad():
        posterior = run.guide.posterior(data.test)
    assert torch.allclose(codes.mean["z"], posterior.mean)
    assert torch.allclose(codes.sd["z"], posterior.variance.sqrt())
    samples = run.sample(500)
    assert list(samples.columns) == list(new.columns)
    # The draws are as far from 0 as seconds since 1970 are.
    assert abs(samples["time"].mean() - 1.7e9) < 100


def test_a_loaded_run_has_the_transform(run):
    run, data = run
    loaded = load_run(run.out, model=run.model, guide=run.guide)
    assert torch.equal(loaded.rows(TABLE.drop(columns="kind"))[0][data.test_index], data.test)
    assert loaded.sample(3).equals(run.sample(3))


def test_functions_of_a_pair_refuse_what_was_not_transformed(run):
    run, data = run
    new = TABLE.drop(columns="kind")
    values = new.to_numpy(dtype=np.float64)
    for raw in (new, (new,), values, torch.as_tensor(values)):
        with pytest.raises(ValueError, match=r"standardized.*run.transform\(new\)"):
            log_evidence(run.model, run.guide, raw)
    own = load_data(new.iloc[:30], standardize=True)
    with pytest.raises(ValueError, match="another mean and standard deviation"):
        log_evidence(run.model, run.guide, own)
    assert len(log_evidence(run.model, run.guide, data).log_px) == len(data.test)


def test_levels_of_images_are_refused_where_they_were_divided():
    data = load_data(GREY, binarize="static")
    model, guide = pair(30)
    model.likelihood, guide.encoder = Bernoulli((6, 5)), mlp(30, 4, out=2)
    model.decoder = mlp(1, 4, out=30)
    fitted = fit(model, guide, data, epochs=1, show_progress=False)
    for levels in (GREY, GREY.astype("float32")):
        with pytest.raises(ValueError, match="levels divided by 255"):
            log_evidence(model, guide, levels)
    assert fitted.sample(4).dtype == np.uint8
    assert set(np.unique(fitted.sample(4))) <= {0, 255}


def test_columns_in_another_order_are_aligned_without_load_data():
    frame = TABLE[["size", "count"]].astype("float32")
    model, guide = pair(2)
    fit(model, guide, frame, epochs=1, show_progress=False)
    wanted = log_evidence(model, guide, frame).log_px
    assert torch.equal(log_evidence(model, guide, frame[["count", "size"]]).log_px, wanted)
    with pytest.raises(ValueError, match="lacks column 'size'"):
        log_evidence(model, guide, frame.rename(columns={"size": "weight"}))


def test_a_run_of_arrays_needs_to_be_told_what_to_sample():
    model, guide = pair(2)
    x = torch.randn(20, 2)
    run = fit(model, guide, x, epochs=1, show_progress=False)
    assert run.transform is None
    with pytest.raises(ValueError, match="like="):
        run.sample(3)
    assert run.sample(3, like=x).shape == (3, 2)
    assert len(run.log_evidence(x, num_samples=100).log_px) == 20


@pytest.mark.parametrize("form", ["by position", "by keyword", "a Series"])
def test_draws_have_the_columns_of_what_the_model_observes(form):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=list("abcd"))
    covariates, observed = (
        frame[["a", "b"]],
        frame["c"] if form == "a Series" else frame[["c", "d"]],
    )

    def model(seen, y):
        noise = dist.Normal(100 + 0 * seen.sum(1), 1.0)
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", noise)
            loc = z if y.ndim == 1 else z[:, None].expand(-1, 2)
            pyro.sample("y", dist.Normal(loc, 1.0).to_event(y.ndim - 1), obs=y)

    def guide(seen, y):
        mean = pyro.param("mean", torch.tensor(100.0))
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(mean + 0 * seen.sum(1), 1.0))

    data = (covariates, observed)
    if form == "by keyword":
        data = {"seen": covariates, "y": observed}
    run = fit(model, guide, data, epochs=1, show_progress=False)
    with pytest.raises(
        ValueError, match="to sample, data as those of the fit must be given: like="
    ):
        run.sample(3)
    for values, num in ((run.sample(3, like=data), 3), (run.reconstruct(data), 40)):
        assert (np.asarray(values) > 50).all()
        if form == "a Series":
            assert values.shape == (num,)
        else:
            assert list(values) == ["c", "d"]
            assert len(values) == num


def test_a_transform_that_was_edited_is_refused():
    plain = to_json(load_data(GREY).transform)
    with pytest.raises(ValueError, match="not the values of a transform"):
        from_json({**plain, "more": 1})
    with pytest.raises(ValueError, match="not the values of a transform"):
        from_json({name: value for name, value in plain.items() if name != "options"})
    assert replace(from_json(plain), seed=1) != from_json(plain)


def test_pixels_of_a_table_are_taken_by_their_names():
    frame = pd.DataFrame(GREY.reshape(40, 30)).add_prefix("p")
    reversed_columns = frame[frame.columns[::-1]]
    data = load_data(frame, shape=(6, 5), scale=255, test=reversed_columns)
    transform = from_json(json.loads(json.dumps(to_json(data.transform))))
    assert torch.equal(transform(reversed_columns)[0], data.transform(frame)[0])
    assert torch.equal(data.test, data.transform(frame)[0])
    with pytest.raises(ValueError, match="lacks column 'p3'"):
        transform(frame.rename(columns={"p3": "q3"}))


def test_levels_beyond_the_scale_and_fractions_are_taken_again_and_come_back():
    for values in (RNG.integers(0, 251, (40, 3)), RNG.uniform(0, 99, (40, 3))):
        data = load_data(values, scale=100)
        assert torch.equal(data.transform(values)[0][data.test_index], data.test)
        back = data.transform.inverse(data.test)
        assert np.allclose(back, values[data.test_index], rtol=0, atol=1e-5)


def test_samples_beyond_a_type_do_not_wrap_around():
    frame = pd.DataFrame({"a": np.arange(40, dtype="uint8"), "b": [True, False] * 20})
    drawn = load_data(frame).transform.inverse(torch.tensor([[300.0, 2.0], [-1.0, 1.0]]))
    assert drawn["a"].tolist() == [300, -1]
    assert drawn["b"].tolist() == [2.0, 1.0]


def test_a_data_set_with_another_coding_is_refused():
    for options, part in (
        ({"labels": "kind", "given": "labels"}, "numbering of labels"),
        ({"given": ("kind",)}, "context"),
        ({"given": ("count",)}, "context"),
    ):
        columns = ["size", "flag", "count" if "count" in options["given"] else "kind"]
        first = load_data(TABLE[columns], **options)
        some = TABLE[columns][(TABLE["kind"] != "ant") & (TABLE["count"] > 1)]
        other = load_data(some, **options)
        with pytest.raises(ValueError, match=f"another {part}"):
            like(first.transform, other, "data")


def test_columns_are_aligned_in_copies_in_dicts_and_where_they_validate():
    frame = TABLE[["size", "count"]].astype("float32")
    other_order = frame[["count", "size"]]
    histories = []
    for validation in (frame, other_order):
        torch.manual_seed(0)
        model, guide = pair(2)
        run = fit(model, guide, frame, validation=validation, epochs=1, show_progress=False)
        histories.append(run.history[0]["validation_elbo"])
    assert histories[0] == histories[1]
    wanted = log_evidence(model, guide, frame).log_px
    for again in (guide, copy.deepcopy(guide)):
        for given_as in (other_order, {"x": other_order}, (other_order,)):
            assert torch.equal(log_evidence(model, again, given_as).log_px, wanted)


def test_a_run_refuses_data_that_are_standardized_already(run):
    run, data = run
    for rows in (data.train, data.test, data.test.numpy()[:3]):
        with pytest.raises(ValueError, match="standardized already"):
            run.log_evidence(rows, num_samples=50)
    wide = load_data(RNG.normal(0, 50, (100, 2)), standardize=True)
    fitted = fit(*pair(2), wide, epochs=1, show_progress=False)
    with pytest.raises(ValueError, match="standardized already"):
        fitted.encode(wide.train)
    raw = TABLE.drop(columns="kind").to_numpy(dtype="float64")
    assert torch.equal(run.rows(raw)[0][data.test_index], data.test)


def test_data_to_validate_on_are_as_those_of_the_fit():
    data = load_data(TABLE[["size", "count"]], standardize=True)
    raw = TABLE[["size", "count"]].to_numpy(dtype="float32") * 100
    other = load_data(TABLE[["size", "count"]], standardize=True, seed=1)
    for validation in (TABLE[["size", "count"]], other):
        with pytest.raises(ValueError, match=r"standardized|mean and standard deviation"):
            fit(*pair(2), data, validation=validation, epochs=1, show_progress=False)
    scaled = load_data(raw, standardize=True)
    with pytest.raises(ValueError, match="was not standardized"):
        fit(*pair(2), scaled, validation=raw, epochs=1, show_progress=False)


def test_a_run_is_not_resumed_with_columns_in_another_order(tmp_path):
    frame = TABLE[["size", "count"]].astype("float32")
    options = {"out": tmp_path / "r", "show_progress": False}
    model, guide = pair(2)
    fit(model, guide, frame, epochs=1, **options)
    with pytest.raises(ValueError, match="data of other columns"):
        fit(model, guide, frame[["count", "size"]], epochs=2, resume=True, **options)
    assert fit(model, guide, frame, epochs=2, resume=True, **options).epoch == 2


def test_a_run_takes_the_arguments_of_its_fit():
    frame, context = TABLE[["size", "count"]].astype("float32"), torch.ones(60)
    run = fit(
        lambda x, c: model(x + c[:, None]), lambda x, c: guide(x), (frame, context), epochs=1,
        show_progress=False,
    )  # fmt: skip
    found = run.log_evidence((frame[["count", "size"]], context), num_samples=100).log_px
    assert torch.equal(
        found, log_evidence(run.model, run.guide, (frame, context), num_samples=100).log_px
    )


def test_two_runs_of_one_function_keep_their_own_columns():
    frame = TABLE[["size", "count"]].astype("float32")
    other_order = frame[["count", "size"]]
    runs = [fit(model, guide, data, epochs=1, show_progress=False) for data in (frame, other_order)]
    first = [log_evidence(run.model, run.guide, frame).log_px for run in runs]
    second = [log_evidence(run.model, run.guide, other_order).log_px for run in runs]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def model(x):
    loc = pyro.param("loc", torch.tensor([1.0, 5.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(loc + z[:, None], 1.0).to_event(1), obs=x)


def guide(x):
    weight = pyro.param("weight", torch.tensor([0.1, 0.3]))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ weight, 0.7))


MIXED = pd.DataFrame(
    {
        "age": RNG.normal(50, 12, 80),
        "visits": RNG.poisson(2.0, 80) * RNG.integers(1, 4, 80),
        "smoker": RNG.random(80) > 0.7,
        "work": np.array(["none", "part", "full"])[RNG.integers(0, 3, 80)],
        "stage": pd.Categorical(
            np.array(["I", "II", "III"])[RNG.integers(0, 3, 80)], ["I", "II", "III"], ordered=True
        ),
        "part": ["train", "test"] * 40,
    }
)


def test_a_table_of_several_kinds_comes_back_exactly(tmp_path):
    data = load_data(MIXED, kinds={"visits": "poisson"}, split="part")
    assert [column.kind for column in data.transform.kinds] == [
        "normal", "poisson", "binary", "categorical", "ordinal",
    ]  # fmt: skip
    transform = from_json(json.loads(json.dumps(to_json(data.transform))))
    new = MIXED.iloc[data.test_index].drop(columns="part")
    (x,) = transform(new[new.columns[::-1]])
    assert torch.equal(x, data.test)
    back = transform.inverse(x)
    pd.testing.assert_frame_equal(back, new.reset_index(drop=True), rtol=1e-6)
    with pytest.raises(ValueError, match="'work' has no category 'night'"):
        transform(new.assign(work="night"))
    with pytest.raises(ValueError, match=r"not numeric.*kinds="):
        load_data(MIXED, split="part")
    with pytest.raises(ValueError, match="in their own units"):
        load_data(MIXED, kinds={}, standardize=True)
    with pytest.raises(ValueError, match="column 'age' is constant"):
        load_data(MIXED.assign(age=1.0, visits=MIXED["age"]), kinds={}, split="part")
    kept = load_data(MIXED.assign(late=MIXED["smoker"]), kinds={}, split="part")
    assert kept.event_shape == (6,)  # a copy of a bit has a likelihood all the same


@pytest.mark.parametrize("name", ["diabetes", "wine", "breast_cancer"])
def test_a_table_is_the_same_from_text_parquet_and_memory(name, tmp_path):
    from sklearn import datasets

    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "semicolons.csv.gz", index=False, sep=";", decimal=",")
    frame.to_parquet(tmp_path / "t.parquet")
    forms = frame, tmp_path / "t.csv", tmp_path / "semicolons.csv.gz", tmp_path / "t.parquet"
    sets = [load_data(form, labels="target", standardize=True) for form in forms]
    assert len({data.digest() for data in sets}) == 1
    model, guide = pair(frame.shape[1] - 1)
    run = fit(model, guide, sets[0], epochs=1, show_progress=False)
    found = [run.log_evidence(form, num_samples=100).mean for form in forms]
    assert len(set(found)) == 1
