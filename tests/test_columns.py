"""Tables whose columns are of different families: likelihood, features, kinds, codes, recipe."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyro.infer import Trace_ELBO
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import (
    Column,
    ImportanceWeighted_ELBO,
    column_families,
    decode_columns,
    describe_columns,
    encode_columns,
    evaluate,
    fit,
    infer_columns,
    load_data,
    load_run,
    log_evidence,
    predictive_check,
    reconstruct,
    sample_prior,
    simulate,
)
from latente.inference.recipes.build import build_planned, measure_sizes, planned_sizes
from latente.inference.recipes.plan import Plan, complete, fill_axes
from latente.inference.recipes.train import _facts
from latente.models import (
    VAE,
    AutoregressiveLikelihood,
    ColumnFamily,
    ColumnFeatures,
    ColumnLikelihood,
    Ordinal,
    StandardNormal,
    mlp,
)

from . import test_models
from .test_recorded_steps import assert_recorded_is_plain

UNITS = {"location": 170.0, "scale": 8.0}  # exact in float32
LOGS = {"location": 2.0, "scale": 0.5}
COLUMNS = {
    "normal": ColumnFamily("normal", **UNITS, name="height"),
    "normal predicted": ColumnFamily("normal", **UNITS, predicted=True, name="weight"),
    "student-t": ColumnFamily("student-t", **UNITS, name="error"),
    "student-t predicted": ColumnFamily("student-t", **UNITS, predicted=True),
    "lognormal": ColumnFamily("lognormal", **LOGS, name="income"),
    "lognormal predicted": ColumnFamily("lognormal", **LOGS, predicted=True),
    "count": ColumnFamily("count", location=0.5, name="visits"),
    "count predicted": ColumnFamily("count", location=0.5, predicted=True),
    "poisson": ColumnFamily("poisson", location=0.5, name="calls"),
    "binary": ColumnFamily("binary", name="smoker"),
    "categorical": ColumnFamily("categorical", 3, name="colour"),
    "categorical of 2": ColumnFamily("categorical", 2),
    "ordinal": ColumnFamily("ordinal", 5, name="grade"),
    "ordinal of 2": ColumnFamily("ordinal", 2),
}
MIXED = tuple(COLUMNS.values())


def by_hand(column, family, features):
    """The distribution of a column, as PyTorch or Pyro has it, from features (…, n)."""
    f, extra = features[..., 0], features[..., -1]
    log_start = float(np.float32(math.log(0.5 * column.scale)))
    scale = (extra + log_start).exp() if column.predicted else None
    if scale is None and column.family in ("normal", "student-t", "lognormal"):
        scale = family.log_scale.exp()[0]
    centre = column.location + column.scale * f
    if column.family == "student-t":
        return dist.StudentT(family.log_df.exp()[0], centre, scale)
    if column.family in ("normal", "lognormal"):
        kind = {"normal": dist.Normal, "lognormal": dist.LogNormal}[column.family]
        return kind(centre, scale)
    if column.family == "count":
        r = extra.exp() if column.predicted else family.log_total_count.exp()[0]
        return dist.NegativeBinomial(r, probs=centre.exp() / (r + centre.exp()))
    if column.family == "ordinal":
        return dist.OrderedLogistic(f, family.cutpoints[0])
    return {
        "poisson": lambda: dist.Poisson(centre.exp()),
        "binary": lambda: dist.Bernoulli(logits=f),
        "categorical": lambda: dist.Categorical(logits=features),
    }[column.family]()


@pytest.mark.parametrize("name", COLUMNS)
def test_each_family_is_that_of_pytorch_in_the_units_of_the_data(name):
    column = COLUMNS[name]
    likelihood = ColumnLikelihood([column]).double()
    for parameter in likelihood.parameters():  # away from where they start
        parameter.data += 0.1 * torch.rand_like(parameter)
    features = torch.randn(50, likelihood.num_features).double().requires_grad_()
    (family,) = likelihood.families
    expected = by_hand(column, family, features)
    p = likelihood(features)
    x = p.sample()
    log_prob, of_hand = p.log_prob(x), expected.log_prob(x[:, 0])
    assert torch.allclose(log_prob, of_hand, rtol=1e-10, atol=1e-10)
    wanted = [features, *likelihood.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(log_prob.sum(), wanted),
        torch.autograd.grad(of_hand.sum(), wanted, allow_unused=True),
        strict=True,
    ):
        assert torch.allclose(ours, torch.zeros_like(ours) if theirs is None else theirs, 1e-7)
    for moment in ("mean", "variance"):
        ours, theirs = getattr(p, moment)[:, 0], getattr(expected, moment)
        assert torch.allclose(ours, theirs.double(), rtol=1e-10, equal_nan=True)
    assert p.mean.isnan().all() == (column.num_classes > 0)
    assert p.support.is_discrete == (
        column.family in ("count", "poisson", "binary", "categorical", "ordinal")
    )


@pytest.mark.parametrize("name", COLUMNS)
def test_each_family_is_under_the_contract_of_likelihoods(name):
    column = replace(COLUMNS[name], location=0.0, scale=1.0)
    test_models.test_likelihood_contract(lambda shape: ColumnLikelihood([column] * 3), (3,))


def test_a_mixed_table_is_under_the_contract_of_likelihoods():
    names = ("normal", "binary", "count", "categorical", "normal")
    columns = [replace(COLUMNS[name], location=0.0, scale=1.0) for name in names]
    test_models.test_likelihood_contract(lambda shape: ColumnLikelihood(columns), (5,))


def alone(likelihood, features, place):
    """The distribution of one column of a table, from its own parameters and features."""
    single = ColumnLikelihood([likelihood.columns[place]]).double()
    blocks = features.split(likelihood._sizes, -1)
    for family, places, block in zip(likelihood.families, likelihood._places, blocks, strict=True):
        if place in places:
            position = places.tolist().index(place)
            for name, value in family.named_parameters():
                single.families[0].get_parameter(name).data = value.data[position : position + 1]
            return single(block.unflatten(-1, (-1, len(places)))[..., position])
    raise AssertionError("each column is of a family")


def test_a_row_is_the_product_of_its_columns():
    """Also where columns of a family stand apart, and are scored together."""
    columns = [MIXED[place] for place in (0, 10, 6, 12, 9, 0, 4, 10, 1, 2, 9)]
    likelihood = ColumnLikelihood(columns).double()
    for parameter in likelihood.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    features = torch.randn(4, 7, likelihood.num_features).double()
    p = likelihood(features)
    x = p.sample((3,))
    assert x.shape == (3, 4, 7, len(columns))
    assert p.support.check(x).all()
    by_column = [alone(likelihood, features, place) for place in range(len(columns))]
    total = sum(q.log_prob(x[..., [place]]) for place, q in enumerate(by_column))
    assert torch.allclose(p.log_prob(x), total, rtol=1e-12)
    means = torch.cat([q.mean for q in by_column], -1)
    assert torch.allclose(p.mean, means, rtol=1e-12, equal_nan=True)
    expanded = p.expand((2, 4, 7))
    assert torch.allclose(expanded.log_prob(x[0]), p.log_prob(x[0]).expand(2, 4, 7), rtol=1e-12)
    assert expanded.sample().shape == (2, 4, 7, len(columns))
    mapped = torch.vmap(lambda f, row: likelihood(f).log_prob(row))(features, x[0])
    assert torch.allclose(mapped, p.log_prob(x[0]), rtol=1e-12)


def test_draws_have_the_moments_and_frequencies_of_their_columns():
    """Each within 5 standard errors: a false alarm in 10⁵ runs or so, and the seed is fixed."""
    likelihood = ColumnLikelihood(MIXED).double()
    p = likelihood(0.3 * torch.randn(likelihood.num_features).double())
    x = p.sample((20_000,))
    for place, column in enumerate(MIXED):
        if column.num_classes:
            probs = torch.stack(
                [p.log_prob(_with(x[0], place, code)) for code in range(column.num_classes)]
            ).softmax(0)
            error = (probs * (1 - probs) / len(x)).sqrt()
            found = x[:, place].long().bincount(minlength=column.num_classes) / len(x)
            assert ((found - probs).abs() < 5 * error).all()
        else:
            error = (p.variance[place] / len(x)).sqrt()
            assert (x[:, place].mean() - p.mean[place]).abs() < 5 * error


def _with(row, place, value):
    row = row.clone()
    row[place] = value
    return row


ARGUMENTS = {
    "no family": (lambda: ColumnFamily("gamma"), "no column family 'gamma': there are normal, stu"),
    "one class": (lambda: ColumnFamily("ordinal", 1), r"column \(ordinal\) needs num_classes"),
    "classes of none": (lambda: ColumnFamily("normal", 3), "has no classes, got num_classes=3"),
    "no spread": (lambda: ColumnFamily("normal", scale=0.0), "a scale above 0, got location=0.0"),
    "nowhere": (lambda: ColumnFamily("normal", location=math.nan), "needs a finite location"),
    "units of bits": (lambda: ColumnFamily("binary", scale=2.0), "takes no location or scale"),
    "a bit's scale": (lambda: ColumnFamily("binary", predicted=True), "no scale that could be"),
    "no column": (lambda: ColumnLikelihood([]), "at least one column"),
    "no features": (lambda: ColumnFeatures([]), "at least one column"),
    "too few features": (
        lambda: ColumnLikelihood(["normal", "binary"])(torch.zeros(3)),
        r"ColumnLikelihood\(\(2,\), 1 normal, 1 binary\) takes 2 decoder features.* out=2",
    ),
    "another table": (
        lambda: ColumnFeatures(["normal", "binary"])(torch.zeros(4, 3)),
        r"features of 2 columns got a tensor of shape \(4, 3\)",
    ),
    "autoregressive": (
        lambda: AutoregressiveLikelihood(ColumnLikelihood(["normal", ColumnFamily("ordinal", 3),
                                                           ColumnFamily("categorical", 3)])),
        "takes more for some columns than for others",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_make_no_table_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Ordinal levels.


@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_levels_are_those_of_the_ordered_logistic_at_both_ends(num_classes):
    likelihood = Ordinal((), num_classes).double()
    assert (likelihood.cutpoints.diff() > 0).all()
    likelihood.log_gaps.data += torch.randn_like(likelihood.log_gaps)
    features = torch.tensor([-3.0, 0.0, 0.4, 5.0]).double()[:, None]
    p = likelihood(features)
    levels = torch.arange(num_classes).double()[:, None]
    expected = dist.OrderedLogistic(features[:, 0], likelihood.cutpoints)
    assert torch.allclose(p.log_prob(levels), expected.log_prob(levels), rtol=1e-9)
    assert torch.allclose(p.log_prob(levels).exp().sum(0), torch.ones(4).double(), rtol=1e-12)
    if num_classes == 2:
        bits = dist.Bernoulli(logits=features[:, 0] - likelihood.first_cutpoint)
        assert torch.allclose(p.log_prob(levels), bits.log_prob(levels), rtol=1e-12)


@pytest.mark.parametrize("feature", [-300.0, -40.0, 40.0, 300.0])
def test_levels_in_the_tails_keep_their_digits_in_float32(feature):
    """Pyro's own takes differences of probabilities, which are 0 or rounded there."""
    likelihood = Ordinal((), 4)
    f = torch.tensor([feature], requires_grad=True)
    log_prob = likelihood(f).log_prob(torch.arange(4.0))
    first, _, last = likelihood.cutpoints.detach().double().tolist()
    ends = [-max(feature - first, 0), min(feature - last, 0)]  # log σ(u) → u for u ≪ 0
    assert log_prob[[0, 3]].tolist() == pytest.approx(ends, rel=1e-6, abs=1e-6)
    gaps = likelihood.cutpoints.detach().double().diff()
    near = [abs(feature - c) for c in likelihood.cutpoints.tolist()]
    inner = [
        -min(near[level], near[level + 1]) + math.log1p(-math.exp(-gaps[level])) for level in (0, 1)
    ]
    assert log_prob[[1, 2]].tolist() == pytest.approx(inner, rel=1e-6, abs=1e-6)
    log_prob.sum().backward()
    assert f.grad.isfinite()
    assert all(p.grad.isfinite().all() for p in likelihood.parameters())


