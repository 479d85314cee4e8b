"""Splits into train, validation and test."""

import numpy as np
import pandas as pd
import pytest
import torch

from latente.inference import load_data

RNG = np.random.default_rng(0)
N = 60
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "y": RNG.normal(size=N),
        "site": np.array(list("abcdef"))[np.arange(N) % 6],
        "day": pd.date_range("2020-01-01", periods=N)[RNG.permutation(N)],
        "part": np.array(["train", "train", "Validation", "test"])[np.arange(N) % 4],
        "kind": np.array(["cat", "dog"])[(np.arange(N) % 10 == 0).astype(int)],
    }
)


def only(*columns):
    return FRAME[["x", "y", *columns]]


def indices(data):
    return data.train_index, data.validation_index, data.test_index


def test_indices_lead_back_to_the_rows():
    values = RNG.normal(size=(N, 2))
    data = load_data(values)
    joined = np.concatenate(indices(data))
    assert sorted(joined.tolist()) == list(range(N))
    for part, index in zip(("train", "validation", "test"), indices(data), strict=True):
        assert np.array_equal(getattr(data, part).numpy(), values[index])


def test_groups_stay_together():
    data = load_data(only("site"), groups="site", validation=0.2, test=0.4)
    sites = [set(FRAME["site"][index]) for index in indices(data)]
    assert [len(part) for part in sites] == [3, 1, 2]
    assert sum(map(len, sites)) == len(set().union(*sites))
    assert data.event_shape == (2,)
    array = load_data(only().to_numpy(), groups=FRAME["site"], validation=0.2, test=0.4)
    assert np.array_equal(array.test_index, data.test_index)


def test_the_last_in_order_are_the_test_part():
    data = load_data(only("day"), split="in-order", order="day")
    days = [FRAME["day"][index] for index in indices(data)]
    assert days[0].max() < days[1].min()
    assert days[1].max() < days[2].min()
    assert load_data(only(), split="in-order").test_index.tolist() == list(range(54, 60))


def test_each_part_has_its_share_of_each_class():
    data = load_data(only("kind"), labels="kind", split="by-class", validation=0.25, test=0.25)
    dogs = data.label_names.index("dog")
    assert (data.test_labels == dogs).sum() in (1, 2)
    assert (data.validation_labels == dogs).sum() in (1, 2)
    assert len(data.test) == len(data.validation) == 15
    joined = np.concatenate(indices(data))
    assert sorted(joined.tolist()) == list(range(N))


def test_rows_say_their_part():
    for data in (
        load_data(only("part"), split="part"),
        load_data(only(), split=FRAME["part"].tolist()),
    ):
        assert data.test_index.tolist() == list(range(3, N, 4))
        assert data.validation_index.tolist() == list(range(2, N, 4))
        assert data.event_shape == (2,)


def test_a_test_set_of_its_own(tmp_path):
    other = FRAME[["y", "x"]].iloc[:7]
    other.to_csv(tmp_path / "test.csv", index=False)
    for given in (other, tmp_path / "test.csv"):
        data = load_data(only(), test=given)
        assert np.allclose(data.test.numpy(), FRAME[["x", "y"]].iloc[:7])
        assert data.test_index.tolist() == list(range(N, N + 7))
        assert len(data.train) + len(data.validation) == N
    labelled = load_data(only("kind"), labels="kind", test=FRAME[["kind", "x", "y"]].iloc[[1, 10]])
    assert labelled.test_labels.tolist() == [0, 1]
    x = RNG.normal(size=(N, 2))
    arrays = load_data(x, labels=np.arange(N) % 2, test=(x[:3], [0, 1, 1]))
    assert arrays.test_labels.tolist() == [0, 1, 1]
    assert torch.equal(arrays.test, torch.as_tensor(x[:3]))


def test_groups_beside_a_test_set_may_be_those_of_the_other_rows():
    x, groups = RNG.normal(size=(N, 2)), np.arange(N) // 6
    data = load_data(x, groups=groups, test=x[:5] + 9, validation=0.2)
    assert data.test_index.tolist() == list(range(N, N + 5))
    assert set(groups[data.validation_index]).isdisjoint(groups[data.train_index])
    assert "the rows of the test set have no groups" in data.note
    both = np.concatenate([groups, [10] * 5])
    data = load_data(x, groups=both, test=x[:5] + 9, validation=0.2)
    assert len(data.validation) == 12
    assert data.note == ""
    with pytest.raises(ValueError, match="each of 60 rows, or of 65 with the test set's, got"):
        load_data(x, groups=groups[:7], test=x[:5] + 9)
    with pytest.raises(ValueError, match="of the group 9, which is among the other data too"):
        load_data(x, groups=np.concatenate([groups, [9] * 5]), test=x[:5] + 9)


@pytest.mark.parametrize("name", ["randoms", "order", "in order", "by-classes", "groups"])
def test_a_column_may_have_the_name_of_an_option(tmp_path, name):
    frame = only().assign(**{name: FRAME["part"]})
    frame.to_csv(tmp_path / "named.csv", index=False)
    for source in (frame, tmp_path / "named.csv"):
        data = load_data(source, split=name)
        assert data.test_index.tolist() == list(range(3, N, 4))
        assert f"{name!r} is set aside as split; 30 to fit, 15 to validate, 15 to test" in data.note


