"""Values that a likelihood cannot have are told when a fit starts, with what to do."""

import numpy as np
import pytest

from latente.inference import fit, load_data
from latente.inference.recipes.plan import Plan, compose
from latente.inference.recipes.values import check_values

COUNTS = np.random.default_rng(0).poisson(3.0, (100, 4))


def checked(values, likelihood, **options):
    data = load_data(values, **options)
    check_values(compose(Plan(likelihood=likelihood)), data)
    return data


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "logistic"])
@pytest.mark.parametrize(
    ("largest", "scale"), [(255, "255"), (200, "255"), (16, "16"), (65535, "65535")]
)
def test_levels_are_to_be_divided(likelihood, largest, scale):
    levels = np.arange(400).reshape(100, 4) % (largest + 1)
    levels[:, 0] = largest
    with pytest.raises(ValueError, match=f"{likelihood} are, .*: divide them, scale={scale}$"):
        checked(levels, likelihood)
    checked(levels, likelihood, scale=float(scale))
    with pytest.raises(ValueError, match=f"cannot be binarized: .* divide them, scale={scale}$"):
        load_data(levels, binarize="dynamic")


def test_other_values_outside_the_unit_interval_are_not():
    for wrong in (COUNTS - 0.5, -COUNTS):
        with pytest.raises(ValueError, match=r"take --likelihood normal with --standardize$"):
            checked(wrong, "bernoulli")
        with pytest.raises(ValueError, match=r"rescale them, or leave binarize out"):
            load_data(wrong, binarize="static")
    bits = load_data((COUNTS > 3).astype(np.int64), binarize="static")
    with pytest.raises(ValueError, match=r"row 0, .*; rescale them as the data of the fit were$"):
        bits.transform(np.full((1, 4), 9))


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_counts_are_neither_negative_nor_large_nor_fractions(likelihood, recwarn):
    checked(1000 * COUNTS, likelihood)  # no advice to standardize
    assert not recwarn
    checked(COUNTS / 20, likelihood, binarize="dynamic")  # its bits are counts
    part = np.array(["train"] * 60 + ["validation"] * 20 + ["test"] * 20)
    for row in (3, 70, 95):
        for value, what in ((-2, "below zero"), (0.5, "with fractions")):
            wrong = COUNTS.astype(float)
            wrong[row, 1] = value
            found = rf"{what}, and .* {likelihood} is for counts, such as {value}, in row {row}, "
            with pytest.raises(ValueError, match=found):
                checked(wrong, likelihood, split=part)


def test_large_measurements_are_to_be_standardized():
    for likelihood in ("normal", "student-t"):
        with pytest.warns(UserWarning, match="reach .*: standardize them, by --standardize, to"):
            checked(1000.5 * COUNTS, likelihood)
        checked(1000.5 * COUNTS, likelihood, standardize=True)


def test_a_fit_looks_at_the_test_data_too(make_pair):
    values = np.zeros((100, 4, 4), dtype=np.float32)
    values[95, 2, 2] = 0.5
    part = np.array(["train"] * 60 + ["validation"] * 20 + ["test"] * 20)
    pair = make_pair()
    data = load_data(values, split=part)
    with pytest.raises(ValueError, match=r"test data has values outside .* such as 0.5, in row 15"):
        fit(*pair, data, epochs=1, show_progress=False)
    values[95] = 1
    histories = [
        fit(*make_pair(), given, epochs=2, batch_size=20, show_progress=False).history
        for given in (load_data(values, split=part), data.rows("train"))
    ]
    # The look at the test data moves no random number.
    assert [row["loss"] for row in histories[0]] == [row["loss"] for row in histories[1]]