def test_constant_features_are_those_of_the_data_before_training():
    """With the exact frequencies of features, of which they are then found again."""
    columns = [COLUMNS[name] for name in ("normal", "lognormal", "poisson", "binary", "ordinal")]
    likelihood = ColumnLikelihood(columns).double()
    features = torch.tensor([0.4, -0.3, 0.2, 0.7, -0.6]).double()
    x = likelihood(features).sample((40_000,))
    assert torch.allclose(likelihood.constant_features(x), features, atol=0.03)
    predicted = ColumnLikelihood([COLUMNS["normal predicted"], COLUMNS["binary"]]).double()
    found = predicted.constant_features(x[:, [0, 3]])
    assert torch.allclose(found, torch.tensor([0.4, 0.0, 0.7]).double(), atol=0.05)
    assert predicted(found).variance[0].sqrt().item() == pytest.approx(0.5 * 8.0)


# --- Pairs.

IN_TABLE = "normal", "student-t", "lognormal", "count", "binary", "categorical", "ordinal"
TABLE = [COLUMNS[name] for name in IN_TABLE]


def pair_of(columns, latent_dim=1):
    features, likelihood = ColumnFeatures(columns), ColumnLikelihood(columns)
    model = VAE(StandardNormal(latent_dim), mlp(latent_dim, 8, out=likelihood.num_features),
                likelihood)  # fmt: skip
    encoder = nn.Sequential(features, mlp(features.num_features, 8, out=2 * latent_dim))
    return model, DiagonalNormal(encoder, latent_dim)