def test_the_note_names_what_is_set_aside_and_the_parts():
    data = load_data(only("site", "kind"), groups="site", labels="kind", validation=0, test=0.2)
    assert data.note == (
        "read 60 rows of 2 columns; 'kind' is set aside as labels; 'site' is set aside as groups; "
        "50 to fit, 10 to test"
    )
    data = load_data(only("site", "day"), given="site", order="day", split="in-order")
    assert "'day' is set aside as order; 'site' is set aside as context; 48 to fit, 6" in data.note
    data = load_data(only("kind"), given="kind", labels="kind")
    assert "'kind' is set aside as labels and context;" in data.note


def test_dates_in_words_are_sorted_as_dates():
    days = pd.date_range("2019-12-01", periods=N)
    for words in (
        days.strftime("%Y-%m-%d"),
        days.strftime("%Y-%m-%d %H:%M"),
        [str(n) for n in range(N)],
    ):
        data = load_data(only().assign(day=words), split="in-order", order="day")
        assert data.test_index.tolist() == list(range(54, 60))
    with pytest.raises(ValueError, match="sorted by their letters"):
        load_data(only().assign(day=days.strftime("%d/%m/%Y")), split="in-order", order="day")


def test_a_series_beside_a_table_has_its_index():
    shuffled = FRAME.sample(frac=1, random_state=0)
    table = shuffled[["x", "y"]]
    for option in ({"groups": FRAME["site"]}, {"labels": FRAME["kind"]}, {"split": FRAME["part"]}):
        with pytest.raises(ValueError, match="a Series with another index"):
            load_data(table, **option)
    data = load_data(table, groups=shuffled["site"], test=0.2, validation=0.2)
    assert len(data.test) == 10


REFUSED = {
    "a column that is not there": ({"split": "parts"}, "no column 'parts'"),
    "a way that is misspelt": (
        {"split": "by_class"}, "no column 'by_class'.*; as a way .* did you mean 'by-class'",
    ),
    "a word that is no part": ({"split": ["train"] * 59 + ["Hold"]}, "says 'Hold': .* groups="),
    "a kind of a column that is set aside": (
        {"groups": "site", "kinds": {"site": "categorical"}},
        "column 'site' has a kind, and is not modelled",
    ),
    "no row to train on": ({"split": ["test"] * N}, "no row .* is for training"),
    "too few values": ({"groups": [1, 2]}, "one value for each of 60 rows"),
    "missing values": ({"groups": [np.nan] * N}, "groups are missing in row"),
    "groups in order": ({"groups": "site", "split": "in-order"}, "leave split= out, or groups="),
    "an order at random": ({"order": "day"}, "split='in-order'"),
    "one group": ({"groups": ["a"] * N}, "1 groups cannot be split .* needs one at least$"),
    "few groups": (
        {"groups": [*"abcde"] * (N // 5)}, "needs one at least: give validation=0.2 and test=0.2",
    ),
    "few groups and no validation": (
        {"groups": [*"abcde"] * (N // 5), "validation": 0}, "at least: give test=0.2$",
    ),
    "groups of the test set": ({"groups": "site", "test": only("site")[:3]}, "of the group 'a'"),
    "classes without labels": ({"split": "by-class"}, "needs labels"),
    "test rows of other columns": ({"test": FRAME[["x"]]}, "in the test set, the DataFrame lacks"),
    "test labels that are missing": (
        {"labels": np.arange(N) % 2, "test": np.zeros((3, 5))}, r"test=\(x, labels\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_split_that_does_not_go_with_the_data_is_refused(case):
    options, message = REFUSED[case]
    source = only(*(name for name in ("site", "day") if name in map(str, options.values())))
    with pytest.raises(ValueError, match=message):
        load_data(source, **options)


def test_a_class_with_too_few_data_is_named():
    with pytest.raises(ValueError, match="smallest class has 1"):
        load_data(np.zeros((20, 2)) + RNG.normal(size=(20, 2)), labels=[1] + [0] * 19,
                  split="by-class")  # fmt: skip


def test_columns_are_dropped_by_name(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    frame["id"] = [f"p{i}" for i in range(60)]
    frame["day"] = pd.date_range("2026-01-01", periods=60)
    frame["site"] = np.arange(60) // 6
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False)
    for source in (frame, path):
        data = load_data(source, drop=("id", "day"), groups="site")
        assert data.transform.columns == ("a", "b", "c")
        assert "'site' is set aside as groups; 'id', 'day' dropped" in data.note
        for new in (frame, frame[["c", "a", "b"]]):  # with them, or without
            assert torch.allclose(data.transform(new)[0][data.train_index], data.train)
    assert load_data(frame.drop(columns=["day", "site"]), drop="id").transform.columns == (
        "a", "b", "c",
    )  # fmt: skip
    with pytest.raises(ValueError, match="no column 'idd'"):
        load_data(frame, drop=["idd"])
    with pytest.raises(ValueError, match="leave it out by drop="):
        load_data(frame.drop(columns="day"))
