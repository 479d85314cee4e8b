"""Whether new data are raw, or were standardized before they were given to a run."""

import numpy as np
import pandas as pd
import pytest
import torch

from latente.inference import load_data

RNG = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {
        "height": RNG.normal(170, 10, 300),
        "share": RNG.normal(0.5, 0.05, 300),
        "rare": (np.arange(300) % 100 == 0).astype(int),
    }
)
SMALL = RNG.normal(0.5, 0.05, (300, 4))


def test_outliers_are_raw():
    """One row is far from the fit in one element: that is what is scored."""
    data = load_data(TABLE, standardize=True)
    location, scale = (value.double() for value in (data.transform.location, data.transform.scale))
    for column, value in (("share", 0.9), ("rare", 1)):
        for rows in (1, 12):
            new = TABLE[1 : rows + 1].assign(**{column: value})
            wanted = (torch.tensor(new.to_numpy(dtype="float64")) - location) / scale
            assert (wanted[:, list(TABLE).index(column)] > 5).all()
            for form in (new, new.to_numpy(dtype="float64"), new.to_numpy().tolist()):
                got = data.transform(form)[0].double()
                torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    small = load_data(SMALL, standardize=True)
    row = SMALL[:1].copy()
    row[0, 2] = 0.9
    assert small.transform(row)[0].abs().max() > 5


@pytest.mark.parametrize("source", [TABLE, SMALL])
def test_rows_that_were_standardized_are_refused_in_any_form(source, tmp_path):
    data = load_data(source, standardize=True)
    rows = data.test.clone()  # of which the memory is not known
    np.save(tmp_path / "rows.npy", rows.numpy())
    names = list(TABLE) if source is TABLE else list("abcd")
    frame = pd.DataFrame(rows.numpy(), columns=names)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    forms = (rows, rows[:5], rows[:5].tolist(), frame)
    for form in (*forms, tmp_path / "rows.npy", tmp_path / "rows.csv"):
        with pytest.raises(ValueError, match="seems to be standardized already"):
            data.transform(form)


def test_groups_of_two_types_are_refused():
    """Rows of group 0 would be in two parts, as "0" in one of them."""
    table = pd.DataFrame({"x": RNG.normal(size=60), "y": RNG.normal(size=60)})
    numbers, words = np.arange(60) // 5, [str(row // 5) for row in range(60)]
    test = table[:5].assign(g=["0"] * 5)
    with pytest.raises(ValueError, match=r"0 in row 0 and '0' in the test set: convert them"):
        load_data(table.assign(g=numbers), groups="g", test=test)
    mixed = [numbers[row] if row % 2 else words[row] for row in range(60)]
    with pytest.raises(ValueError, match=r"'0' in row 0 and 0 in row 1, counted from 0"):
        load_data(table.assign(g=mixed), groups="g")
    with pytest.raises(ValueError, match="the test set has rows of the group '0'"):
        load_data(table.assign(g=words), groups="g", test=test)


def test_numbers_that_come_as_objects_are_a_context_of_numbers():
    table = pd.DataFrame({"x": RNG.normal(size=30), "y": RNG.normal(size=30)})
    ages = np.arange(30.0)
    contexts = [
        load_data(table.assign(age=pd.Series(values)), given="age", split="in-order").rows("train")
        for values in (ages, ages.astype(object))
    ]
    assert torch.equal(contexts[0][1], contexts[1][1])
    assert contexts[0][1].shape == (24, 1)
    dates = pd.date_range("2020-01-01", periods=30)
    with pytest.raises(ValueError, match="'day' of the DataFrame holds dates or durations"):
        load_data(table.assign(day=dates), given="day")