def rows_of(columns, num=60):
    likelihood = ColumnLikelihood(columns)
    return likelihood(0.5 * torch.randn(num, likelihood.num_features)).sample()


def test_features_of_an_encoder_by_hand():
    colour, grade = COLUMNS["categorical"], COLUMNS["ordinal"]
    columns = [colour, COLUMNS["lognormal"], grade, COLUMNS["count"], COLUMNS["normal"], "binary"]
    features = ColumnFeatures(columns).double()
    x = torch.tensor([[2.0, math.exp(2.5), 3.0, 3.0, 154.0, 1.0]], dtype=torch.float64)
    # grade, height, bit; income; visits; colours
    by_hand = [0.5, -2.0, 1.0, 1.0, math.log(4.0), 0.0, 0.0, 1.0]
    assert features.num_features == len(by_hand)
    assert features(x).tolist() == [pytest.approx(by_hand, abs=1e-12)]
    assert features(x.expand(2, 3, 6)).shape == (2, 3, 8)
    assert not list(features.parameters())
    codes = ColumnFeatures([colour])(torch.tensor([[0], [2], [1]]))  # whole numbers too
    assert codes.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


OUTSIDE = {
    "student-t": (math.inf, "NaN or infinity"),
    "lognormal": (0.0, r"such as 0 in column 'income' \(lognormal\), in row 3"),
    "count": (-1.0, r"ColumnDistribution at site 'x', such as -1 in column 'visits' \(count\)"),
    "binary": (0.5, r"such as 0.5 in column 'smoker' \(binary\)"),
    "categorical": (7.0, r"such as 7 in column 'colour' \(categorical, codes 0 to 2\), in row 3"),
    "ordinal": (5.0, r"such as 5 in column 'grade' \(ordinal, codes 0 to 4\)"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_values_outside_a_column_are_refused_by_its_name(name):
    x, (value, message) = rows_of(TABLE, 20), OUTSIDE[name]
    x[3, [column.name for column in TABLE].index(COLUMNS[name].name)] = value
    with pytest.raises(ValueError, match=message):
        fit(*pair_of(TABLE), x, epochs=1, batch_size=10)


def test_log_evidence_is_that_of_quadrature():
    """Within 5 standard errors for each of 10 data: a false alarm in 10⁵ runs."""
    model, guide = (part.double() for part in pair_of(TABLE))
    x = rows_of(TABLE, 10).double()
    nodes = torch.linspace(-9, 9, 4001).double()
    with torch.no_grad():
        log_px = model.likelihood(model.decoder(nodes[:, None]))
        log_joint = log_px.log_prob(x[:, None]) + dist.Normal(0.0, 1.0).log_prob(nodes)
    exact = log_joint.logsumexp(-1) + math.log(nodes[1] - nodes[0])
    found = log_evidence(model, guide, x, num_samples=4000)
    assert ((found.log_px - exact).abs() < 5 * found.standard_error + 1e-9).all()
    assert found.standard_error.max() < 0.2


def test_a_table_is_fitted_evaluated_drawn_and_checked(tmp_path):
    x = rows_of(TABLE, 80)
    model, guide = pair_of(TABLE)
    model.start_at_mean(x)
    run = fit(
        model, guide, x, epochs=5, batch_size=20, learning_rate=0.01, seed=0, out=tmp_path / "run"
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    figures = evaluate(run.model, run.guide, x[:20], num_samples=50)
    assert math.isfinite(figures["log_evidence"])
    assert "bits_per_dimension" not in figures  # of densities and probabilities together
    support = ColumnLikelihood(TABLE)(torch.zeros(ColumnLikelihood(TABLE).num_features)).support
    draws = sample_prior(run.model, run.guide, 50, x)[1]
    reconstructed = reconstruct(run.model, run.guide, x)
    for rows in (draws, reconstructed, simulate(run.model, run.guide, x, 30)[0][0]):
        assert rows.shape[1:] == (7,)
        assert support.check(rows).all()
    checks = predictive_check(run.model, run.guide, x, num_samples=20)
    assert checks
    again = load_run(tmp_path / "run", model=pair_of(TABLE)[0], guide=pair_of(TABLE)[1])
    with torch.no_grad():
        z = torch.randn(5, 1)
        ours, theirs = (pair.model.likelihood(pair.model.decoder(z)) for pair in (run, again))
    assert torch.equal(ours.log_prob(x[:5]), theirs.log_prob(x[:5]))


@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO, pytest.param(lambda: ImportanceWeighted_ELBO(3), marks=pytest.mark.slow)],
)
def test_steps_on_tables_are_recorded_bit_for_bit(objective):
    x = rows_of(TABLE, 60)

    def make():
        torch.manual_seed(1)
        return tuple(part.train() for part in pair_of(TABLE, 2))

    assert_recorded_is_plain(make, [(x[k : k + 12],) for k in range(0, 60, 12)], objective)


# --- Kinds of columns.


def frame_of(num=200):
    """One column of each type that is read, in which every value can be told from the others."""
    rng = np.random.default_rng(0)
    levels = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    counts = rng.poisson(3.0, num)
    counts[0] = 0
    return pd.DataFrame(
        {
            "age": rng.normal(45, 12, num).round(),
            "height": rng.normal(170, 9, num),
            "height32": rng.normal(170, 9, num).astype("float32"),
            "income": rng.lognormal(7, 1, num),
            "visits": counts,
            "visits8": counts.astype("uint8"),
            "offset": 10**12 + rng.integers(0, 10**6, num),
            "nullable": pd.array(counts + 5, dtype="Int16"),
            "smoker": rng.random(num) < 0.3,
            "answer": pd.array(rng.random(num) < 0.3, dtype="boolean"),
            "sex": rng.choice(["f", "m"], num),
            "code": rng.choice([1, 2], num),
            "half": rng.choice([0.5, 1.5], num),
            "colour": pd.Series(rng.choice(["red", "green", "blue"], num), dtype=object),
            "town": pd.Series(rng.choice(["Köln", "a,b", ""], num), dtype="str"),
            "grade": pd.Categorical.from_codes(rng.integers(0, 3, num), dtype=levels),
            "class": pd.Categorical(rng.choice([3, 1, 2], num), categories=[3, 1, 2, 9]),
            "stars": pd.Categorical(rng.choice([1.5, 2.5], num), ordered=True),
            7: rng.normal(size=num),
        }
    )


KINDS = {
    "age": "normal", "height": "normal", "height32": "normal", "income": "lognormal",
    "visits": "count", "visits8": "count", "offset": "normal", "nullable": "normal",
    "smoker": "binary", "answer": "binary", "sex": "binary", "code": "binary", "half": "binary",
    "colour": "categorical", "town": "categorical", "grade": "ordinal", "class": "categorical",
    "stars": "ordinal", "7": "normal",
}  # fmt: skip


def test_every_type_of_column_has_its_kind_and_comes_back_exactly():
    frame = frame_of()
    columns = infer_columns(frame)
    assert {str(column.name): column.kind for column in columns} == KINDS
    values = encode_columns(frame, columns)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    pd.testing.assert_frame_equal(decode_columns(values, columns), frame, check_exact=True)
    # As a run keeps them; and of a table in another order, and of a part of it.
    kept = json.dumps([column.to_json() for column in columns])
    again = tuple(Column.from_json(one) for one in json.loads(kept))
    assert again == columns
    shuffled = frame.sample(frac=1, axis="columns", random_state=0)[::-3]
    assert np.array_equal(encode_columns(shuffled, again), values[::-3])
    part = decode_columns(torch.from_numpy(values[:0]), again)
    assert (part.dtypes == frame.dtypes).all()


WORDS = ["a", "b", "", "nan", "None", "1", "1.0", "True", "ß", "\n", "a "]
NUMBERS = {f"float{bits}": st.floats(width=bits, allow_nan=False, allow_infinity=False)
           for bits in (16, 32, 64)}  # fmt: skip
VALUES = {
    **NUMBERS,
    **dict.fromkeys(("int8", "Int8", "UInt8", "uint64"), st.integers(0, 100)),
    "int64": st.integers(-(2**53), 2**53),
    **dict.fromkeys(("bool", "boolean"), st.booleans()),
    **dict.fromkeys(("object", "str", "string"), st.sampled_from(WORDS)),
    pd.CategoricalDtype([3, 1, 2], ordered=True): st.sampled_from([1, 2]),
    pd.CategoricalDtype(["z", "x", "y"]): st.sampled_from(["x", "y"]),
    pd.CategoricalDtype([True, False]): st.booleans(),
}


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_column_comes_back_exactly(data):
    dtype = data.draw(st.sampled_from([*VALUES]))
    values = data.draw(st.lists(VALUES[dtype], min_size=12, max_size=12))
    frame = pd.DataFrame({"x": pd.Series(values, dtype=dtype)})
    assume(len(set(values)) > 1)  # one word is no column
    # Written numbers are no words, unless they are asked for.
    kinds = {"x": "categorical"} if dtype in ("object", "str", "string") else None
    columns = [Column.from_json(json.loads(json.dumps(infer_columns(frame, kinds)[0].to_json())))]
    encoded = encode_columns(frame, columns)
    pd.testing.assert_frame_equal(decode_columns(encoded, columns), frame, check_exact=True)


def test_the_kinds_are_shown_with_their_reasons_and_changed():
    frame = frame_of()[["age", "income", "visits", "colour", "code", "grade"]]
    shown = describe_columns(infer_columns(frame)).splitlines()
    assert shown == [
        "age: normal (47 different whole numbers from 10 to 75)",
        "income: lognormal (skewness 2.9, of logarithms 0.1)",
        "visits: count (10 different whole numbers from 0 to 10)",
        "colour: categorical (3 values: blue, green, red)",
        "code: binary (2 values: 1, 2)",
        "grade: ordinal (3 levels: low, mid, high)",
    ]
    asked = {"age": "count", "income": "student-t", "visits": "ordinal", "code": "categorical",
             "grade": "categorical"}  # fmt: skip
    changed = {column.name: column for column in infer_columns(frame, asked)}
    assert {name: changed[name].kind for name in asked} == asked
    assert changed["colour"].kind == "categorical"
    assert changed["visits"].categories == (*range(9), 10)  # the levels that there are
    assert changed["grade"].categories == ("low", "mid", "high")
    values = encode_columns(frame, list(changed.values()))
    back = decode_columns(values, list(changed.values()))
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_column_type=False)


NUM = np.arange(300)
RULES = {
    "years": (1990 + NUM % 30, "normal"),  # spread less than counts do
    "ratings": (1 + NUM % 5, "normal"),
    "many counts": (NUM % 60, "normal"),
    "few counts": (NUM % 7 * (NUM % 3 == 0), "count"),
    "bits": ((NUM % 7 == 0).astype(int), "binary"),
    "constant": (np.full(300, 2.5), "normal"),
    "skewed and negative": (np.exp(NUM / 60) - 1.5, "normal"),
    "exponential": (-np.log1p(-(NUM + 0.5) / 300), "normal"),  # its logarithms are as skewed
    "lognormal": (np.exp(np.sin(NUM) + np.sin(2.1 * NUM) + 0.7 * np.cos(3.3 * NUM)), "lognormal"),
    "few lognormal": (np.exp(3 * np.sin(NUM[:15])), "normal"),
}


@pytest.mark.parametrize(("values", "kind"), RULES.values(), ids=RULES)
def test_the_rules_of_numbers(values, kind):
    (column,) = infer_columns(table(x=values))
    assert column.kind == kind, column.reason


def table(**columns):
    return pd.DataFrame(columns)


REFUSED = {
    "missing": (table(x=[1.0, math.nan, 2.0]), {}, r"'x' has missing values, in row 1, counted"),
    "no word": (table(x=["a", None, "b"]), {}, "'x' has missing values, in row 1"),
    "infinite": (table(x=[1.0, math.inf, 2.0]), {}, "'x' holds infinity, in row 1"),
    "one word": (table(x=["a"] * 9), {}, "'x' is constant at 'a': drop it"),
    "names": (
        table(x=[f"p{i}" for i in range(30)]),
        {},
        "'x' holds 30 different words .* by drop= if",
    ),
    "text": (table(x=[f"p{i % 51}" for i in range(900)]), {}, "51 different words in 900 rows"),
    "mixed": (table(x=["a", 1, "b"]), {}, "'x' holds values of several types, int, str"),
    "objects": (table(x=pd.Series([1, 2, 3], dtype=object)), {}, "with pd.to_numeric, dates"),
    "lists": (table(x=[[1], [2]]), {}, r"neither numbers nor words, but object \(\[1\]\)"),
    "dates": (table(x=pd.to_datetime(["2020-01-01", "2020-01-02"])), {}, "dates to a number of"),
    "identifiers": (table(x=[2**60 + 1, 5, 7]), {}, "'x' holds 1152921504606846977, which float64"),
    "written numbers": (table(x=["1.5", "2", "7"]), {}, "'x' holds written numbers .* categorical"),
    "a word among numbers": (table(x=["7", "2", "?"]), {}, r"'x' holds numbers, and '\?', which"),
    "no first word": (
        table(x=pd.Series([1, "x", 3], dtype=object)),
        {"x": "normal"},
        r"'x' is not numeric \('x' in row 1, counted from 0\)",
    ),
    "twice": (pd.DataFrame([[1, 2]], columns=["x", "x"]), {}, "more than one column 'x'"),
    "unknown": (table(age=[1, 2, 3]), {"aeg": "count"}, "no column 'aeg': did you mean 'age'"),
    "no kind": (table(x=[1, 2, 3]), {"x": "counts"}, "no kind of column 'counts': did you mean"),
    "no counts": (table(x=[1, -2, 3]), {"x": "count"}, "'x' is no count: .* and -2 is in row 1"),
    "halves": (table(x=[1, 0.5, 3]), {"x": "poisson"}, "'x' is no poisson: .* 0.5 is in row 1"),
    "zero": (table(x=[1, 0.0, 3]), {"x": "lognormal"}, "above 0, and 0 is in row 1"),
    "words": (table(x=["a", "b"]), {"x": "normal"}, r"'x' is not numeric \('a' in row 0"),
    "no order": (table(x=["a", "b", "c"]), {"x": "ordinal"}, "its words have no order: make it an"),
    "three": (table(x=[1, 2, 3]), {"x": "binary"}, "cannot be binary, with 3 values: 1, 2, 3"),
    "one level": (table(x=[4, 4]), {"x": "ordinal"}, "'x' is constant at 4"),
}


@pytest.mark.parametrize(("frame", "kinds", "message"), REFUSED.values(), ids=REFUSED)
def test_columns_without_a_kind_are_refused_by_name(frame, kinds, message):
    with pytest.raises(ValueError, match=message) as caught:
        infer_columns(frame, kinds)
    assert "\n" not in str(caught.value)


FITTED = (
    Column("colour", "categorical", ("blue", "green", "red"), "str"),
    Column("visits", "count", dtype="uint8"),
    Column("smoker", "binary", (False, True), "bool"),
)
GIVEN = {"colour": ["red", "blue"], "visits": [3, 0], "smoker": [True, False]}
ENCODING = {
    "unseen": ({"colour": ["red", "gren"]}, "'colour' has no category 'gren', which is in row 1, .*"
               "did you mean 'green'"),
    "missing": ({"colour": ["red", None]}, "'colour' has missing values, in row 1"),
    "no bit": ({"smoker": ["yes", "no"]}, "'smoker' has no category 'yes', .* it has False, True"),
    "no count": ({"visits": [2, -1]}, "'visits' is no count: .* -1 is in row 1"),
    "a word": ({"visits": ["2", "x"]}, "'visits' is not numeric"),
    "lists": ({"colour": [["a"], ["b"]]}, "'colour' holds no words"),
    "more": ({"id": [1, 2]}, "the table has column 'id' unlike the one that was fitted"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), ENCODING.values(), ids=ENCODING)
def test_rows_unlike_those_fitted_are_refused_by_column_and_value(changed, message):
    with pytest.raises(ValueError, match=message):
        encode_columns(pd.DataFrame({**GIVEN, **changed}), FITTED)


def test_a_table_without_a_column_is_refused():
    frame = pd.DataFrame(GIVEN).rename(columns={"colour": "color"})
    with pytest.raises(ValueError, match="lacks column 'colour': did you mean 'color'"):
        encode_columns(frame, FITTED)
    assert encode_columns(pd.DataFrame(GIVEN), FITTED).tolist() == [[2, 3, 1], [0, 0, 0]]


def test_draws_are_decoded_in_the_terms_of_the_table():
    decoded = decode_columns([[2.0, 299.7, 0.7], [1.0, -0.4, 0.2]], FITTED)
    assert decoded.colour.tolist() == ["red", "green"]
    assert decoded.visits.tolist() == [300, 0]  # beyond a byte: a wider type, not 44
    assert decoded.visits.dtype == np.int64
    assert decoded.smoker.tolist() == [True, False]
    for values, message in [
        ([[1.5, 0, 0]], "'colour' has 3 categories, and 1.5 in row 0.*: decode draws, not means"),
        ([[3.0, 0, 0]], "and 3 in row 0"),
        ([[0.0, 0, 1.6]], "'smoker' has 2 categories, and 1.6"),
        ([[0.0, math.nan, 0]], "'visits' cannot be decoded: nan is in row 0"),
        ([[0.0, 1.0]], r"3 columns cannot be decoded from values of \(1, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            decode_columns(values, FITTED)
    with pytest.raises(ValueError, match="of no known kind: 'gamma'"):
        Column.from_json({**FITTED[0].to_json(), "kind": "gamma"})
    with pytest.raises(ValueError, match="no column of a table"):
        Column.from_json({"name": "x"})


# --- The recipe.


def test_families_have_the_units_of_the_training_rows():
    frame = frame_of()
    columns = infer_columns(frame, {"height": "student-t"})
    values = encode_columns(frame, columns)
    families = {one.name: one for one in column_families(columns, torch.from_numpy(values))}
    assert families["age"].location == pytest.approx(frame.age.mean())
    assert families["age"].scale == pytest.approx(frame.age.std(ddof=0))
    assert families["height"].location == frame.height.median()
    assert families["height"].scale == pytest.approx(9, rel=0.2)
    assert families["income"].location == pytest.approx(np.log(frame.income).mean())
    assert families["visits"].location == pytest.approx(math.log(frame.visits.mean()))
    assert (families["class"].num_classes, families["grade"].num_classes) == (4, 3)
    assert families["smoker"] == ColumnFamily("binary", name="smoker")
    with pytest.raises(ValueError, match=r"19 columns do not fit rows of shape \(3,\)"):
        column_families(columns, torch.zeros(4, 3))
    seconds = torch.tensor([[1.7e9], [1.7e9 + 300], [1.7e9 - 300]], dtype=torch.float64)
    (time,) = column_families([Column("time", "normal")], seconds)
    assert (time.location, time.scale) == (1.7e9, pytest.approx(math.sqrt(60_000)))
    with pytest.raises(ValueError, match=r"'time' is at 1.7e\+09 .* float32 has too few digits"):
        column_families([Column("time", "normal")], seconds.float())


def test_the_recipe_of_tables_is_fitted_kept_and_loaded(tmp_path):
    frame = frame_of().drop(columns="offset")
    columns = infer_columns(frame)
    data = load_data(encode_columns(frame, columns))
    plan = fill_axes(Plan(recipe="vae-table", hidden=(8,)))
    sizes = measure_sizes(plan, data, columns)
    model, guide = build_planned(plan, sizes)
    model.start_at_mean(data.train)
    config = {"plan": asdict(plan), **_facts(data, sizes)}
    run = fit(model, guide, data, epochs=1, out=tmp_path / "run", config=config)
    loaded = load_run(tmp_path / "run")
    first, again = (
        log_evidence(pair.model, pair.guide, data.test, num_samples=20) for pair in (run, loaded)
    )
    assert first.log_px.isfinite().all()
    assert torch.equal(first.log_px, again.log_px)
    drawn = decode_columns(sample_prior(loaded.model, loaded.guide, 30, data)[1], columns)
    assert drawn.shape == (30, 18)
    assert set(drawn.colour) <= {"red", "green", "blue"}


def test_the_recipe_takes_a_context_beside_the_table():
    labels, x = torch.arange(20) % 3, rows_of(TABLE, 20)
    plan = fill_axes(Plan(recipe="vae-table", given="labels", hidden=(8,)))
    sizes = planned_sizes(plan, (7,), context=3, columns=tuple(TABLE))
    model, guide = build_planned(plan, sizes)
    run = fit(model, guide, (x, labels), epochs=1)
    assert math.isfinite(run.history[0]["loss"])


NO_TABLE = {
    "images": ({}, "the likelihood columns is for tables, and digits holds images"),
    "conv": ({"network": "conv"}, "network conv is for images, and the likelihood columns for tab"),
    "quadrant": ({"given": "quadrant"}, "--given quadrant is for images, and the likelihood col"),
    "vamp": ({"prior": "vamp"}, "pseudo-inputs of the prior vamp cannot learn: take --prior mix"),
    "bits": ({"binarize": "static"}, "takes values as they are: leave --binarize out"),
}


@pytest.mark.parametrize(("options", "message"), NO_TABLE.values(), ids=NO_TABLE)
def test_what_does_not_go_with_a_table_is_refused_before_data_are_read(options, message):
    with pytest.raises(ValueError, match=message):
        complete(Plan(recipe="vae-table", **options))


def test_data_without_kinds_of_columns_are_refused():
    plan = fill_axes(Plan(recipe="vae-table"))
    sizes = measure_sizes(plan, load_data(torch.rand(30, 3)))
    with pytest.raises(ValueError, match="for tables whose columns have kinds"):
        build_planned(plan, sizes)
